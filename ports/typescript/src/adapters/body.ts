/** A body as it comes in, counted. */

import type { Bytes } from "../format/bytes.js";
import type { ReadBody } from "./gate.js";
import { RequestError } from "./head.js";

export class Pieces {
  readonly #pieces: Bytes[] = [];
  readonly #most: number;
  #size = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Raises RequestError 413. */
  add(piece: Bytes): void {
    this.#size += piece.length;
    if (this.#size > this.#most) {
      throw new RequestError(413, `The body is longer than ${this.#most} bytes.`);
    }
    this.#pieces.push(piece);
  }

  /** All of it, in bytes of their own. */
  joined(): Bytes {
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}

/** The whole body, counted as it comes. */
export const bodyOfRequest =
  (request: Request): ReadBody =>
  async (most) => {
    if (request.bodyUsed) throw new RequestError(503, "This server cannot check proofs.");
    const reader = (request.body as ReadableStream<Bytes> | null)?.getReader();
    const pieces = new Pieces(most);
    try {
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true };
        if (done || !value) return pieces.joined();
        pieces.add(value);
      }
    } catch (error) {
      void reader?.cancel().catch(() => undefined);
      throw error instanceof RequestError ? error : new RequestError(400, "The body did not come.");
    }
  };
