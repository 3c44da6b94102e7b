/**
 * Keys that sign in their own time: of WebCrypto, which nobody can export, or of a KMS.
 *
 *     const key = await generateKey();
 *     const text = await present(token, { audience: "files", signer: key, request: { tool: "read" } });
 *
 * Each function does what the method of a token does, by a signer that promises.
 */

import { b64encode, equal, type Bytes } from "./format/bytes.js";
import { verify } from "./format/crypto.js";
import { DelegationError, UsageError } from "./format/errors.js";
import { heldIn, meansBehind, packetsOf } from "./writing/held.js";
import { HolderKey } from "./keys.js";
import { signerKey, type Signer } from "./proof.js";
import { readClock, type Means } from "./writing/means.js";
import { withProof as proveNow, type Proving } from "./writing/proving.js";
import { Token, type Delegating, type Narrowing, type Presenting } from "./writing/token.js";

/** Whoever signs for an Ed25519 key, now or later. */
export interface AsyncSigner {
  /** The public key, 43 characters. */
  readonly public: string;
  sign(message: Bytes): Bytes | PromiseLike<Bytes>;
}

type Later<T> = Omit<T, "signer"> & { readonly signer: AsyncSigner };

/** As `token.present`: the text ends in a proof. */
export const present = (token: Token, asking: Later<Presenting>): Promise<string> =>
  signed(asking.signer, meansBehind(token), (signer, means) =>
    made(token, means).present({ ...asking, signer } as Presenting),
  );

/** As `token.delegate`, of a token that is bound to the signer's key. */
export const delegate = (token: Token, delegating: Later<Delegating>): Promise<Token> =>
  narrowed(token, delegating.signer, (held, signer) =>
    held.delegate({ ...delegating, signer } as Delegating),
  );

/** As `token.attenuate`, to another key. */
export const attenuate = (token: Token, narrowing: Later<Narrowing>): Promise<Token> =>
  narrowed(token, narrowing.signer, (held, signer) =>
    held.attenuate({ ...narrowing, signer } as Narrowing),
  );

/** As `withProof`: a proof behind a text that was presented without one. */
export const withProof = (text: string, signer: AsyncSigner, proving: Proving): Promise<string> =>
  signed(signer, undefined, (now, means) => proveNow(text, now, proving, means));

async function narrowed(
  token: Token,
  signer: AsyncSigner,
  narrow: (token: Token, signer: Signer) => Token,
): Promise<Token> {
  const means = meansBehind(token);
  const child = await signed(signer, means, (now, fixed) => narrow(made(token, fixed), now));
  return made(child, means);
}

/** The same token, which makes its links with these means. */
function made(token: Token, means: Partial<Means>): Token {
  const { packet, discharges } = packetsOf(token);
  const { root } = heldIn(token.serialize());
  return new Token(packet, root, means as Means, discharges);
}

/** What is asked to be signed is known. */
class Asked {
  constructor(readonly message: Bytes) {}
}

/**
 * Runs twice, at one time and with the same randomness: first up to what is to be signed, then with
 * the signature. It is checked here, so that a key that is not the signer's is an error, and no denial.
 */
async function signed<T>(
  signer: AsyncSigner,
  means: Means | undefined,
  run: (signer: Signer, means: Partial<Means>) => T,
): Promise<T> {
  const key = signerKey(signer as Signer);
  const { clock, random } = means ?? DEFAULT;
  const now = readClock(clock);
  const drawn: Bytes[] = [];
  const fixed = (draw: Means["random"]): Partial<Means> => ({ ...means, clock: () => now, random: draw });
  const sign = signer.sign.bind(signer);
  const first = (length: number): Bytes => {
    const bytes = random(length);
    drawn.push(bytes.slice());
    return bytes;
  };
  const message = messageOf(() =>
    run({ public: signer.public, sign: ask }, fixed(first)),
  );
  const signature = await sign(message.slice());
  const isIts =
    signature instanceof Uint8Array && signature.length === 64 && verify(key, message, signature);
  if (!isIts) throw new DelegationError("the signer did not sign with its key", "bad_proof");
  const again = (wanted: Bytes): Bytes => {
    if (equal(wanted, message)) return signature;
    throw new UsageError("what was asked for has changed while it was signed");
  };
  let at = 0;
  return run(
    { public: signer.public, sign: again },
    fixed((length) => drawn[at++] ?? random(length)),
  );
}

const ask = (message: Bytes): never => {
  throw new Asked(message.slice());
};

function messageOf(run: () => unknown): Bytes {
  try {
    run();
  } catch (error) {
    if (error instanceof Asked) return error.message;
    throw error;
  }
  throw new UsageError("there is nothing to sign: the token is bound to no key");
}

const DEFAULT: Pick<Means, "clock" | "random"> = {
  clock: () => Date.now() / 1000,
  random: (length) => crypto.getRandomValues(new Uint8Array(length)),
};

// --- keys ----------------------------------------------------------------------------------------

/** What of a `CryptoKeyPair` is used here. */
export interface KeyPair {
  readonly publicKey: object;
  readonly privateKey: object;
}

/** A key of the engine. Nobody can export what was made here: not this library either. */
export class WebKey implements AsyncSigner {
  readonly public: string;
  readonly #private: object;

  private constructor(publicKey: string, privateKey: object) {
    this.public = publicKey;
    this.#private = privateKey;
    Object.freeze(this);
  }

  /** Of a pair for Ed25519, as IndexedDB keeps one. Raises UsageError for another. */
  static async of({ publicKey, privateKey }: KeyPair): Promise<WebKey> {
    try {
      const raw = await crypto.subtle.exportKey("raw", publicKey as CryptoKey);
      const made = new WebKey(b64encode(new Uint8Array(raw)), privateKey);
      signerKey({ public: made.public } as Signer);
      return made;
    } catch {
      throw new UsageError("a pair of keys for Ed25519 is needed, to sign and to verify");
    }
  }

  async sign(message: Bytes): Promise<Bytes> {
    const signature = await crypto.subtle.sign(
      "Ed25519",
      this.#private as CryptoKey,
      message as BufferSource,
    );
    return new Uint8Array(signature);
  }

  toString(): string {
    return `<key of the engine ${this.public}>`;
  }
}

/**
 * A fresh key: of the engine where it has Ed25519, which nobody can export; else one of this library,
 * a `HolderKey`, whose secret is in memory.
 */
export async function generateKey(): Promise<WebKey | HolderKey> {
  let pair: KeyPair;
  try {
    pair = (await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as KeyPair;
  } catch {
    return HolderKey.generate(); // the engine has no such keys
  }
  return WebKey.of(pair);
}
