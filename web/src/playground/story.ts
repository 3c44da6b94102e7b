// What is played with: a first token, its hand-overs, and one access. All of it is caveats in plain
// JSON, so an address can carry it; the token itself is minted in the page, by a key of this moment.
import { Keyring } from "../../../ports/typescript/src/keyring.js";
import type { Access } from "../../../ports/typescript/src/language/access.js";
import type { Refusal } from "../../../ports/typescript/src/verification/authenticate.js";
import { Verifier } from "../../../ports/typescript/src/verification/verifier.js";
import { Issuer } from "../../../ports/typescript/src/writing/issuer.js";
import type { Token } from "../../../ports/typescript/src/writing/token.js";
import { caveatsOf } from "../caveats";
import { tried, troubleOf } from "../tried";
import type { Tried } from "../tried";

// A link: the agent that it is written for, and its caveats as they were typed.
export interface Step {
  readonly to: string;
  readonly caveats: string;
}

export interface Story {
  readonly links: readonly Step[];
  readonly access: string;
}

export interface Played {
  // What is wrong with each link; "" where nothing is. Behind one that is wrong none is written.
  readonly troubles: readonly string[];
  readonly tried: Tried;
}

const keyring = Keyring.generate();
const issuer = new Issuer(keyring);
const verifier = new Verifier(keyring);

export function play(story: Story): Played {
  const troubles = story.links.map(() => "");
  let token: Token | undefined;
  for (const [at, link] of story.links.entries()) {
    try {
      const caveats = caveatsOf(link.caveats);
      token = token
        ? token.delegate({ ...caveats, to: link.to })
        : issuer.mint({ ...caveats, subject: "user:jane", agent: link.to, task: "playground" });
    } catch (error) {
      troubles[at] = troubleOf(error);
      const trouble = `Link ${at} is not written: see there.`;
      return { troubles, tried: { kind: "unasked", trouble } };
    }
  }
  const refusals = (access: Access): readonly Refusal[] => {
    if (!token) return [];
    const decision = verifier.check(token, access);
    return decision.allowed ? [] : decision.refusals;
  };
  return { troubles, tried: tried(story.access, refusals) };
}

// --- addresses -----------------------------------------------------------------------------------

const MOST = 8000; // characters: longer addresses are cut on their way by some programs

// The part of an address behind its number sign; "" where it would be too long.
export function toAddress(story: Story): string {
  const text = encodeURIComponent(JSON.stringify(story));
  return text.length > MOST ? "" : `#${text}`;
}

// The story that an address has; undefined where it has none.
export function fromAddress(hash: string): Story | undefined {
  try {
    const read: unknown = JSON.parse(decodeURIComponent(hash.slice(1)));
    return isStory(read) ? read : undefined;
  } catch {
    return undefined;
  }
}

const isStory = (read: unknown): read is Story =>
  isObject(read) &&
  typeof read["access"] === "string" &&
  Array.isArray(read["links"]) &&
  read["links"].length > 0 &&
  read["links"].every(
    (link: unknown) =>
      isObject(link) && typeof link["to"] === "string" && typeof link["caveats"] === "string",
  );

const isObject = (read: unknown): read is Record<string, unknown> =>
  typeof read === "object" && read !== null;
