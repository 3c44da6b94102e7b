/** Tools of the Vercel AI SDK that run what a token permits. */

import { tool } from "ai";
import { z } from "zod";

import { Issuer, Keyring, Verifier } from "captoken";
import { guarded } from "captoken/ai";

const keyring = Keyring.generate();
const verifier = new Verifier(keyring, { audience: "desk" });
const who = { subject: "user:jane", agent: "clerk", task: "q3" };
const token = new Issuer(keyring).mint({ ...who, tools: { search: { q: { in: ["sales"] } } } });

const search = tool({
  description: "Searches the reports.",
  inputSchema: z.object({ q: z.string() }),
  execute: async ({ q }) => `found ${q}`,
});
const tools = guarded({ search }, { verifier, token, audience: "desk" });

// As `generateText({ model, tools, … })` calls them.
for (const q of ["sales", "salaries"]) {
  const call = tools.search.execute!({ q }, { toolCallId: "1", messages: [], context: {} });
  const said = await Promise.resolve(call).catch((error: Error) => error.message);
  console.log(said); // found sales | A retry will not help.
}
