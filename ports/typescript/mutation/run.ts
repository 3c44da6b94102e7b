/**
 * How many of so many mutants of `src` the vectors alone kill, and which live.
 *
 *     npm run mutation -- [--count 500] [--seed 1] [--file format/json.ts] [--show]
 *         [--keep living.json]     # those that live are kept there
 *         [--again living.json]    # only those that lived
 *
 * The mutants are drawn by the seed alone from all that the compiler takes. Those in `listed.json`
 * are passed over, each for the reason that stands there: either no program tells them from the
 * original, or what they change is nothing that the specification says.
 */

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";

import { build } from "esbuild";

import { Compiler, changed, declarations, mutantsOf, type Mutant } from "./mutants.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url)).replace(/\/$/, "");
const STILL = 20_000; // milliseconds without a vector answered: it does not end

interface Listed {
  readonly file: string;
  readonly was: string;
  readonly is: string;
  readonly why: string;
  /** Which one, from 0, where several of the file are written alike; left out: all. */
  readonly which?: number;
}

interface Ledger {
  /** What no program tells from the original. */
  readonly equivalent: readonly Listed[];
  /** What the specification says nothing of. */
  readonly beside: readonly Listed[];
  /** Lines of which the same is so, whatever is changed in them: file, and what stands in them. */
  readonly lines: readonly { readonly file: string; readonly has: string; readonly why: string }[];
  /** Functions of which the same is so, as a whole: file, and how their first line begins. */
  readonly functions: readonly { readonly file: string; readonly begins: string; readonly why: string }[];
}

const listed = JSON.parse(readFileSync(`${ROOT}/mutation/listed.json`, "utf8")) as Ledger;

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "500" },
    seed: { type: "string", default: "1" },
    file: { type: "string" },
    keep: { type: "string" },
    again: { type: "string" },
    show: { type: "boolean", default: false },
  },
});

/** Numbers from 0 to below 1, by the seed alone. */
function* drawn(seed: number): Generator<number> {
  for (let state = seed >>> 0; ;) {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    yield ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
}

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const made = [...items];
  const numbers = drawn(seed);
  for (let at = made.length - 1; at > 0; at--) {
    const other = Math.floor(numbers.next().value! * (at + 1));
    [made[at], made[other]] = [made[other]!, made[at]!];
  }
  return made;
}

/** The stretches of the functions that are passed over whole. */
function passedOver(file: string, source: string): [number, number][] {
  const declared = declarations(file, source);
  return listed.functions
    .filter((each) => each.file === file)
    .flatMap(({ begins }) => {
      const found = declared.filter(({ text }) => text.startsWith(begins));
      if (found.length === 0) throw new Error(`${file}: nothing begins with ${begins}`);
      return found.map(({ start, end }): [number, number] => [start, end]);
    });
}

const sources = new Map(
  readdirSync(`${ROOT}/src`, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && file !== "index.ts")
    .sort()
    .map((file) => [file, readFileSync(`${ROOT}/src/${file}`, "utf8")]),
);

const key = ({ file, was, is }: Pick<Listed, "file" | "was" | "is">): string =>
  JSON.stringify([file, was, is]);

/** All of them, and whether each is listed: so a seed draws the same ones whatever is listed. */
function candidates(): (Mutant & { readonly isListed: boolean })[] {
  const named = (each: Listed): string => `${key(each)} ${each.which ?? "all"}`;
  const known = new Set([...listed.equivalent, ...listed.beside].map(named));
  const times = new Map<string, number>();
  return [...sources].flatMap(([file, source]) => {
    const functions = passedOver(file, source);
    return mutantsOf(file, source).map((mutant) => {
      const isIn = functions.some(([from, to]) => from <= mutant.start && mutant.start < to);
      const isOn = listed.lines.some((each) => each.file === file && mutant.was.includes(each.has));
      const spelled = key(mutant);
      const which = times.get(spelled) ?? 0;
      times.set(spelled, which + 1);
      const isNamed = known.has(`${spelled} all`) || known.has(`${spelled} ${which}`);
      return { ...mutant, isListed: isIn || isOn || isNamed };
    });
  });
}

/** The port and its runner in one file, with one file of it changed. */
async function bundled(file: string, contents: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [`${ROOT}/tests/adapter.ts`],
    bundle: true,
    format: "cjs",
    platform: "node",
    target: "node20",
    write: false,
    external: ["@noble/*"],
    logLevel: "silent",
    plugins: [
      {
        name: "mutant",
        setup: (it) => {
          it.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) =>
            path === `${ROOT}/src/${file}` ? { contents, loader: "ts" } : undefined,
          );
        },
      },
    ],
  });
  return outputFiles[0]!.text;
}

/** One worker at a time: a new one where a mutant does not end, or takes all memory. */
class Runner {
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  #answered: (killer: string | null) => void = () => undefined;

  killerOf(code: string): Promise<string | null> {
    const worker = (this.#worker ??= this.#begun());
    return new Promise((resolve) => {
      this.#answered = resolve;
      this.#wait();
      worker.postMessage(code);
    });
  }

  #begun(): Worker {
    const worker = new Worker(new URL("worker.js", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
    });
    worker.on("message", ({ killer }: { killer?: string | null }) => {
      this.#wait();
      if (killer === undefined) return;
      clearTimeout(this.#timer);
      this.#answered(killer);
    });
    worker.on("error", () => this.#lost("it takes all memory"));
    return worker;
  }

  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lost("it does not end"), STILL);
  }

  #lost(why: string): void {
    clearTimeout(this.#timer);
    void this.#worker?.terminate();
    this.#worker = undefined;
    this.#answered(why);
  }

  async end(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#worker?.terminate();
  }
}

async function main(): Promise<number> {
  const count = Number(values.count);
  const compiler = new Compiler(ROOT, [...sources.keys()].map((file) => `${ROOT}/src/${file}`));
  const all = candidates();
  const lived = values.again && (JSON.parse(readFileSync(values.again, "utf8")) as Mutant[]);
  const again = lived && new Set(lived.map(key));
  const wanted = all.filter(
    (each) => (!values.file || each.file === values.file) && (!again || again.has(key(each))),
  );
  const runner = new Runner();
  const living: Mutant[] = [];
  let [ran, skipped, refused] = [0, 0, 0];
  const [first] = sources;
  const unchanged = await runner.killerOf(await bundled(first![0], first![1]));
  if (unchanged !== null) throw new Error(`${unchanged} fails without any mutant`);
  for (const mutant of shuffled(wanted, Number(values.seed))) {
    if (ran === count) break;
    const source = sources.get(mutant.file)!;
    const other = changed(source, mutant);
    if (mutant.isListed) {
      skipped += 1;
      continue;
    }
    if (!compiler.takes(`${ROOT}/src/${mutant.file}`, source, other)) {
      refused += 1;
      continue;
    }
    ran += 1;
    if (ran % 50 === 0) console.error(`${ran} so far, of which ${living.length} live`);
    const killer = await runner.killerOf(await bundled(mutant.file, other));
    const { file, line, was, is } = mutant;
    if (killer === null) living.push(mutant);
    if (killer === null || values.show) {
      console.log(`${killer ?? "LIVES"}: ${file}:${line}\n  - ${was}\n  + ${is}`);
    }
  }
  await runner.end();
  if (values.keep) writeFileSync(values.keep, JSON.stringify(living, null, 1));
  const killed = ran - living.length;
  console.log(
    `${killed} of ${ran} mutants killed (${((100 * killed) / ran).toFixed(1)} %), seed ${values.seed}; ` +
      `${all.length} candidates, of those drawn the compiler refused ${refused}; ${skipped} are listed`,
  );
  return living.length;
}

process.exitCode = (await main()) ? 1 : 0;
