// What the bytes of a text are: for showing, so that it goes as far as they can be read.
//
// Whether a text is a token the library alone says. This only walks along the same fields, and puts
// all that it does not understand into a last part.
import { b64decode } from "../../../ports/typescript/src/format/bytes.js";
import type { Bytes } from "../../../ports/typescript/src/format/bytes.js";
import { splitSigned } from "../../../ports/typescript/src/language/links.js";
import { plain } from "../plain";

// "frame" is what tells where a field begins and ends.
export type PieceKind = "frame" | "said" | "seal" | "tag";

export interface Piece {
  readonly from: number;
  readonly to: number;
  readonly what: string;
  readonly kind: PieceKind;
}

export interface Part {
  // Unique in the whole text.
  readonly id: string;
  readonly title: string;
  // Of a link of the token: its number.
  readonly link: number | null;
  readonly pieces: readonly Piece[];
}

// A token, a discharge, or a proof.
export interface Section {
  readonly title: string;
  readonly prefix: string;
  readonly bytes: Bytes;
  readonly parts: readonly Part[];
  // Why there are no bytes.
  readonly trouble: string;
}

const NAMES: Record<string, string> = {
  cap1_: "token",
  cap1u_: "discharge",
  cap1d_: "discharge, bound to the token",
  cap1p_: "proof",
};
const [END, FIELD, VID, SIGNATURE] = [0, 2, 4, 6];
const TOKEN_SIZE = 32_768; // what is longer is none, and is not taken apart

export function sectionsOf(text: string): Section[] {
  if (text === "" || text.length > TOKEN_SIZE) return [];
  const spelled = text.split(".").slice(0, 18);
  return spelled.map((one, place) => sectionOf(one, place, spelled.length > 2));
}

function sectionOf(spelled: string, place: number, isNumbered: boolean): Section {
  const prefix = /^cap1[udp]?_/.exec(spelled)?.[0] ?? "";
  const body = spelled.slice(prefix.length);
  const name = NAMES[prefix] ?? "something else";
  const title = isNumbered && place > 0 && prefix !== "cap1p_" ? `${name}, ${place}` : name;
  const bytes = prefix ? b64decode(body) : undefined;
  if (!bytes) {
    const trouble = prefix ? whyNot(body) : "It begins as no token, discharge or proof does.";
    return { title, prefix, bytes: new Uint8Array(), parts: [], trouble };
  }
  const walk = new Walk(bytes, `${place}`);
  const parts = prefix === "cap1p_" ? walk.proof() : walk.packet(prefix === "cap1_");
  return { title, prefix, bytes, parts, trouble: "" };
}

// Why text spells no bytes.
function whyNot(body: string): string {
  const at = body.search(/[^A-Za-z0-9_-]/u);
  if (at < 0) return "It is no base64url, or not in its one spelling: its end was cut off, or something was added.";
  const found = plain(String.fromCodePoint(body.codePointAt(at) ?? 0));
  return `Character ${at + 1} is "${found}", which base64url does not have.`;
}

class Walk {
  private at = 0;
  private readonly parts: Part[] = [];
  private pieces: Piece[] = [];

  constructor(
    private readonly bytes: Bytes,
    private readonly id: string,
  ) {}

  packet(isToken: boolean): Part[] {
    if (this.byte(FIELD, "version 2 of macaroons")) this.part("version");
    const isWhole = this.header(isToken) && this.links(isToken) && this.signature();
    return this.rest(isWhole);
  }

  proof(): Part[] {
    this.piece(8, "when it was made", "said");
    this.piece(16, "its number, used once", "said");
    this.piece(64, "the holder's signature", "tag");
    this.part("proof");
    return this.rest(true);
  }

  private header(isToken: boolean): boolean {
    const what = isToken ? "root record" : "ticket that it answers";
    return (
      this.field(FIELD, (length) => this.piece(length, what, "said")) &&
      this.byte(END, "end of the header") &&
      this.part(what)
    );
  }

  private links(isToken: boolean): boolean {
    for (let link = 0; this.bytes[this.at] === FIELD; link++) {
      const isRead =
        this.field(FIELD, (length) => this.caveat(length)) &&
        (this.bytes[this.at] !== VID || this.field(VID, (length) => this.sealed(length))) &&
        this.byte(END, "end of the link");
      if (!isRead) return false;
      this.part(`link ${link}`, isToken ? link : null);
    }
    return this.byte(END, "end of the links");
  }

  private signature(): boolean {
    const isRead = this.field(SIGNATURE, (length) => this.piece(length, "tag of the chain", "tag"));
    return isRead && this.part("signature");
  }

  // What a link says, and the signature of the holder before behind it. Or what a third party gets.
  private caveat(length: number): void {
    const end = this.at + length;
    const signed = splitSigned(this.bytes.slice(this.at, end));
    if (!signed?.signature) {
      const isAsked = this.bytes[end] === VID;
      this.piece(length, isAsked ? "ticket for the third party" : "what the link says", "said");
      return;
    }
    this.piece(signed.body.length, "what the link says", "said");
    this.piece(1, "a full stop", "frame");
    this.piece(length - signed.body.length - 1, "signature of the key before", "tag");
  }

  // The key of the answer, for the verifier.
  private sealed(length: number): void {
    this.piece(24, "nonce of the box", "seal");
    this.piece(length - 24, "box with the key of the answer", "seal");
  }

  private byte(wanted: number, what: string): boolean {
    if (this.bytes[this.at] !== wanted) return false;
    this.piece(1, what, "frame");
    return true;
  }

  // A type, a length, and so many bytes. False where they are not there.
  private field(type: number, inside: (length: number) => void): boolean {
    if (this.bytes[this.at] !== type) return false;
    let [length, used] = [0, 1];
    for (; used <= 3; used++) {
      const byte = this.bytes[this.at + used];
      if (byte === undefined) return false;
      length += (byte & 127) * 2 ** (7 * (used - 1));
      if (byte < 128) break;
    }
    if (used > 3 || length < 1 || this.at + used + 1 + length > this.bytes.length) return false;
    this.piece(1, `type of the field: ${type}`, "frame");
    this.piece(used, `its length: ${length} ${length === 1 ? "byte" : "bytes"}`, "frame");
    const end = this.at + length;
    inside(length);
    this.at = end;
    return true;
  }

  // What goes beyond the end is cut, so that the pieces cover the bytes and nothing else.
  private piece(length: number, what: string, kind: PieceKind): void {
    const to = Math.min(this.at + Math.max(length, 0), this.bytes.length);
    if (to > this.at) this.pieces.push({ from: this.at, to, what, kind });
    this.at = to;
  }

  private part(title: string, link: number | null = null): true {
    const id = `${this.id}-${this.parts.length}`;
    if (this.pieces.length) this.parts.push({ id, title, link, pieces: this.pieces });
    this.pieces = [];
    return true;
  }

  private rest(isWhole: boolean): Part[] {
    const what = isWhole ? "too much: it should end before" : "not read: no field as it must be";
    this.piece(this.bytes.length - this.at, what, "tag");
    this.part(isWhole ? "behind the end" : "not read");
    return this.parts;
  }
}
