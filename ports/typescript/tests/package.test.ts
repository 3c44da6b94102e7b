/** The package as `npm pack` writes it, installed in a fresh folder and used from there. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import ts from "typescript";

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

/** Each way in which a program finds a package: [module, moduleResolution, the file's ending]. */
const MODES: readonly (readonly [ts.ModuleKind, ts.ModuleResolutionKind, string])[] = [
  [ts.ModuleKind.CommonJS, ts.ModuleResolutionKind.Node10, "ts"],
  [ts.ModuleKind.Node16, ts.ModuleResolutionKind.Node16, "mts"],
  [ts.ModuleKind.Node16, ts.ModuleResolutionKind.Node16, "cts"],
  [ts.ModuleKind.NodeNext, ts.ModuleResolutionKind.NodeNext, "mts"],
  [ts.ModuleKind.NodeNext, ts.ModuleResolutionKind.NodeNext, "cts"],
  [ts.ModuleKind.ESNext, ts.ModuleResolutionKind.Bundler, "ts"],
];

interface Manifest {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, { types: string }>>>>;
}

const EXPORTS = (
  JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8")) as Manifest
).exports;

/** What a program writes to import: the package, and each of its subpaths. */
const NAMES = Object.keys(EXPORTS)
  .filter((name) => name !== "./package.json")
  .map((name) => name.replace(".", "captoken"));

/** Without types of Node or of any framework: those of the package ask for none. */
function resolvesBy(folder: string): void {
  const text = NAMES.map((name, at) => `import * as all${at} from "${name}";\nexport { all${at} };\n`);
  for (const [module, moduleResolution, ending] of MODES) {
    const file = join(folder, `resolves.${ending}`);
    writeFileSync(file, text.join(""));
    const options = { strict: true, target: ts.ScriptTarget.ES2022, types: [], noEmit: true };
    const lib = ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"];
    const program = ts.createProgram([file], { ...options, lib, module, moduleResolution });
    const said = ts.getPreEmitDiagnostics(program).map(({ messageText }) => messageText);
    assert.deepEqual(said, [], `${ts.ModuleResolutionKind[moduleResolution]!}, .${ending}`);
  }
}

/** For `require`, `import` and whoever cannot load an ES module by `require`. */
function loads(folder: string): void {
  const node = (...args: string[]): string =>
    execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  const both = `
    for (const name of ${JSON.stringify(NAMES)}) {
      const got = require(name);
      import(name).then((all) => console.log(name, Object.keys(all).every((key) => got[key] === all[key])));
    }`;
  writeFileSync(join(folder, "both.cjs"), both);
  const same = NAMES.map((name) => `${name} true`).sort();
  assert.deepEqual(node("both.cjs").trim().split("\n").sort(), same, "a second copy of the library");
  writeFileSync(join(folder, "old.cjs"), OLD);
  // As Jest and older programs: with no way from `require` to an ES module.
  assert.equal(node("--no-experimental-require-module", "old.cjs"), "allowed tool false\n");
}

/** Two copies of the library, where a program has them: the one's objects are nothing to the other. */
const OLD = `
const { Issuer, Keyring, Verifier } = require("captoken");
const keyring = Keyring.generate();
const who = { subject: "user:jane", agent: "a", task: "t", tools: { read: {} } };
const token = new Issuer(keyring).mint(who);
const text = token.present({ audience: "files" });
const verifier = new Verifier(keyring, { audience: "files" });
const said = ["read", "write"].map((tool) => verifier.check(text, { tool }).code);
import("captoken").then((other) => {
  const theirs = new other.Verifier(other.Keyring.parse(keyring.serialize()), { audience: "files" });
  console.log(...said, theirs.check(token, { tool: "read" }).allowed);
});
`;

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
      .filter((path) => !/^(dist\/.*\.(js|d\.ts)(\.map)?|src\/.*\.ts)$/.test(path));
    const beside = ["LICENSE", "README.md", "dist/cjs/NOTICE", "dist/cjs/package.json", "package.json"];
    assert.deepEqual(others.sort(), beside);
    // What a map or an editor leads to is there.
    for (const { path } of files.filter(({ path }) => path.endsWith(".map"))) {
      const { sources } = JSON.parse(readFileSync(join(PACKAGE, path), "utf8")) as { sources: string[] };
      const led = sources.map((source) => join(dirname(path), source));
      assert.ok(led.every((source) => files.some(({ path }) => path === source)), path);
    }
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
    resolvesBy(folder);
    loads(folder);
    assert.match(shown, /^user:jane \[\n.*name: 'orchestrator', basis: 'issued'/);
    assert.match(shown, /\ndenied: argument, at step 8\n.*the issuer\)\n.*added by orchestrator\)/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
