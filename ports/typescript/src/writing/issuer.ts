/** Minting: the root record and link 0 (spec, "Minting"). */

import { b64encode, type Bytes } from "../format/bytes.js";
import { H, extend } from "../format/crypto.js";
import { UsageError } from "../format/errors.js";
import { settings } from "../format/given.js";
import { canonicalBytes, entriesOf, isObject, type Json } from "../format/json.js";
import { checkLimits } from "../format/text.js";
import { rootBytes, type Root } from "../format/root.js";
import { keyringOf, type KeyringSource } from "../keyring.js";
import { EVERYTHING } from "../language/capability.js";
import { domainOf } from "../language/caveats.js";
import { startOf } from "../language/lineage.js";
import { compose, type Caveats, type Moment } from "./compose.js";
import { meansOf, readClock, type Means } from "./means.js";
import { Token } from "./token.js";

const DEFAULT_LIFE = 900;
const OF_TABLES = ["tables", "operations", "allow", "columns", "rows"];

export type Minting = Omit<Caveats, "task" | "expiresAt"> & {
  readonly subject: string;
  readonly agent: string;
  readonly task: string;
  /** `null` says aloud that it never expires; left out, it lives for 15 minutes. */
  readonly expiresAt?: Moment | null;
  /** The Ed25519 key of the agent, to bind the token to. */
  readonly key?: string | Bytes;
  /** Facts of the embedding project, under namespaced names. */
  readonly ext?: Readonly<Record<string, string | number>>;
  /** Says aloud that it names no domain. */
  readonly unrestricted?: boolean;
};

/** Mints tokens under the keyring's current key. */
export class Issuer {
  readonly #source: KeyringSource;
  readonly #means: Means;

  constructor(keyring: KeyringSource, means: Partial<Means> = {}) {
    if (typeof keyring !== "function") keyringOf(keyring);
    this.#source = keyring;
    this.#means = meansOf(means);
  }

  /** A root token: `subject` started `task`, in which `agent` may do what the caveats leave. */
  mint(minting: Minting): Token {
    const given = settings(minting);
    const { subject, agent, task, expiresAt, key, ext, unrestricted = false, ...rest } = given;
    const caveats = { ...rest, ...endOf(expiresAt, rest.expiresIn) } as Caveats;
    this.#checkDomains(caveats, unrestricted);
    const keyring = keyringOf(this.#source);
    const now = readClock(this.#means.clock);
    const root: Root = {
      subject,
      agent,
      task,
      keyId: keyring.current,
      issuedAt: now,
      audience: keyring.audience,
      tokenId: b64encode(this.#means.random(16)),
      ext: new Map(ext === undefined ? [] : (entriesOf(ext, "ext") as [string, string | number][])),
    };
    const identifier = rootBytes(root);
    const holding = { links: [], capability: EVERYTHING, lineage: startOf(agent) };
    // The clock is looked at once: what expires in a minute does so a minute after `iat`.
    const means = { ...this.#means, clock: () => now };
    const stated = compose({ caveats, writing: {}, key }, means, holding);
    checkAudience(keyring.audience, stated.get("aud"));
    if (stated.has("consent") && keyring.audience === undefined && !stated.has("aud")) {
      throw new UsageError("a consent is for one server: say the audience");
    }
    const link = { cid: canonicalBytes(stated.size ? stated : stated.set("nbf", now)) };
    checkLimits({ identifier, caveats: [link], signature: new Uint8Array(32) });
    const derived = keyring.lookUp(keyring.current, keyring.audience)!;
    const signature = extend(H(derived, identifier), link);
    return new Token({ identifier, caveats: [link], signature }, root, this.#means);
  }

  /** A mint names what it permits, or says aloud that it names nothing (22.4). */
  #checkDomains(caveats: Caveats, unrestricted: boolean): void {
    const given = Object.keys(caveats);
    const ofTables = given.filter((keyword) => OF_TABLES.includes(keyword));
    const ofTools = given.includes("tools");
    const { vocabulary } = this.#means;
    const spoken = given
      .filter((key) => Object.hasOwn(vocabulary, key))
      .map((key) => domainOf(key, vocabulary));
    if (typeof unrestricted !== "boolean") throw new UsageError("unrestricted is a boolean");
    if (unrestricted) {
      if (ofTables.length || ofTools) throw new UsageError("unrestricted, and yet restricted");
      return;
    }
    if (ofTables.length === 0 && !ofTools) {
      throw new UsageError("name tables with operations, allow, or tools");
    }
    if ((spoken.includes("data") && !ofTables.length) || (spoken.includes("tool") && !ofTools)) {
      throw new UsageError("name the domain that your own caveat speaks of");
    }
    const isPair =
      given.includes("allow") || (given.includes("tables") && given.includes("operations"));
    if (ofTables.length && !isPair) throw new UsageError("name tables with operations, or allow");
  }
}

function endOf(expiresAt: Moment | null | undefined, expiresIn: unknown): Caveats {
  if (expiresAt === null && expiresIn === undefined) return {};
  if (expiresAt !== undefined && expiresIn !== undefined) {
    throw new UsageError("expiresIn and expiresAt: give one");
  }
  if (typeof expiresAt === "number" || expiresAt instanceof Date) return { expiresAt };
  if (expiresAt !== undefined) throw new UsageError("expiresAt is a moment, or null");
  return expiresIn === undefined ? { expiresIn: DEFAULT_LIFE } : {};
}

function checkAudience(audience: string | undefined, stated: Json | undefined): void {
  if (audience === undefined || stated === undefined || isObject(stated)) return;
  if (!(stated as string[]).includes(audience)) {
    throw new UsageError(`this keyring mints for ${audience} alone`);
  }
}
