// Writes the pages into the package, where `captoken console` serves them: the same bytes each time.
//
//     node build.mjs [FOLDER]
//
// Beside them comes NOTICE: what its authors ask to be said of each package that is in the pages. It
// lies at the root of the project; or in that folder, if one is named.
//
// The address of a source is in no file, and no time: so what is committed can be compared. The
// inspector is made of the port as well: `npm ci --prefix ../ports/typescript` comes before.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
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
  metafile: true,
  logLevel: "warning",
};
const script = { ...common, jsx: "automatic", jsxImportSource: "preact" };

await mkdir(to, { recursive: true });

// --- what is owed to the authors of what is in the pages -----------------------------------------

/** The packages that came into a bundle, by their folders. */
function packagesOf(made) {
  const found = Object.keys(made.metafile.inputs).map((path) =>
    /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(resolve(here, path)),
  );
  return new Set(found.filter(Boolean).map(([folder]) => folder));
}

/** The notices of packages: those with one licence share its text. Raises where one has none. */
async function noticesOf(folders) {
  const byTerms = new Map();
  for (const folder of [...folders].sort()) {
    const { name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const files = (await readdir(folder)).filter((file) => /^licen[cs]e/i.test(file));
    if (files.length !== 1) throw new Error(`${name}: its licence is in ${files.length} files`);
    const text = await readFile(join(folder, files[0]), "utf8");
    const lines = text.replace(/[\u201c\u201d]/g, '"').trim().split("\n");
    const owners = lines.filter((line) => /^copyright /i.test(line));
    if (owners.length === 0) throw new Error(`${name}: nobody holds its copyright`);
    const rest = lines.filter((line) => !owners.includes(line)).join("\n");
    const terms = rest.replace(/\n{3,}/g, "\n\n").trim();
    const same = terms.replace(/\s+/g, " ").toLowerCase();
    const group = byTerms.get(same) ?? { terms, named: [] };
    group.named.push([`${name} ${version}`, ...owners].join("\n"));
    byTerms.set(same, group);
  }
  const parts = [...byTerms.values()].map(({ terms, named }) => [...named, terms].join("\n\n"));
  return parts.join(`\n\n${"-".repeat(80)}\n\n`);
}

// --- the console ---------------------------------------------------------------------------------

const page = await build({ ...script, entryPoints: { app: "src/main.tsx" }, format: "esm" });
await build({ ...common, entryPoints: { app: "src/app.css" } });
await copyFile(join(here, "src/index.html"), join(to, "index.html"));

// --- the inspector and the playground: each one file, which its own policy shuts in ---------------

async function madeOf(options) {
  const made = await build({ ...options, write: false });
  return [made.outputFiles[0].text.trim(), packagesOf(made)];
}

const hashOf = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const template = await readFile(join(here, "src/page.html"), "utf8");

/** The page of that folder of the sources, and the packages that are in it. */
async function pageOf(name) {
  const entry = (file) => ({ entryPoints: [`src/${name}/${file}`] });
  const [code, packages] = await madeOf({ ...script, ...entry("main.tsx"), format: "iife" });
  const [style] = await madeOf({ ...common, ...entry(`${name}.css`) });
  for (const ending of ["</script", "<!--", "</style"]) {
    if (`${code}${style}`.toLowerCase().includes(ending)) throw new Error(`${ending} in a source`);
  }
  const notices = await noticesOf(packages);
  if (notices.includes("-->")) throw new Error("--> in a licence");
  const parts = {
    name,
    notices: notices.replaceAll(/^-+$/gm, "*"),
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
  return [template.replace(/\{(name|notices|policy|style|script)\}/g, (_, key) => parts[key]), packages];
}

const [inspector, packages] = await pageOf("inspector");
await writeFile(join(to, "inspector.html"), inspector);
// It is a part of the site, and of no package.
const [playground] = await pageOf("playground");
await writeFile(join(process.argv[2] ?? join(here, "../site/static"), "playground.html"), playground);

// --- NOTICE --------------------------------------------------------------------------------------

const notice = `captoken

Licensed under the Apache License, Version 2.0, which is in LICENSE.

The pages of the console and the inspector, in captoken/cli/console/static, have parts of the
packages below in them. Each stands here with its authors and its licence.

${"-".repeat(80)}

${await noticesOf(new Set([...packagesOf(page), ...packages]))}
`;
await writeFile(join(process.argv[2] ?? join(here, ".."), "NOTICE"), notice);
