"""An MCP server on standard input and output, of two tools, for a session."""

import json
import sys

TOOLS = [
    {"name": "read_file", "inputSchema": {"properties": {"path": {"type": "string"}, "lines": {"anyOf": [{"type": "integer"}]}}}},
    {"name": "list_roots", "inputSchema": {"type": "object"}},
]
RESULTS = {
    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "files", "version": "1"}},
    "tools/list": {"tools": TOOLS},
}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS[asked["method"]]}), flush=True)
