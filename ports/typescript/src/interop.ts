/** What other macaroon libraries write, and our one spelling of it (spec, "Interop"). */

import { b64decode, b64encode, concat, type Bytes } from "./format/bytes.js";
import { TokenFormatError } from "./format/errors.js";
import { PREFIX } from "./format/text.js";
import { Token } from "./writing/token.js";

const MAX_TEXT = 8192;
const [END, LOCATION, CID, VID, SIGNATURE] = [0, 1, 2, 4, 6];

/** The one spelling of a foreign token. Verifies nothing. Raises TokenFormatError. */
export function normalize(foreign: string | Bytes): string {
  const bytes = typeof foreign === "string" ? decoded(foreign) : foreign;
  if (!(bytes instanceof Uint8Array)) throw new TokenFormatError("a token is text or bytes");
  const text = PREFIX + b64encode(withoutLocations(bytes));
  return Token.parse(text).serialize();
}

/** Base64 of either alphabet but not both, padded or not, with any trailing bits (25.2). */
function decoded(given: string): Bytes {
  const spelled = given.startsWith(PREFIX) ? given.slice(PREFIX.length) : given;
  if (spelled.length > MAX_TEXT) throw new TokenFormatError(`longer than ${MAX_TEXT} characters`);
  if (!/^([A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}$/.test(spelled)) {
    throw new TokenFormatError("not base64 in one alphabet");
  }
  const bare = spelled.replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");
  // An A in front of nothing: bits that no byte uses are dropped by reading one group more.
  const bytes = b64decode(bare) ?? b64decode(`${bare}${"A".repeat((4 - (bare.length % 4)) % 4)}`);
  if (!bytes || bare.length % 4 === 1) throw new TokenFormatError("not base64");
  return bytes.slice(0, Math.floor((bare.length * 3) / 4));
}

/** Without empty location fields in the header and in third-party caveats (25.3). */
function withoutLocations(bytes: Bytes): Bytes {
  const fields = fieldsOf(bytes);
  const kept = fields.filter(({ type, length, behind }, at) => {
    if (type !== LOCATION || length !== 0) return true;
    const before = at === 0 || fields[at - 1]!.type === END;
    const isHeader = at === 0;
    const isThirdParty = before && behind[0] === CID && behind[1] === VID;
    return !(isHeader || isThirdParty);
  });
  return concat(bytes.slice(0, 1), ...kept.map(({ raw }) => raw));
}

interface Field {
  readonly type: number;
  readonly length: number;
  readonly raw: Bytes;
  /** The types of what follows. */
  readonly behind: number[];
}

/** The fields as they stand, up to where they can be told; the rest is one piece. */
function fieldsOf(bytes: Bytes): Field[] {
  const fields: Field[] = [];
  let at = 1;
  while (at < bytes.length) {
    const start = at;
    const type = bytes[at++]!;
    let length = 0;
    if (type !== END) {
      const header = lengthAt(bytes, at);
      if (!header || type > SIGNATURE) return [...fields, rest(bytes, start)].map(followed);
      length = header.length;
      at = header.at + length;
    }
    fields.push({ type, length, raw: bytes.slice(start, at), behind: [] });
  }
  return fields.map(followed);
}

const rest = (bytes: Bytes, start: number): Field => ({
  type: -1,
  length: 0,
  raw: bytes.slice(start),
  behind: [],
});

const followed = (field: Field, at: number, all: readonly Field[]): Field => ({
  ...field,
  behind: all.slice(at + 1, at + 3).map(({ type }) => type),
});

function lengthAt(bytes: Bytes, start: number): { length: number; at: number } | undefined {
  let length = 0;
  for (let at = start, shift = 0; at < bytes.length && shift < 21; at++, shift += 7) {
    length += (bytes[at]! & 127) * 2 ** shift;
    if (bytes[at]! < 128) return { length, at: at + 1 };
  }
  return undefined;
}
