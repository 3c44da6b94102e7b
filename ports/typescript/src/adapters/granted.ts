/** Whose request is whose grant: kept beside it, where nothing that came can stand. */

import { CaptokenError } from "../format/errors.js";
import type { Grant } from "../verification/verifier.js";
import { ask, checkStating, type Stating } from "./gate.js";

const GRANTS = /* @__PURE__ */ new WeakMap<object, Grant>();

export const grantTo = (request: object, grant: Grant): unknown => GRANTS.set(request, grant);
export const givenTo = (request: object): Grant | undefined => GRANTS.get(request);

/** The grant of this request. Raises CaptokenError `no_token` where no guard let it in. */
export function grantOf(request: object): Grant {
  const grant = GRANTS.get(request);
  if (grant) return grant;
  throw new CaptokenError(
    "nothing is granted here: there is no guard outside, or the path is public",
    "no_token",
  );
}

/** Asks the grant of each request for an access. What cannot be stated is denied. */
export function asking<R extends object>(
  access: Stating<R>,
  keyOf: (request: R) => object = (request) => request,
): (request: R) => Promise<Grant> {
  checkStating(access);
  return async (request) => ask(grantOf(keyOf(request)), access, request);
}
