/** Root keys by key id (spec, "Keys"). */

import { b64encode, type Bytes } from "./format/bytes.js";
import { audienceKey, derive, randomBytes } from "./format/crypto.js";
import { UsageError } from "./format/errors.js";
import { checkAudience } from "./format/given.js";
import { lock } from "./format/handed.js";
import { canonical, isObject, type Json } from "./format/json.js";
import { isName } from "./format/names.js";
import { badFile, checkKeys, checkSecret, readFile, secretOf } from "./keyfile.js";

type KeyMap = ReadonlyMap<string, Bytes> | Readonly<Record<string, Bytes>>;

/** Root keys by key id. Immutable; whoever has one mints what it likes. */
export class Keyring {
  readonly #keys: ReadonlyMap<string, Bytes>;
  /** The key id that an issuer mints under. */
  readonly current: string;
  /** Whose keys they are: of one audience, and no others. */
  readonly audience: string | undefined;

  private constructor(
    keys: ReadonlyMap<string, Bytes>,
    current: string,
    audience: string | undefined,
  ) {
    if (![...keys.keys()].every(isName)) throw new UsageError("key ids are names");
    if (!keys.has(current)) throw new UsageError("the current key is not among the keys");
    if (audience !== undefined) checkAudience(audience);
    this.#keys = new Map([...keys].map(([id, key]) => [id, checkSecret(key)]));
    this.current = current;
    this.audience = audience;
    lock(this);
  }

  /** One fresh root key, under a random key id. */
  static generate(): Keyring {
    const id = freshKeyId();
    return new Keyring(new Map([[id, randomBytes(32)]]), id, undefined);
  }

  static fromKeys(keys: KeyMap, current: string): Keyring {
    return new Keyring(keysOf(keys), current, undefined);
  }

  /** Keys that are those of one audience already. */
  static forOneAudience(keys: KeyMap, current: string, audience: string): Keyring {
    return new Keyring(keysOf(keys), current, audience);
  }

  /** From the content of a key file. Raises CaptokenError `keyring`. */
  static parse(content: string): Keyring {
    const stated = readFile(content);
    checkKeys(stated, ["current", "keys", "v"], ["aud"]);
    const [keys, current, audience] = [
      stated.get("keys"),
      stated.get("current"),
      stated.get("aud"),
    ];
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
    const stated = new Map<string, Json>([
      ["current", this.current],
      ["keys", keys],
      ["v", 1],
    ]);
    if (this.audience !== undefined) stated.set("aud", this.audience);
    return `${canonical(stated)}\n`;
  }

  get keyIds(): readonly string[] {
    return [...this.#keys.keys()];
  }

  /** A new current key; older ones still verify. */
  rotate(): Keyring {
    if (this.audience !== undefined) {
      throw new UsageError("a keyring of one audience does not rotate");
    }
    const id = freshKeyId();
    return new Keyring(new Map([...this.#keys, [id, randomBytes(32)]]), id, undefined);
  }

  /** Without a key: tokens of it verify no more. */
  retire(keyId: string): Keyring {
    if (keyId === this.current || !this.#keys.has(keyId)) {
      throw new UsageError("no key, or the current one");
    }
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
    if (this.audience !== undefined) {
      throw new UsageError("a keyring of one audience derives no other");
    }
    checkAudience(audience);
    const keys = [...this.#keys].map(([id, key]): [string, Bytes] => [
      id,
      audienceKey(key, audience),
    ]);
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
}

const keysOf = (keys: KeyMap): ReadonlyMap<string, Bytes> =>
  keys instanceof Map ? keys : new Map(Object.entries(keys));

const freshKeyId = (): string => `k-${b64encode(randomBytes(9))}`;

/**
 * A keyring, or a function that gives the one of the moment: so rotation reaches a running server.
 */
export type KeyringSource = Keyring | (() => Keyring);

export function keyringOf(source: KeyringSource): Keyring {
  const keyring = typeof source === "function" ? source() : source;
  if (!(keyring instanceof Keyring)) {
    throw new UsageError("a Keyring, or a function that gives one");
  }
  return keyring;
}
