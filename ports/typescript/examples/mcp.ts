/**
 * An MCP server on stdio that lets in what a token permits: two tools.
 *
 * CAPTOKEN_KEYRING_FILE names the server's keyring. Tokens come as MCP carries them (spec 40.3): in
 * `_meta` of each request. A token that is bound to a key brings a proof for the very message.
 */

import { readFileSync } from "node:fs";

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import {
  CallToolRequestSchema,
  ListToolsRequestSchema,
  McpError,
  type CallToolResult,
} from "@modelcontextprotocol/sdk/types.js";
import {
  Keyring,
  MemoryReplayStore,
  Verifier,
  forModel,
  forNetwork,
  mcpAccess,
  mcpMessageRequest,
  type Access,
  type Decision,
  type Grant,
} from "captoken";

const keyring = Keyring.parse(readFileSync(process.env["CAPTOKEN_KEYRING_FILE"]!, "utf8"));
const verifier = new Verifier(keyring, { audience: "files-mcp", replays: new MemoryReplayStore() });

type Arguments = Readonly<Record<string, unknown>>;

const TOOLS: Readonly<Record<string, (args: Arguments, grant: Grant) => string>> = {
  read: ({ path }) => `what stands in ${String(path)}`,
  whoami: (_, grant) => `${grant.actor.name} for ${grant.issued.subject}, in ${grant.task}`,
};

const said = (text: string, isError = false): CallToolResult => ({
  content: [{ type: "text", text }],
  isError,
});

/** The decision on a message, with or without an access. What is no access, no token permits. */
function decided(method: string, params: Arguments & { _meta?: Arguments | undefined }): Decision {
  const text = params._meta?.["io.captoken/token"];
  const isCall = method === "tools/call";
  const access = isCall ? (mcpAccess(method, params) as Access) : null;
  return verifier.check(typeof text === "string" ? text : "", access, {
    request: mcpMessageRequest(method, params),
  });
}

const server = new Server({ name: "files", version: "1.0.0" }, { capabilities: { tools: {} } });

server.setRequestHandler(CallToolRequestSchema, ({ method, params }) => {
  const decision = decided(method, params);
  if (decision.allowed) {
    const tool = Object.hasOwn(TOOLS, params.name) ? TOOLS[params.name] : undefined;
    return tool ? said(tool(params.arguments ?? {}, decision.grant)) : said("no such tool", true);
  }
  // What the token does not permit is for the model to hear; anything else is for the client.
  if (decision.kind === "insufficient") return said(forModel(decision), true);
  const { status, text } = forNetwork(decision);
  throw new McpError(status, text);
});

server.setRequestHandler(ListToolsRequestSchema, ({ method, params }) => {
  const decision = decided(method, params ?? {});
  if (!decision.allowed) {
    const { status, text } = forNetwork(decision);
    throw new McpError(status, text);
  }
  return { tools: Object.keys(TOOLS).map((name) => ({ name, inputSchema: { type: "object" } })) };
});

await server.connect(new StdioServerTransport());
