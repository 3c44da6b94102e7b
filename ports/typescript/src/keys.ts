/** Keys: of issuers, holders, dischargers, operators, and those that two parties derive (spec 21, 27, 35). */

import { b64encode, b64exact, concat, hex, utf8, type Bytes } from "./format/bytes.js";
import {
  H, audienceKey, derive, exchangePublic, isExchangeKey, label, labelled, publicKey, randomBytes, shared, sign,
  signingPublic,
} from "./format/crypto.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { canonical, canonicalText, isObject, type Json } from "./format/json.js";
import { isName } from "./format/names.js";
import type { Signer } from "./proof.js";

const INSPECT = Symbol.for("nodejs.util.inspect.custom");

function checkSecret(given: unknown): Bytes {
  if (!(given instanceof Uint8Array) || given.length !== 32) throw new UsageError("a key is 32 bytes");
  if (given.every((byte) => byte === given[0])) throw new UsageError("a key whose bytes are all equal is a mistake");
  return Uint8Array.from(given);
}

const badFile = (what: string): CaptokenError => new CaptokenError(`no key file: ${what}`, "keyring");

/** The object of a file: canonical JSON, then one line feed or nothing (27.2). */
function readFile(content: string): Map<string, Json> {
  const stated = canonicalText(content.endsWith("\n") ? content.slice(0, -1) : content);
  if (stated?.get("v") !== 1) throw badFile("it is not canonical JSON of version 1");
  return stated;
}

function checkKeys(stated: Map<string, Json>, required: readonly string[], optional: readonly string[] = []): void {
  const known = [...stated.keys()].every((key) => required.includes(key) || optional.includes(key));
  if (!known || !required.every((key) => stated.has(key))) throw badFile("other keys");
}

function secretOf(spelled: Json | undefined): Bytes {
  const bytes = b64exact(spelled, 32);
  if (!bytes) throw badFile("a secret is 43 characters of base64url");
  try {
    return checkSecret(bytes);
  } catch {
    throw badFile("a secret whose bytes are all equal");
  }
}

// --- secrets, one purpose each ---------------------------------------------------------------------

type Purpose = "holder" | "discharger" | "pairwise" | "operator" | "audit";

let reveal: (key: SecretKey) => Bytes;

/** A secret key. Neither `console.log` nor `JSON.stringify` shows it; `serialize` does. */
abstract class SecretKey {
  readonly #secret: Bytes;
  abstract readonly purpose: Purpose;
  /** The public key, 43 characters. */
  readonly public: string;

  static {
    reveal = (key) => key.#secret;
  }

  protected constructor(secret: Bytes, publicOf: (secret: Bytes) => Bytes) {
    this.#secret = checkSecret(secret);
    this.public = b64encode(publicOf(this.#secret));
  }

  /** The content of a file that its owner alone may read: the secret itself. */
  serialize(): string {
    const { purpose } = this;
    const stated = new Map([["purpose", purpose], ["secret", b64encode(this.#secret)]] as [string, Json][]);
    return `${canonical(stated.set("v", 1))}\n`;
  }

  toString(): string {
    return `<${this.purpose} key ${this.public}>`;
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function parseSecret(content: string, purpose: Purpose): Bytes {
  const stated = readFile(content);
  checkKeys(stated, ["purpose", "secret", "v"]);
  if (stated.get("purpose") !== purpose) throw badFile(`a key of another purpose than ${purpose}`);
  return secretOf(stated.get("secret"));
}

abstract class SigningKey extends SecretKey implements Signer {
  protected constructor(secret: Bytes) {
    super(secret, signingPublic);
  }

  sign(message: Bytes): Bytes {
    return sign(reveal(this), message);
  }
}

/** The key that a token is bound to: it hands on, and proves each request. */
export class HolderKey extends SigningKey {
  readonly purpose = "holder";

  static generate(): HolderKey {
    return new HolderKey(randomBytes(32));
  }

  static fromBytes(secret: Bytes): HolderKey {
    return new HolderKey(secret);
  }

  /** From the content of a key file. Raises CaptokenError `keyring`. */
  static parse(content: string): HolderKey {
    return new HolderKey(parseSecret(content, "holder"));
  }
}

/** The key by which an operator signs snapshots of the overlay. */
export class OperatorKey extends SigningKey {
  readonly purpose = "operator";

  static generate(): OperatorKey {
    return new OperatorKey(randomBytes(32));
  }

  static fromBytes(secret: Bytes): OperatorKey {
    return new OperatorKey(secret);
  }

  static parse(content: string): OperatorKey {
    return new OperatorKey(parseSecret(content, "operator"));
  }
}

/** The key by which a server signs checkpoints of its trail. */
export class AuditKey extends SigningKey {
  readonly purpose = "audit";

  static generate(): AuditKey {
    return new AuditKey(randomBytes(32));
  }

  static fromBytes(secret: Bytes): AuditKey {
    return new AuditKey(secret);
  }

  static parse(content: string): AuditKey {
    return new AuditKey(parseSecret(content, "audit"));
  }
}

/** The key that the questions to a discharger are sealed for. */
export class DischargerKey extends SecretKey {
  readonly purpose = "discharger";

  private constructor(secret: Bytes) {
    super(secret, exchangePublic);
  }

  static generate(): DischargerKey {
    return new DischargerKey(randomBytes(32));
  }

  static fromBytes(secret: Bytes): DischargerKey {
    return new DischargerKey(secret);
  }

  static parse(content: string): DischargerKey {
    return new DischargerKey(parseSecret(content, "discharger"));
  }
}

/** What opens a box that is sealed for the key: for the discharger alone. */
export const secretOfDischarger = (key: DischargerKey): Bytes => reveal(key);

/** The key of an issuer or of a server that share no secret (spec, "Pairwise keys"). */
export class PairwiseKey extends SecretKey {
  readonly purpose = "pairwise";

  private constructor(secret: Bytes) {
    super(secret, exchangePublic);
  }

  static generate(): PairwiseKey {
    return new PairwiseKey(randomBytes(32));
  }

  static fromBytes(secret: Bytes): PairwiseKey {
    return new PairwiseKey(secret);
  }

  static parse(content: string): PairwiseKey {
    return new PairwiseKey(parseSecret(content, "pairwise"));
  }

  /** The keyring of the issuer that has this key, for one server. */
  issuing({ server, audience }: { server: string | Bytes; audience: string }): Keyring {
    const its = publicKey(server, isExchangeKey, "server");
    const own = exchangePublic(reveal(this));
    return pairwiseKeyring([this.#pair(own, its, its, audience)], audience);
  }

  /** The keyring of the server that has this key, for the issuers that it trusts. */
  serving({ issuers, audience }: { issuers: readonly (string | Bytes)[]; audience: string }): Keyring {
    if (!Array.isArray(issuers) || issuers.length === 0) throw new UsageError("issuers is a list, and not empty");
    const own = exchangePublic(reveal(this));
    const pairs = issuers.map((issuer) => {
      const its = publicKey(issuer, isExchangeKey, "issuer");
      return this.#pair(its, own, its, audience);
    });
    return pairwiseKeyring(pairs, audience);
  }

  /** The key id and the root key of a pair; the issuer comes first (35.3 to 35.5). */
  #pair(issuer: Bytes, server: Bytes, other: Bytes, audience: string): [string, Bytes] {
    if (!isName(audience)) throw new UsageError("an audience is a name");
    if (b64encode(other) === this.public) throw new UsageError("one key in both roles");
    const extracted = H(label("pairwise"), shared(reveal(this), other));
    const info = concat(issuer, server, utf8(audience), Uint8Array.of(1));
    const id = hex(labelled("pairwise key id", issuer, server)).slice(0, 24);
    return [`p-${id}`, H(extracted, info)];
  }
}

function pairwiseKeyring(pairs: readonly [string, Bytes][], audience: string): Keyring {
  const keys = new Map(pairs);
  if (keys.size < pairs.length) throw new UsageError("an issuer is listed twice");
  return Keyring.forOneAudience(keys, pairs[0]![0], audience);
}

// --- keyrings --------------------------------------------------------------------------------------

type KeyMap = ReadonlyMap<string, Bytes> | Readonly<Record<string, Bytes>>;

/** Root keys by key id. Immutable; whoever has one mints what it likes. */
export class Keyring {
  readonly #keys: ReadonlyMap<string, Bytes>;
  /** The key id that an issuer mints under. */
  readonly current: string;
  /** Whose keys they are: of one audience, and no others. */
  readonly audience: string | undefined;

  private constructor(keys: ReadonlyMap<string, Bytes>, current: string, audience: string | undefined) {
    if (![...keys.keys()].every(isName)) throw new UsageError("key ids are names");
    if (!keys.has(current)) throw new UsageError("the current key is not among the keys");
    if (audience !== undefined && !isName(audience)) throw new UsageError("an audience is a name");
    this.#keys = new Map([...keys].map(([id, key]) => [id, checkSecret(key)]));
    this.current = current;
    this.audience = audience;
  }

  /** One fresh root key, under a random key id. */
  static generate(): Keyring {
    const id = freshKeyId();
    return new Keyring(new Map([[id, randomBytes(32)]]), id, undefined);
  }

  static fromKeys(keys: KeyMap, current: string): Keyring {
    return new Keyring(keys instanceof Map ? keys : new Map(Object.entries(keys)), current, undefined);
  }

  /** Keys that are those of one audience already. */
  static forOneAudience(keys: KeyMap, current: string, audience: string): Keyring {
    return new Keyring(keys instanceof Map ? keys : new Map(Object.entries(keys)), current, audience);
  }

  /** From the content of a key file. Raises CaptokenError `keyring`. */
  static parse(content: string): Keyring {
    const stated = readFile(content);
    checkKeys(stated, ["current", "keys", "v"], ["aud"]);
    const [keys, current, audience] = [stated.get("keys"), stated.get("current"), stated.get("aud")];
    if (!isObject(keys) || typeof current !== "string") throw badFile("keys or current");
    const secrets = new Map([...keys].map(([id, spelled]) => [id, secretOf(spelled)]));
    if (audience !== undefined && !isName(audience)) throw badFile("aud");
    try {
      return new Keyring(secrets, current, audience);
    } catch {
      throw badFile("key ids, or a current one that is not there");
    }
  }

  /** The content of a file that its owner alone may read: the secrets themselves. */
  serialize(): string {
    const keys = new Map([...this.#keys].map(([id, key]): [string, Json] => [id, b64encode(key)]));
    const stated = new Map<string, Json>([["current", this.current], ["keys", keys], ["v", 1]]);
    if (this.audience !== undefined) stated.set("aud", this.audience);
    return `${canonical(stated)}\n`;
  }

  get keyIds(): readonly string[] {
    return [...this.#keys.keys()];
  }

  /** A new current key; older ones still verify. */
  rotate(): Keyring {
    if (this.audience !== undefined) throw new UsageError("a keyring of one audience does not rotate");
    const id = freshKeyId();
    return new Keyring(new Map([...this.#keys, [id, randomBytes(32)]]), id, undefined);
  }

  /** Without a key: tokens of it verify no more. */
  retire(keyId: string): Keyring {
    if (keyId === this.current || !this.#keys.has(keyId)) throw new UsageError("no key, or the current one");
    const left = [...this.#keys].filter(([id]) => id !== keyId);
    return new Keyring(new Map(left), this.current, this.audience);
  }

  /** The bytes of a key, said aloud. */
  reveal(keyId: string): Bytes {
    const key = this.#keys.get(keyId);
    if (!key) throw new UsageError("no such key");
    return Uint8Array.from(key);
  }

  /** The keys of one server: it can forge for itself and for nobody else (21.3, 21.4). */
  forAudience(audience: string): Keyring {
    if (this.audience !== undefined) throw new UsageError("a keyring of one audience derives no other");
    if (!isName(audience)) throw new UsageError("an audience is a name");
    const keys = [...this.#keys].map(([id, key]): [string, Bytes] => [id, audienceKey(key, audience)]);
    return new Keyring(new Map(keys), this.current, audience);
  }

  /** The macaroon key behind (key id, audience), or undefined (21.2 to 21.4). */
  lookUp(keyId: string, audience: string | undefined): Bytes | undefined {
    const key = this.#keys.get(keyId);
    if (!key) return undefined;
    if (this.audience !== undefined) return audience === this.audience ? derive(key) : undefined;
    return derive(audience === undefined ? key : audienceKey(key, audience));
  }

  toString(): string {
    return `<Keyring of ${this.keyIds.join(", ")}>`;
  }

  [INSPECT](): string {
    return this.toString();
  }
}

const freshKeyId = (): string => `k-${b64encode(randomBytes(9))}`;
