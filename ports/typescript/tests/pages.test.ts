/** The pages of the documentation on TypeScript: each block compiles as it stands, and what runs by itself runs. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import ts from "typescript";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
// Within the package, so that its own name and those of the frameworks are found.
const FOLDER = join(PACKAGE, "build", "pages");
const PAGES = ["typescript", "typescript-server"];

const blocks = PAGES.flatMap((page) => {
  const text = readFileSync(join(PACKAGE, "../../docs", `${page}.md`), "utf8");
  return [...text.matchAll(/```ts\n([^]*?)```/g)].map(([, block], at) => ({ name: `${page}-${at}`, block: block! }));
});

test("each block compiles, strictly", () => {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  assert.ok(blocks.length >= 8);
  const files = blocks.map(({ name, block }) => {
    const file = join(FOLDER, `${name}.ts`);
    writeFileSync(file, block);
    return file;
  });
  const program = ts.createProgram(files, {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: true },
    ...{ module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext },
    ...{ target: ts.ScriptTarget.ES2022, lib: ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"], types: ["node"] },
  });
  const said = ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => {
    return `${file?.fileName.slice(FOLDER.length)}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
  });
  assert.deepEqual(said, []);
  program.emit();
});

test("ten lines lead to a refusal", () => {
  const printed = execFileSync(process.execPath, [join(FOLDER, "typescript-0.js")], { encoding: "utf8" });
  assert.match(printed, /^denied: argument, at step 8\n/);
});
