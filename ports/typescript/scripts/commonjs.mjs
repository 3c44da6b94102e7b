/**
 * `dist/cjs`: the library for those who `require`, with its types.
 *
 * Each file is written by itself, so that what is not asked for is not loaded. The noble libraries
 * are ES modules alone, which Jest and older programs cannot load: their code stands in the file
 * that uses it, and their licences beside it.
 */

import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = fileURLToPath(new URL("..", import.meta.url));
const dist = join(here, "dist");
const to = join(dist, "cjs");

await rm(to, { recursive: true, force: true });
const files = (await readdir(join(here, "src"), { recursive: true })).filter((name) =>
  name.endsWith(".ts"),
);

/** What is ours or the runtime's stays where it is. */
const stays = {
  name: "stays",
  setup: ({ onResolve }) => {
    onResolve({ filter: /^(\.|node:)/ }, ({ path, importer }) =>
      importer.startsWith(dist) ? { path, external: true } : undefined,
    );
  },
};

const { metafile } = await build({
  entryPoints: files.map((name) => join(dist, name.replace(/\.ts$/, ".js"))),
  outdir: to,
  outbase: dist,
  bundle: true,
  platform: "neutral",
  mainFields: ["module", "main"],
  format: "cjs",
  target: "es2022",
  metafile: true,
  legalComments: "inline",
  plugins: [stays],
});

for (const name of files) {
  const types = name.replace(/\.ts$/, ".d.ts");
  await mkdir(dirname(join(to, types)), { recursive: true });
  const text = await readFile(join(dist, types), "utf8");
  await writeFile(join(to, types), text.replace(/\n\/\/# sourceMappingURL=.*\n?$/, "\n"));
}
await writeFile(
  join(to, "package.json"),
  `${JSON.stringify({ type: "commonjs", sideEffects: false })}\n`,
);

const inside = Object.keys(metafile.inputs).flatMap(
  (path) => relative("node_modules", path).match(/^@noble\/[a-z0-9]+/) ?? [],
);
const notices = [...new Set(inside)].sort().map(async (name) => {
  const licence = await readFile(join(here, "node_modules", name, "LICENSE"), "utf8");
  return `${name}\n\n${licence.trim()}\n`;
});
await writeFile(join(to, "NOTICE"), (await Promise.all(notices)).join("\n\n"));
