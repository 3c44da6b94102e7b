/** Each example of the package, run as it stands: it prints what its comments say. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

import { missing } from "./python.js";
import { PARTNERS, Servers } from "./servers.js";

const SOURCES = fileURLToPath(new URL("../../examples/", import.meta.url));
const BUILT = fileURLToPath(new URL("../examples/", import.meta.url));
const ALONE = ["mcp.ts"]; // a server on stdio: tests/mcp.test.ts asks it
const ON_SERVERS = ["valkey.ts", "postgres.ts"];
const servers = missing(...PARTNERS) ? undefined : await Servers.start();
after(() => servers?.stop());
const WHERE = {
  ...process.env,
  VALKEY_URL: `redis://127.0.0.1:${servers?.valkey}`,
  ...{ PGHOST: "127.0.0.1", PGPORT: String(servers?.postgres), PGUSER: "postgres", PGDATABASE: "postgres" },
};

/** How the lines end that a line of the example prints, one after the other. */
function expected(source: string): string[] {
  const comments = [...source.matchAll(/; \/\/ (.*)$/gm)].map(([, said]) => said!);
  return comments.flatMap((said) => said.split(" | "));
}

for (const name of readdirSync(SOURCES).filter((each) => !ALONE.includes(each))) {
  const skip = ON_SERVERS.includes(name) && missing(...PARTNERS);
  test(`examples/${name}`, { skip }, () => {
    const wanted = expected(readFileSync(SOURCES + name, "utf8"));
    const program = BUILT + name.replace(/\.ts$/, ".js");
    const printed = execFileSync(process.execPath, [program], { encoding: "utf8", env: WHERE }).trim().split("\n");
    assert.ok(wanted.length >= 2, "its comments say what it prints");
    assert.equal(printed.length, wanted.length);
    for (const [at, line] of printed.entries()) assert.ok(line.endsWith(wanted[at]!), line);
  });
}

test("there is one for each subpath", () => {
  const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const { exports } = JSON.parse(manifest) as { exports: object };
  const subpaths = Object.keys(exports).flatMap((name) => /^\.\/(\w+)$/.exec(name)?.[1] ?? []);
  const there = readdirSync(SOURCES).map((name) => name.replace(/\.ts$/, ""));
  assert.deepEqual(there.sort(), subpaths.sort());
});
