// Writes the pages into the package, where `captoken console` serves them: the same bytes each time.
//
//     node build.mjs [FOLDER]
//
// The address of a source is in no file, and no time: so what is committed can be compared. The
// inspector is made of the port as well: `npm ci --prefix ../ports/typescript` comes before.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const to = process.argv[2] ?? join(here, "../captoken/cli/console/static");

const common = {
  absWorkingDir: here,
  outdir: to,
  bundle: true,
  minify: true,
  target: ["chrome111", "firefox113", "safari16.4"],
  charset: "ascii",
  legalComments: "none",
  logLevel: "warning",
};
const script = { ...common, jsx: "automatic", jsxImportSource: "preact" };

await mkdir(to, { recursive: true });

// --- the console ---------------------------------------------------------------------------------

await build({ ...script, entryPoints: { app: "src/main.tsx" }, format: "esm" });
await build({ ...common, entryPoints: { app: "src/app.css" } });
await copyFile(join(here, "src/index.html"), join(to, "index.html"));

// --- the inspector: one file, which its own policy shuts in --------------------------------------

async function textOf(options) {
  const made = await build({ ...options, write: false });
  return made.outputFiles[0].text.trim();
}

const hashOf = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

const code = await textOf({ ...script, entryPoints: ["src/inspector/main.tsx"], format: "iife" });
const style = await textOf({ ...common, entryPoints: ["src/inspector/inspector.css"] });
for (const ending of ["</script", "<!--", "</style"]) {
  if (`${code}${style}`.toLowerCase().includes(ending)) throw new Error(`${ending} in a source`);
}
const parts = {
  policy: [
    "default-src 'none'",
    "connect-src 'none'",
    `script-src ${hashOf(code)}`,
    `style-src ${hashOf(style)}`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; "),
  style,
  script: code,
};
const template = await readFile(join(here, "src/inspector/inspector.html"), "utf8");
const page = template.replace(/\{(policy|style|script)\}/g, (_, name) => parts[name]);
await writeFile(join(to, "inspector.html"), page);
