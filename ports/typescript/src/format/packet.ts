/** The binary form: a macaroon of version 2, in one spelling (spec, "Wire"). */

import { concat, type Bytes } from "./bytes.js";
import type { RawCaveat } from "./crypto.js";
import { TokenFormatError } from "./errors.js";

/** What the bounds of readers are, where they differ between a token and a discharge. */
export interface Shape {
  readonly identifier: number;
  readonly thirdParties: boolean;
}

export const TOKEN: Shape = { identifier: 1024, thirdParties: true };
export const DISCHARGE: Shape = { identifier: 2048, thirdParties: false };

export const MAX_FIELD = 32767;
export const MAX_LINKS = 64;
const VID = 72;
const SIGNATURE = 32;
const [END, IDENTIFIER, VID_TYPE, SIGNATURE_TYPE] = [0, 2, 4, 6];

export interface Packet {
  readonly identifier: Bytes;
  readonly caveats: readonly RawCaveat[];
  /** The last tag of the chain: a secret. */
  readonly signature: Bytes;
}

const malformed = (what: string): TokenFormatError => new TokenFormatError(what);

class Cursor {
  private at = 0;

  constructor(private readonly bytes: Bytes) {}

  byte(): number {
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw malformed("it ends too soon");
    return byte;
  }

  expect(byte: number, what: string): void {
    if (this.byte() !== byte) throw malformed(`no ${what} where it must stand`);
  }

  peek(byte: number): boolean {
    return this.bytes[this.at] === byte;
  }

  /** A length in as few bytes as it needs (10.1), and the bytes that it counts. */
  field(type: number, most: number): Bytes {
    this.expect(type, `field ${type}`);
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      length += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        if (byte === 0 && shift > 0) throw malformed("a length in more bytes than it needs");
        break;
      }
      if (shift >= 14) throw malformed("a field that is too long");
    }
    if (length < 1 || length > most) throw malformed(`a field of ${length} bytes`);
    if (this.at + length > this.bytes.length) throw malformed("it ends too soon");
    this.at += length;
    return this.bytes.slice(this.at - length, this.at);
  }

  end(): void {
    if (this.at !== this.bytes.length) throw malformed("something stands behind its end");
  }
}

export function parsePacket(bytes: Bytes, shape: Shape): Packet {
  const cursor = new Cursor(bytes);
  cursor.expect(IDENTIFIER, "version 2");
  const identifier = cursor.field(IDENTIFIER, shape.identifier);
  cursor.expect(END, "end of the header");
  const caveats: RawCaveat[] = [];
  while (!cursor.peek(END)) {
    if (caveats.length === MAX_LINKS) throw malformed(`more than ${MAX_LINKS} links`);
    const cid = cursor.field(IDENTIFIER, MAX_FIELD);
    let vid: Bytes | undefined;
    if (shape.thirdParties && cursor.peek(VID_TYPE)) {
      vid = cursor.field(VID_TYPE, VID);
      if (vid.length !== VID) throw malformed("a vid of another length");
    }
    cursor.expect(END, "end of a link");
    caveats.push({ cid, vid });
  }
  cursor.expect(END, "end of the links");
  if (caveats.length === 0) throw malformed("no link");
  const signature = cursor.field(SIGNATURE_TYPE, SIGNATURE);
  if (signature.length !== SIGNATURE) throw malformed("a signature of another length");
  cursor.end();
  return { identifier, caveats, signature };
}

function field(type: number, bytes: Bytes): Bytes {
  const header = [type];
  let left = bytes.length;
  for (; left >= 128; left >>= 7) header.push((left & 127) | 128);
  return concat(Uint8Array.from([...header, left]), bytes);
}

export function packetBytes({ identifier, caveats, signature }: Packet): Bytes {
  const end = Uint8Array.of(END);
  const links = caveats.flatMap(({ cid, vid }) => [
    field(IDENTIFIER, cid),
    ...(vid ? [field(VID_TYPE, vid)] : []),
    end,
  ]);
  const version = Uint8Array.of(IDENTIFIER);
  return concat(
    version,
    field(IDENTIFIER, identifier),
    end,
    ...links,
    end,
    field(SIGNATURE_TYPE, signature),
  );
}
