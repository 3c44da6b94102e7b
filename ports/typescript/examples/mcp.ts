/**
 * An MCP server on stdio that lets in what a token permits: two tools.
 *
 * CAPTOKEN_KEYRING_FILE names the server's keyring. Tokens come as MCP carries them (spec 40.3): in
 * `_meta` of each request. A token that is bound to a key brings a proof for the very message.
 */

import { readFileSync } from "node:fs";

import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

import { Keyring, MemoryReplayStore, Verifier } from "captoken";
import { current, guarded } from "captoken/mcp";

const keyring = Keyring.parse(readFileSync(process.env["CAPTOKEN_KEYRING_FILE"]!, "utf8"));
const verifier = new Verifier(keyring, { audience: "files-mcp", replays: new MemoryReplayStore() });

const said = (text: string) => ({ content: [{ type: "text" as const, text }] });

const server = new McpServer({ name: "files", version: "1.0.0" });
server.registerTool("read", { inputSchema: { path: z.string() } }, ({ path }) => said(`what stands in ${path}`));
server.registerTool("whoami", {}, () => {
  const grant = current.grant();
  return said(`${grant.actor.name} for ${grant.issued.subject}, in ${grant.task}`);
});

await server.connect(guarded(new StdioServerTransport(), verifier));
