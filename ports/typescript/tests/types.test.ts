/** What compiles and what does not: each line below an expectation is an error of the compiler's. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { tool } from "ai";
import { z } from "zod";

import {
  Issuer,
  Keyring,
  Verifier,
  type ConstraintFor,
  type Grant,
  type RulesFor,
  type Token,
  type ToolRules,
} from "captoken";

const keyring = Keyring.generate();
const token = new Issuer(keyring).mint({
  subject: "user:jane",
  agent: "a",
  task: "t",
  tools: {
    read: { path: { path: ["/reports"] }, limit: { max: 10, optional: true }, kind: { in: ["a", 1, true, 2n] } },
    probe: { hosts: { each: { cidr: ["10.0.0.0/8"] }, most: 3 }, note: { any: true } },
    fetch: { url: { url: ["https://a.example/"] }, account: { prefix: ["acct-"] }, n: { min: 1, max: 2 } },
  },
  where: { region: { in: ["eu"] } },
});

interface Search {
  readonly q: string;
  readonly limit?: number;
}
const args: Search = { q: "sales" };

/** Compiled, and never called. */
export function constraints(held: Token, grant: Grant): void {
  // @ts-expect-error a constraint is misspelled
  held.delegate({ to: "b", tools: { read: { path: { pth: ["/a"] } } } });
  // @ts-expect-error a list is meant
  held.attenuate({ tools: { read: { path: { path: "/a" } } } });
  // @ts-expect-error a number is meant
  held.attenuate({ tools: { read: { limit: { max: "10" } } } });
  // @ts-expect-error a range has an end
  held.attenuate({ tools: { read: { limit: {} } } });
  // @ts-expect-error optional is true, or left out
  held.attenuate({ tools: { read: { limit: { max: 1, optional: false } } } });
  // @ts-expect-error any is true
  held.attenuate({ where: { region: { any: false } } });
  // @ts-expect-error of an attribute nothing is optional
  held.attenuate({ where: { region: { in: ["eu"], optional: true } } });
  // @ts-expect-error most goes with each
  held.attenuate({ rows: { orders: { tenant: { most: 3 } } } });
  held.attenuate({ tools: new Map([["read", new Map([["path", new Map([["path", ["/a"]]])]])]]) });
  grant.check({ tool: "search", arguments: args, attributes: args });
  // @ts-expect-error a text states no arguments
  grant.check({ tool: "search", arguments: "q=sales" });
}

const schema = z.object({
  path: z.string(),
  limit: z.number().default(5),
  kind: z.enum(["q", "y"]).optional(),
  tags: z.array(z.string()),
  deep: z.object({ a: z.string() }),
  all: z.boolean(),
});
const tools = {
  read: schema,
  write: tool({ inputSchema: z.object({ path: z.string() }) }),
  plain: {} as Search,
};

const permitted = {
  read: {
    path: { path: ["/reports"] },
    limit: { max: 3 },
    kind: { in: ["q"], optional: true },
    tags: { each: { prefix: ["eu-"] } },
    deep: { any: true },
    all: { in: [false] },
  },
  write: { path: { path: ["/drafts"] } },
  plain: { q: { in: ["sales"] }, limit: { max: 3, optional: true } },
} as const satisfies ToolRules<typeof tools>;

export const wrong: readonly unknown[] = [
  // @ts-expect-error no such tool
  { raed: {} } satisfies ToolRules<typeof tools>,
  // @ts-expect-error no such argument
  { read: { pth: { path: ["/a"] } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error no number begins with anything
  { read: { limit: { prefix: ["1"] } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error the schema has no such value
  { read: { kind: { in: ["z"] } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error a list is asked by each
  { read: { tags: { in: ["eu"] } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error of an object nothing is said but that it may be there
  { read: { deep: { in: ["a"] } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error no such argument of a tool of the AI SDK
  { write: { paht: { any: true } } } satisfies ToolRules<typeof tools>,
  // @ts-expect-error no such value of a plain type
  { plain: { q: { in: [1] } } } satisfies ToolRules<typeof tools>,
  { limit: { min: 1 } } satisfies RulesFor<Search>,
  { any: true } satisfies ConstraintFor<unknown>,
];

test("what the types permit, the library takes", () => {
  const issuer = new Issuer(keyring);
  const rules = issuer.mint({ subject: "user:jane", agent: "a", task: "t", tools: permitted });
  const verifier = new Verifier(keyring, { audience: "s" });
  const grant = verifier.authenticate(rules.present({ audience: "s" }));
  assert.equal(grant.check({ tool: "plain", arguments: { q: "sales" } }).allowed, true);
  assert.equal(grant.check({ tool: "plain", arguments: args }).allowed, true);
  assert.equal(grant.check({ tool: "write", arguments: { path: "/other" } }).code, "argument");
  assert.match(String(token), /^<Token /);
});
