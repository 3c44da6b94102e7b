/**
 * Secret keys, one purpose each: of holders, dischargers, operators, servers, and pairs (spec 27,
 * 35).
 */

import { b64encode, concat, hex, utf8, type Bytes } from "./format/bytes.js";
import {
  H,
  exchangePublic,
  isExchangeKey,
  label,
  labelled,
  publicKey,
  randomBytes,
  shared,
  sign,
  signingPublic,
} from "./format/crypto.js";
import { UsageError } from "./format/errors.js";
import { lock } from "./format/handed.js";
import { canonical, type Json } from "./format/json.js";
import { badFile, checkKeys, checkSecret, readFile, secretOf } from "./keyfile.js";
import { Keyring } from "./keyring.js";
import { checkAudience } from "./format/given.js";
import type { Signer } from "./proof.js";

// --- secrets, one purpose each -------------------------------------------------------------------

type Purpose = "holder" | "discharger" | "pairwise" | "operator" | "audit";

let reveal: (key: SecretKey) => Bytes;

/** A secret key. Neither `console.log` nor `JSON.stringify` shows it; `serialize` does. */
abstract class SecretKey {
  readonly #secret: Bytes;
  abstract get purpose(): Purpose;
  /** The public key, 43 characters. */
  readonly public: string;

  static {
    reveal = (key) => key.#secret;
  }

  protected constructor(secret: Bytes, publicOf: (secret: Bytes) => Bytes) {
    this.#secret = checkSecret(secret);
    this.public = b64encode(publicOf(this.#secret));
    lock(this);
  }

  /** The content of a file that its owner alone may read: the secret itself. */
  serialize(): string {
    const { purpose } = this;
    const stated = new Map([
      ["purpose", purpose],
      ["secret", b64encode(this.#secret)],
    ] as [string, Json][]);
    return `${canonical(stated.set("v", 1))}\n`;
  }

  toString(): string {
    return `<${this.purpose} key ${this.public}>`;
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
  get purpose() {
    return "holder" as const;
  }

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
  get purpose() {
    return "operator" as const;
  }

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
  get purpose() {
    return "audit" as const;
  }

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
  get purpose() {
    return "discharger" as const;
  }

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
  get purpose() {
    return "pairwise" as const;
  }

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
  serving({
    issuers,
    audience,
  }: {
    issuers: readonly (string | Bytes)[];
    audience: string;
  }): Keyring {
    if (!Array.isArray(issuers) || issuers.length === 0) {
      throw new UsageError("issuers is a list, and not empty");
    }
    const own = exchangePublic(reveal(this));
    const pairs = issuers.map((issuer) => {
      const its = publicKey(issuer, isExchangeKey, "issuer");
      return this.#pair(its, own, its, audience);
    });
    return pairwiseKeyring(pairs, audience);
  }

  /** The key id and the root key of a pair; the issuer comes first (35.3 to 35.5). */
  #pair(issuer: Bytes, server: Bytes, other: Bytes, audience: string): [string, Bytes] {
    checkAudience(audience);
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
