/** Requests of Node's servers: what Express and Fastify hand on. */

import type { Bytes } from "../format/bytes.js";
import type { Answer } from "./answers.js";
import { Pieces } from "./body.js";
import type { ReadBody } from "./gate.js";
import { RequestError, isCredential, type Head } from "./head.js";

/** What of `IncomingMessage` is used here. */
export interface NodeRequest {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly rawHeaders: string[];
  readonly headers: Record<string, string | string[] | undefined>;
  readonly complete: boolean;
  readonly readableDidRead: boolean;
  readonly readableEnded: boolean;
  readonly readableLength: number;
  readonly destroyed: boolean;
  read(): unknown;
  unshift(chunk: Bytes): void;
  on(event: string, listener: () => void): unknown;
  off(event: string, listener: () => void): unknown;
}

/** What of `ServerResponse` is used here. */
export interface NodeResponse {
  readonly headersSent: boolean;
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  write(...given: unknown[]): boolean;
  end(body?: string): unknown;
}

/** As it was sent: each header by itself, the target as in the request line. */
export function headOf(request: NodeRequest, target = request.url ?? ""): Head {
  const { method = "", rawHeaders } = request;
  const at = target.indexOf("?");
  const headers: [string, string][] = [];
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const [name, value] = [rawHeaders[index]!, rawHeaders[index + 1]!];
    if (!name.startsWith(":")) headers.push([name, value]); // of HTTP/2, no header
  }
  return {
    method,
    path: at < 0 ? target : target.slice(0, at),
    query: at < 0 ? "" : target.slice(at + 1),
    headers,
  };
}

/** From here on nothing can log the token, or pass it on. */
export function hide({ rawHeaders, headers }: NodeRequest): void {
  for (let index = rawHeaders.length - 2; index >= 0; index -= 2) {
    if (isCredential(rawHeaders[index]!)) rawHeaders.splice(index, 2);
  }
  for (const name of Object.keys(headers)) if (isCredential(name)) delete headers[name];
}

const CANNOT = "This server cannot check proofs.";

/**
 * The whole body, which is put back: whoever comes behind reads it from its beginning. What somebody
 * has read already is nobody's to prove.
 */
export const bodyOf =
  (request: NodeRequest): ReadBody =>
  (most) =>
    new Promise((resolve, reject) => {
      const pieces = new Pieces(most);
      const end = (): void => {
        request.off("readable", read);
        request.off("close", gone);
      };
      const gone = (): void => {
        end();
        reject(new RequestError(400, "The body did not come."));
      };
      const read = (): void => {
        try {
          // No step beyond what is there: the end is for whoever reads it again.
          while (request.readableLength > 0) pieces.add(bytesOf(request.read()));
          if (!request.complete) return;
          const body = pieces.joined();
          if (body.length) request.unshift(body.slice());
          end();
          resolve(body);
        } catch (error) {
          end();
          reject(error as Error);
        }
      };
      if (request.readableDidRead || request.readableEnded) {
        reject(new RequestError(503, CANNOT));
      } else if (request.complete && request.readableLength === 0) {
        resolve(pieces.joined());
      } else if (request.destroyed) {
        gone();
      } else {
        request.on("close", gone);
        request.on("readable", read);
      }
    });

/** Somebody has asked for text: which bytes came is lost. */
function bytesOf(chunk: unknown): Bytes {
  if (chunk instanceof Uint8Array) return chunk as Bytes;
  throw new RequestError(503, CANNOT);
}

/** Sends it. What the application has begun to send stays: Node ends the connection then. */
export function send(response: NodeResponse, { status, headers, body }: Answer): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.end(body);
}
