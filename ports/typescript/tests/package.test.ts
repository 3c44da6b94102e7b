/** The package as `npm pack` writes it, installed in a fresh folder and used from there. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

const PROGRAM = `
import { Issuer, Keyring, Verifier, type Decision } from "captoken";

const keyring = Keyring.generate();
const token = new Issuer(keyring).mint({
  subject: "user:jane", agent: "a", task: "t", tools: { read: { path: { path: ["/a"] } } },
});
const text = token.attenuate({ expiresIn: "1m" }).present({ audience: "files" });
const verifier = new Verifier(keyring, { audience: "files" });
const decision: Decision = verifier.check(text, { tool: "read", arguments: { path: "/a/b" } });
console.log(decision.code, verifier.check(text, { tool: "write" }).code);
if (!decision.allowed) console.log(decision.refusals[0].text);
`;

/** What compiles nowhere: each line is an error, or the compiler says that it is none. */
const TRAPS = `
import { Verifier, type Access, type Decision, type Grant, type Keyring, type Token } from "captoken";

export async function traps(verifier: Verifier, grant: Grant, token: Token, keyring: Keyring, access: Access) {
  // @ts-expect-error
  if (verifier.check(token, access)) return;
  // @ts-expect-error
  if (grant.check(access)) return;
  // @ts-expect-error
  if (grant.recheck(null) && access.tool) return;
  // @ts-expect-error
  const said = verifier.explain(token, access) ? 1 : 2;
  // @ts-expect-error
  if (verifier.checkAsync(token, access)) return;
  const kept = verifier.check(token, access);
  // @ts-expect-error
  if (kept) return said;
  const name = undefined as string | undefined;
  // @ts-expect-error
  new Verifier(keyring, { audience: name });
  // @ts-expect-error
  token.delegate({ to: "a", tools: undefined });
  // @ts-expect-error
  verifier.check(token, { tool: name });
  // @ts-expect-error
  verifier.check(token, access, { caller: undefined });
  const decision: Decision = grant.check(access);
  const later: Decision = await verifier.checkAsync(token, access);
  return decision.allowed && later.allowed ? decision.grant.expiresAt : verifier.explain(token, access).code;
}
`;

/** The program of the README, word for word. */
const README = readFileSync(join(PACKAGE, "README.md"), "utf8").match(/```ts\n([^]*?)```/)![1]!;

const OPTIONS = {
  compilerOptions: {
    strict: true,
    module: "NodeNext",
    target: "ES2022",
    lib: ["ES2022", "DOM"],
    types: [],
    exactOptionalPropertyTypes: true,
    noEmitOnError: true,
  },
  files: ["program.ts", "readme.ts", "traps.ts"],
};

test("it is packed, installed, compiled against, and runs", () => {
  const folder = mkdtempSync(join(tmpdir(), "captoken-"));
  const npm = (cwd: string, ...args: string[]): string =>
    execFileSync("npm", [...args, "--no-audit", "--no-fund", "--loglevel=error"], {
      cwd,
      encoding: "utf8",
    });
  try {
    const packed = npm(PACKAGE, "pack", "--ignore-scripts", "--json", "--pack-destination", folder);
    const said = JSON.parse(packed) as unknown;
    const [{ filename, files }] = Object.values(said as object) as [
      { filename: string; files: { path: string }[] },
    ];
    const others = files
      .map(({ path }) => path)
      .filter((path) => !/^dist\/.*\.(js|d\.ts)$/.test(path));
    assert.deepEqual(others.sort(), ["LICENSE", "README.md", "package.json"]);
    const page = readFileSync(join(PACKAGE, "README.md"), "utf8");
    const links = [...page.matchAll(/\]\(([^)#]+)/g)].map(([, to]) => to!);
    const isThere = (to: string): boolean => files.some(({ path }) => path === to);
    assert.deepEqual(
      links.filter((to) => !to.startsWith("https://") && !isThere(to)),
      [],
      "a link of the page that leads out of the package",
    );
    writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
    npm(folder, "install", "--prefer-offline", join(folder, filename));
    writeFileSync(join(folder, "program.ts"), PROGRAM);
    writeFileSync(join(folder, "readme.ts"), README);
    writeFileSync(join(folder, "traps.ts"), TRAPS);
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(OPTIONS));
    const compiler = join(PACKAGE, "node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [compiler, "-p", folder], { cwd: folder });
    const ran = execFileSync(process.execPath, ["program.js"], { cwd: folder, encoding: "utf8" });
    assert.equal(ran, "allowed tool\n");
    const shown = execFileSync(process.execPath, ["readme.js"], { cwd: folder, encoding: "utf8" });
    assert.match(shown, /^user:jane \[\n.*name: 'orchestrator', basis: 'issued'/);
    assert.match(shown, /\ndenied: argument, at step 8\n.*the issuer\)\n.*added by orchestrator\)/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
