/**
 * The answers that refuse a request, as the guard of Python gives them: RFC 6750, RFC 9457, RFC 9728.
 *
 * What a stranger can cause has one body, without a code: nobody learns which keys exist, or which
 * tokens were taken back.
 */

import { UsageError } from "../format/errors.js";
import { publicWords, type Kind } from "../verification/codes.js";
import { forModel, type Denied } from "../verification/decision.js";
import { RequestError } from "./head.js";
import { RETRY } from "./retry.js";

/** An answer, for whatever sends it. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const QUOTABLE = /^[ !#-[\]-~]{1,256}$/;
const STRANGER = publicWords("bad_signature");

const ERRORS: Readonly<Record<Kind, string>> = {
  invalid: "invalid_token",
  proof: "invalid_token",
  insufficient: "insufficient_scope",
  unavailable: "temporarily_unavailable",
};
const TITLES: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  408: "Request Timeout",
  413: "Content Too Large",
  414: "URI Too Long",
  431: "Request Header Fields Too Large",
  503: "Service Unavailable",
};

/** What one protected resource answers to whoever it does not let in. */
export class Refusals {
  readonly #challenge: string;

  /** Both are shown to anybody. Raises UsageError for what cannot stand in a header. */
  constructor(realm: string, metadata: string | undefined) {
    if (typeof realm !== "string" || !QUOTABLE.test(realm)) {
      throw new UsageError("a realm is printable ASCII without quotes and backslashes");
    }
    const where = metadata === undefined ? "" : `, resource_metadata="${metadata}"`;
    this.#challenge = `Bearer realm="${realm}"${where}`;
  }

  /** No credentials: a challenge, and no error code (RFC 6750, 3.1). */
  unauthenticated(): Answer {
    const text = "A bearer token is needed.";
    return problem(401, text, { error_description: text }, this.#challenge);
  }

  /** What is wrong with the request, whatever token it has; or with the server, from 500 on. */
  bad({ status, message }: RequestError): Answer {
    if (status < 500) return this.#refusal(status, "invalid_request", message, {});
    return this.#refusal(status, "temporarily_unavailable", message, {
      retry: "later",
      for_model: message,
    });
  }

  denied({ decision, kind, public: text, status }: Denied): Answer {
    const told =
      text === STRANGER
        ? { retry: "no", for_model: forModel({ ...decision, code: "bad_signature" }) }
        : { code: decision.code, retry: RETRY[decision.code], for_model: forModel(decision) };
    return this.#refusal(status, ERRORS[kind], text, told);
  }

  #refusal(status: number, error: string, text: string, told: object): Answer {
    const isChallenged = status === 400 || status === 401 || status === 403;
    const details = `${this.#challenge}, error="${error}", error_description="${text}"`;
    const said = { error, error_description: text, ...told };
    return problem(status, text, said, isChallenged ? details : undefined);
  }
}

/** Problem details (RFC 9457). */
function problem(
  status: number,
  detail: string,
  said: object,
  challenge: string | undefined,
): Answer {
  const title = TITLES[status] ?? "Refused";
  const headers = {
    "content-type": "application/problem+json",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...(challenge !== undefined && { "www-authenticate": challenge }),
  };
  return {
    status,
    headers,
    body: JSON.stringify({ type: "about:blank", title, status, detail, ...said }),
  };
}

/** The document of RFC 9728. Whose it is, the server says itself. */
export function metadataOf(resource: string, fields: Readonly<Record<string, unknown>>): Answer {
  const stated = { bearer_methods_supported: ["header"], ...fields, resource };
  return {
    status: 200,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(stated),
  };
}
