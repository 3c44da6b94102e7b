/** The guard of tools, with the AI SDK's own loop and a model that says what it is told. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { generateText, stepCountIs, tool } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { z } from "zod";

import { HolderKey, Issuer, Keyring, MemoryLedger, MemoryReplayStore, Verifier } from "captoken";
import { ToolDenied, guarded, type Authority } from "captoken/ai";

const keyring = Keyring.generate();
const key = HolderKey.generate();
const verifier = new Verifier(keyring, {
  audience: "desk",
  ledger: new MemoryLedger({ shared: true, floor: 0 }),
  replays: new MemoryReplayStore({ floor: 0 }),
});
const who = { subject: "user:jane", agent: "clerk", task: "t" };
const may = { search: { q: { in: ["sales"] }, limit: { max: 10 } }, steps: {} };
const token = new Issuer(keyring).mint({ ...who, tools: may });
const bound = new Issuer(keyring).mint({ ...who, tools: may, key: key.public });

const ran: unknown[] = [];
const search = tool({
  description: "searches",
  inputSchema: z.object({ q: z.string(), limit: z.number().default(5), note: z.string().optional() }),
  execute: async (input) => {
    ran.push(input);
    return { found: input.q };
  },
});
const remove = tool({ inputSchema: z.object({}), execute: async () => ran.push("removed") });
const steps = tool({
  inputSchema: z.object({}),
  async *execute() {
    yield "half";
    yield "whole";
  },
});

/** What the model is told of the calls that it makes. */
async function told(by: Authority, calls: readonly (readonly [string, string])[]): Promise<string> {
  const content = calls.map(([toolName, input], at) => ({
    type: "tool-call" as const,
    toolCallId: `c${at}`,
    toolName,
    input,
  }));
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 },
    outputTokens: { total: 1, text: 1, reasoning: 0 },
  };
  let turn = 0;
  const model = new MockLanguageModelV3({
    doGenerate: async () => {
      turn += 1;
      return turn === 1
        ? { content, finishReason: { unified: "tool-calls", raw: undefined }, usage, warnings: [] }
        : { content: [{ type: "text", text: "done" }], finishReason: { unified: "stop", raw: undefined }, usage, warnings: [] };
    },
  });
  const tools = guarded({ search, remove, steps }, by);
  await generateText({ model, tools, prompt: "go", stopWhen: stepCountIs(2) });
  return JSON.stringify(model.doGenerateCalls[1]!.prompt.at(-1));
}

const AUTHORITIES: Readonly<Record<string, () => Authority>> = {
  "a token that is held here": () => ({ verifier, token, audience: "desk" }),
  "one that is bound to a key": () => ({ verifier, token: bound, audience: "desk", signer: key }),
  "the grant of a request": () => verifier.authenticate(token.present({ audience: "desk" })),
  "whatever is held by then": () => () => ({ verifier, token, audience: "desk" }),
};

for (const [name, by] of Object.entries(AUTHORITIES)) {
  test(`${name}: what is not permitted does not run, and the model is told why`, async () => {
    ran.length = 0;
    const said = await told(by(), [
      ["search", '{"q":"sales"}'],
      ["search", '{"q":"salaries"}'],
      ["search", '{"q":"sales","limit":50}'],
      ["remove", "{}"],
      ["steps", "{}"],
    ]);
    assert.deepEqual(ran, [{ q: "sales", limit: 5 }]);
    assert.equal(said.match(/Not permitted: this tool with these arguments/g)?.length, 2);
    assert.equal(said.match(/Not permitted: this tool is not among the tools/g)?.length, 1);
    assert.match(said, /"whole"/);
  });
}

test("a denial tells no more than the model may know, however it is shown", async () => {
  const tools = guarded({ remove }, { verifier, token, audience: "desk" });
  const options = { toolCallId: "c", messages: [], context: {} } as never;
  const failed = await Promise.resolve(tools.remove.execute!({}, options)).then(
    () => assert.fail("it ran"),
    (error: unknown) => error as ToolDenied,
  );
  assert.ok(failed instanceof ToolDenied);
  assert.equal(failed.decision.code, "tool");
  assert.doesNotMatch(JSON.stringify(failed) + String(failed), /jane|clerk/);
});

test("a tool that the provider runs is refused, and one that is run elsewhere stays", () => {
  const held = { verifier, token, audience: "desk" };
  const native = { type: "provider", id: "x.search", args: {} };
  assert.throws(() => guarded({ native }, held), { name: "UsageError", message: /native/ });
  assert.equal(guarded({ native }, held, { native: ["native"] }).native, native);
  const elsewhere = tool({ inputSchema: z.object({}) });
  assert.equal(guarded({ elsewhere }, held).elsewhere, elsewhere);
  assert.throws(() => guarded({ search }, {} as never), { name: "UsageError" });
});
