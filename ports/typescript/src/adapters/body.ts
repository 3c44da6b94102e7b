/** A body as it comes in, counted. */

import type { Bytes } from "../format/bytes.js";
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
