/** One task at several servers, none of which can mint for another (spec, "Sets of tokens"). */

import { byCodePoint, equal, utf8 } from "../format/bytes.js";
import { TokenFormatError, UsageError, WideningError } from "../format/errors.js";
import { defined, settings } from "../format/given.js";
import { lock } from "../format/handed.js";
import { PREFIX, SET_PREFIX } from "../format/text.js";
import type { Capability } from "../language/capability.js";
import { domainOf } from "../language/caveats.js";
import type { Caveats, Names } from "./compose.js";
import { meansBehind, packetsOf } from "./held.js";
import { readClock, type Means } from "./means.js";
import { Token, type Delegating, type Narrowing, type Presenting } from "./token.js";

const MAX_SERVERS = 32;
const LONGEST = 262_144;
const BETWEEN = "~";
const COUNTED = ["uses", "budget", "marks", "forbid"];

/** Where keywords go. Left out, what speaks of tables goes to the servers that hold tables. */
export interface Placing {
  /** The servers at which the keywords hold. */
  readonly servers?: string | Names;
  /** Keywords for each server by itself. */
  readonly only?: Readonly<Record<string, Caveats>>;
}

type Wanted = ReadonlyMap<string, Record<string, unknown>>;

/** The tokens of one task, one for each of several servers. Never send it to a server. */
export class TokenSet {
  readonly #tokens: ReadonlyMap<string, Token>;

  private constructor(tokens: ReadonlyMap<string, Token>) {
    this.#tokens = tokens;
    lock(this);
  }

  /** The set of tokens that are minted for one server each. Raises UsageError for what is none. */
  static of(...tokens: Token[]): TokenSet {
    const named = tokens.map((token): [string, Token] => {
      const server = token instanceof Token ? token.unverified.root.audience : undefined;
      if (server === undefined) throw new UsageError("a set is of tokens for one server each");
      return [server, token];
    });
    const made = new Map(named.sort(([one], [two]) => byCodePoint(one, two)));
    if (made.size < named.length) throw new UsageError("two tokens of the set are for one server");
    if (made.size < 1 || made.size > MAX_SERVERS) {
      throw new UsageError(`a set needs 1 to ${MAX_SERVERS} tokens, not ${made.size}`);
    }
    if (new Set(tokens.map(whoOf)).size > 1) {
      throw new UsageError("the tokens of a set must have one subject, agent, task, holder and key");
    }
    return new TokenSet(made);
  }

  /** The set that `text` spells: the form of its tokens. Raises TokenFormatError alone. */
  static parse(text: string, means: Partial<Means> = {}): TokenSet {
    const isSet = typeof text === "string" && text.startsWith(SET_PREFIX);
    if (!isSet || text.length > LONGEST) throw new TokenFormatError("no text of a set");
    const parts = text.slice(SET_PREFIX.length).split(BETWEEN);
    if (parts.length > MAX_SERVERS) throw new TokenFormatError(`more than ${MAX_SERVERS} tokens`);
    const tokens = parts.map((part) => Token.parse(PREFIX + part, means));
    try {
      const found = TokenSet.of(...tokens);
      if (found.serialize() === text) return found;
    } catch (error) {
      throw new TokenFormatError((error as UsageError).message);
    }
    throw new TokenFormatError("the tokens of a set must be in the order of their servers");
  }

  /** The text, for a sub-agent that is meant to hold the set. As secret as all its tokens. */
  serialize(): string {
    const texts = [...this.#tokens.values()].map((each) => each.serialize().slice(PREFIX.length));
    return SET_PREFIX + texts.join(BETWEEN);
  }

  /** The servers that it has a token for, in order. */
  get servers(): readonly string[] {
    return [...this.#tokens.keys()];
  }

  /** When the first of its tokens ends, by its own account. */
  get expiresAt(): number | undefined {
    const ends = [...this.#tokens.values()].map(({ unverified }) => unverified.expiresAt);
    return ends.filter((end) => end !== undefined).sort((one, two) => one - two)[0];
  }

  /** The token of that server. Raises UsageError where there is none. */
  token(audience: string): Token {
    const found = this.#tokens.get(audience);
    if (found) return found;
    throw new UsageError(
      `the set has no token for ${JSON.stringify(audience)}: it is for ${this.servers.join(", ")}`,
    );
  }

  /** What that server's token can do, by its own account. */
  capability(audience: string): Capability {
    return this.token(audience).unverified.capability;
  }

  /** The set with the tokens of these servers alone, to hand on fewer. */
  only(...servers: string[]): TokenSet {
    return TokenSet.of(...servers.map((server) => this.token(server)));
  }

  /**
   * A new set that allows less. Raises what `Token.attenuate` raises, with the server in front, and
   * UsageError for `uses` and `budget` at more than one server: each would count by itself.
   */
  attenuate(asking: Narrowing & Placing): TokenSet {
    const { key, signer, keep, clamp, only, servers, ...caveats } = settings(asking);
    const wanted = this.#wanted(caveats, only, servers);
    const asked = [...wanted.values()];
    if (key === undefined && asked.every(isNothing)) {
      throw new UsageError("a link must restrict something");
    }
    return this.#each((server, token) => {
      const its = wanted.get(server)!;
      if (key === undefined && isNothing(its)) return token;
      const terms = { ...its, key, signer, clamp, keep: keptAt(its, wanted, keep) };
      return token.attenuate(defined(terms) as Narrowing);
    });
  }

  /** A new set for the agent `to`. Every token gets the link, all with one `n` and by one time. */
  delegate(asking: Delegating & Placing): TokenSet {
    const { to, key, signer, keep, clamp, only, servers, ...caveats } = settings(asking);
    const wanted = this.#wanted(caveats, only, servers);
    const means = meansBehind(this.#tokens.values().next().value!);
    const [now, nonce] = [readClock(means.clock), means.random(8)];
    return this.#each((server, token) => {
      const its = wanted.get(server)!;
      const own = meansBehind(token);
      const once = withMeans(token, { ...own, clock: () => now, random: () => nonce });
      const terms = { ...its, to, key, signer, clamp, keep: keptAt(its, wanted, keep) };
      return withMeans(once.delegate(defined(terms) as Delegating), own);
    });
  }

  /** The text for one server, as of its token: nothing of the others is in it. */
  present(asked: Presenting & { readonly audience: string }): string {
    const asking = settings(asked);
    return this.token(asking.audience).present(asking);
  }

  #each(change: (server: string, token: Token) => Token): TokenSet {
    const made = [...this.#tokens].map(([server, token]): [string, Token] => {
      try {
        return [server, change(server, token)];
      } catch (error) {
        const said = error as Error;
        said.message = `at ${server}: ${said.message}`;
        if (error instanceof WideningError) said.message += "; servers or only says where it goes";
        throw error;
      }
    });
    return new TokenSet(new Map(made));
  }

  /** By server, the keywords that go there. */
  #wanted(caveats: Caveats, only: Placing["only"] = {}, servers: Placing["servers"]): Wanted {
    const given = statedIn(caveats);
    const words = given.map(([word]) => word);
    if (words.includes("audience")) throw new UsageError("each is for one server: use only()");
    const chosen = typeof servers === "string" ? [servers] : servers && [...servers];
    for (const server of [...Object.keys(only), ...(chosen ?? [])]) this.token(server);
    const counted = words.filter((word) => COUNTED.includes(word));
    if (counted.length && (chosen ?? this.servers).length > 1) {
      throw new UsageError(`${counted.join()} would count at each server by itself: name one`);
    }
    const goesTo = (server: string, word: string): boolean =>
      chosen ? chosen.includes(server) : this.#holds(server, word);
    const lost = words.find((word) => !this.servers.some((server) => goesTo(server, word)));
    if (lost !== undefined) {
      throw new UsageError(`${lost}: no server of ${this.servers.join(", ")} holds any`);
    }
    return new Map(
      this.servers.map((server) => {
        const common = given.filter(([word]) => goesTo(server, word));
        const its = Object.hasOwn(only, server) ? statedIn(only[server]!) : [];
        const twice = common.find(([word]) => its.some(([other]) => other === word));
        if (twice) throw new UsageError(`${twice[0]} is given twice for ${server}`);
        return [server, Object.fromEntries([...common, ...its])];
      }),
    );
  }

  /** Does the token of that server permit anything in the domain that the keyword speaks of? */
  #holds(server: string, word: string): boolean {
    const domain = domainOfWord(word);
    return domain === undefined || this.capability(server)[domain]?.size !== 0;
  }

  /** Are the texts the same? In a time that does not tell how much of them is. */
  equals(other: TokenSet): boolean {
    return equal(utf8(this.serialize()), utf8(other.serialize()));
  }

  toString(): string {
    const { holder } = this.#tokens.values().next().value!.unverified;
    return `<TokenSet for ${this.servers.join(", ")}, held by ${holder}, unverified>`;
  }
}

const statedIn = (caveats: Caveats): [string, unknown][] => Object.entries(settings(caveats));

const isNothing = (its: object): boolean => Object.keys(its).length === 0;

/** Of a built-in caveat; own ones go to every server. */
const domainOfWord = (word: string): "data" | "tool" | undefined =>
  word.includes(":") ? undefined : domainOf(word, {});

/** A domain is kept open where another one is named. */
function keptAt(its: object, wanted: Wanted, keep: Narrowing["keep"] | undefined): typeof keep {
  const names = (each: object): boolean => Object.keys(each).some(domainOfWord);
  return names(its) || ![...wanted.values()].some(names) ? keep : undefined;
}

function withMeans(token: Token, means: Means): Token {
  const { packet, discharges } = packetsOf(token);
  return new Token(packet, token.unverified.root, means, discharges);
}

function whoOf({ unverified }: Token): string {
  const { root, task, holder, key } = unverified;
  return JSON.stringify([root.subject, root.agent, task, holder, key]);
}
