/**
 * What a decision costs: every kind is linear in its constraint plus the value (spec 24.23).
 *
 * No test asks the time: they count the calls of what strings, lists, sets and maps have, and the
 * entries of lists that are looked at.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { jsonOf, type Json } from "../src/format/json.js";
import { stated } from "../src/language/access.js";
import { address } from "../src/language/addresses.js";
import { lateProhibits, readCaveat } from "../src/language/caveats.js";
import {
  constraintJson,
  meetConstraints,
  readConstraint,
  satisfies,
  type Constraint,
} from "../src/language/constraints.js";
import { decided, matches } from "../src/language/patterns.js";

const COUNTED: readonly object[] = [
  String.prototype,
  RegExp.prototype,
  Array.prototype,
  Set.prototype,
  Map.prototype,
];

let count = 0;

/** How many methods are called while this is done. */
function steps(done: () => unknown): number {
  const undo: (() => void)[] = [];
  for (const prototype of COUNTED) {
    for (const [name, was] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      const method: unknown = was.value;
      if (name === "constructor" || typeof method !== "function") continue;
      const counting = function (this: unknown, ...given: unknown[]): unknown {
        count += 1;
        return Reflect.apply(method, this, given);
      };
      Object.defineProperty(prototype, name, { ...was, value: counting });
      undo.push(() => Object.defineProperty(prototype, name, was));
    }
  }
  count = 0;
  try {
    done();
    return count;
  } finally {
    for (const back of undo.reverse()) back();
  }
}

/** The same constraint, which counts the entries of its list that are looked at. */
function watched(constraint: Constraint): Constraint {
  if (constraint.kind === "each") return { ...constraint, of: watched(constraint.of) };
  if (!("list" in constraint)) return constraint;
  const list = new Proxy<readonly unknown[]>(constraint.list, {
    get: (target, key) => {
      if (typeof key === "string" && key >= "0" && key < ":") count += 1; // an index
      return Reflect.get(target, key) as unknown;
    },
  });
  return { ...constraint, list } as Constraint;
}

const read = (json: unknown): Constraint => readConstraint(jsonOf(json));
const repeated = <T>(times: number, made: (at: number) => T): T[] =>
  Array.from({ length: times }, (_, at) => made(at));

/** Of each kind, entries, and what the last of them alone accepts. */
const KINDS: Readonly<Record<string, [(at: number) => string, (last: string) => string]>> = {
  in: [(at) => `v${at}`, (last) => last],
  path: [(at) => `/v${at}`, (last) => `${last}/a`],
  prefix: [(at) => `v${at}.`, (last) => `${last}a`],
  url: [(at) => `https://v${at}.example.com`, (last) => last],
  cidr: [(at) => `10.${at >> 7}.${(2 * at) % 256}.0/24`, (last) => last.replace("0/24", "7")],
};

for (const [kind, [entry, within]] of Object.entries(KINDS)) {
  for (const nested of [0, 1, 3]) {
    test(`a long list of ${kind} is not gone through for each item, ${nested} deeper`, () => {
      const most = kind === "url" ? 16 : 300;
      const cost = (entries: number, values: number): number => {
        const list = repeated(entries, entry);
        let judged: unknown = repeated(values, () => within(list.at(-1)!));
        let each: unknown = { each: { [kind]: list } };
        for (let at = 0; at < nested; at++) {
          judged = (judged as unknown[]).map((item) => [item]);
          each = { each };
        }
        const constraint = watched(read(each));
        const value = jsonOf(judged);
        let is: boolean | undefined;
        const made = steps(() => (is = satisfies(constraint, value)));
        assert.ok(is);
        return made;
      };
      for (const values of [20, 200]) {
        // Of a short list of urls each is looked at: three steps. Else some ten of 300 are.
        const more = kind === "url" ? 15 * 3 : 12;
        const [few, many] = [cost(1, values), cost(most, values)];
        assert.ok(many <= few + values * more, `${few} and ${many}`);
      }
      assert.ok(cost(most, 200) <= 10 * cost(most, 20));
    });
  }
}

test("what is long is not read segment by segment", () => {
  for (const [json, long] of [
    [{ path: ["/a/b"] }, "/a/b"],
    [{ path: ["/"] }, "/%2a/.a/..."],
    [{ prefix: ["1."] }, "1.1.1"],
    [{ cidr: ["10.0.0.0/8"] }, "1.1:"],
  ] as const) {
    const constraint = read(json);
    const cost = (times: number): number =>
      steps(() => satisfies(constraint, long.repeat(times)));
    assert.ok(cost(5000) <= cost(50), JSON.stringify(json));
    assert.equal(satisfies(constraint, long.repeat(50)), !("cidr" in json));
  }
});

test("a name of many segments is looked up in a short map by its entries", () => {
  const entries = new Map([["*", 1], ["a.*", 2], ["a.a.*", 3], ["b.*", 4], ["a.a", 5]]);
  const name = `a${".a".repeat(120)}`;
  for (const long of ["a.a.a.a.a.a", name]) {
    assert.equal(decided(entries, long, 0), 3);
    assert.equal(decided(new Map([["b.*", 1]]), long, 0), 0);
    assert.equal(decided(new Map([["a.*", 1], ["*", 2]]), `${long}.*`, 0), 1);
    assert.ok(matches(new Set(["a.*"]), long) && !matches(new Set(["b.*"]), long));
  }
  const cost = (long: string): number => steps(() => decided(new Map([["*", 1]]), long, 0));
  assert.ok(cost(name) <= cost("a.a.a"));
  const many = new Map(repeated(1000, (at) => [`t${at}.*`, at] as const));
  assert.equal(decided(many, "t7.x", -1), 7);
  assert.ok(steps(() => decided(many, "t7.x", -1)) <= 10);
});

test("columns and tables are looked up, and not compared with each", () => {
  const names = repeated(200, (at) => `c${at}`);
  const columns = readCaveat("columns", new Map([["t", [...names].reverse()]]));
  const access = stated({ table: "t", operation: "select", columns: names });
  assert.ok(steps(() => lateProhibits("columns", columns, access)) <= 2 * 200);
  assert.equal(lateProhibits("columns", columns, access), undefined);
  const less = readCaveat("columns", new Map([["t", names.slice(1)]]));
  assert.equal(lateProhibits("columns", less, access)?.code, "column");
  for (const key of ["tables", "operations"] as const) {
    const said = readCaveat(key, [...names, "t", "select"]);
    assert.ok(steps(() => lateProhibits(key, said, access)) <= 5);
    assert.equal(lateProhibits(key, said, access), undefined);
  }
});

// --- a search finds what going through the list finds --------------------------------------------

/** Numbers from 0 to below a bound, always the same ones. */
function drawer(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return (state >> 8) % below;
  };
}

test("what is searched is found as by going through the list", () => {
  const draw = drawer(27);
  const PARTS = ["a", "b", "\u{1f600}", "\uffff", ".", "-", "~", "0", "é"];
  const word = (): string => repeated(1 + draw(3), () => PARTS[draw(PARTS.length)]!).join("");
  const path = (): string =>
    repeated(draw(3), () => `/a${word()}`).join("") || "/";
  const scalar = (): Json =>
    [word(), draw(4), draw(4) - 2, draw(2) === 0, String(draw(4))][draw(5)]!;
  const isBelow = (path: string, top: string): boolean =>
    top === "/" || path === top || path.startsWith(`${top}/`);
  const RULES: readonly [string, () => Json, (value: Json, entry: Json) => boolean][] = [
    ["in", scalar, (value, entry) => value === entry],
    ["prefix", word, (value, entry) => (value as string).startsWith(entry as string)],
    ["path", path, (value, entry) => isBelow(value as string, entry as string)],
  ];
  for (const [kind, entry, accepts] of RULES) {
    const said = [0, 0];
    for (let round = 0; round < 3000; round++) {
      const [one, two] = [repeated(draw(6), entry), repeated(1 + draw(5), entry)];
      const value = entry();
      const [mine, its] = [one, two].map((list) => list.some((each) => accepts(value, each)));
      said[Number(mine)]! += 1;
      const shown = JSON.stringify({ kind, one, two, value });
      assert.equal(satisfies(read({ [kind]: one }), value), mine, shown);
      const both = meetConstraints(read({ [kind]: one }), read({ [kind]: two }));
      assert.equal(satisfies(both, value), mine && its, shown);
      assert.equal(satisfies(readConstraint(constraintJson(both)), value), mine && its, shown);
    }
    assert.ok(Math.min(...said) > 300, `${kind}: ${said.join(" and ")}`);
  }
});

test("an address is in one of the blocks, or in none", () => {
  const draw = drawer(7);
  for (let round = 0; round < 500; round++) {
    const spelled = (at: number): string =>
      round % 2 ? `10.0.0.${at}` : `2001:db8::${at.toString(16)}`;
    const whole = round % 2 ? 32 : 128;
    const blocks = repeated(draw(9), () => {
      const size = draw(4);
      return { first: (draw(32) >> size) << size, size };
    });
    const text = ({ first, size }: { first: number; size: number }): string =>
      `${spelled(first).replace("::0", "::")}/${whole - size}`;
    const constraint = read({ cidr: blocks.map(text) });
    for (let at = 1; at < 32; at++) {
      const is = blocks.some(({ first, size }) => at >= first && at < first + 2 ** size);
      const shown = `${spelled(at)} in ${blocks.map(text).join(" ")}`;
      assert.equal(satisfies(constraint, spelled(at)), is, shown);
    }
  }
});

test("an address of version 6 has the one spelling of RFC 5952", () => {
  const GOOD = ["::", "::1", "1::", "1:0:3:0:5:0:7:0", "0:0:3::", "::4:0:0:0:8", "1:0:0:4::8"];
  const BAD = ["1:0:0:4::7:8", "1::3:4:5:6:7:8", "::3:0:0:0:0:8", "0:0:3:4:5:6:7:8", ":::", "::1:"];
  for (const text of GOOD) {
    const [head = "", tail] = text.split("::");
    const [before, behind] = [head, tail ?? ""].map((half) => (half ? half.split(":") : []));
    const zeros = repeated(8 - before!.length - behind!.length, () => "0");
    const groups = [...before!, ...zeros, ...behind!];
    const bits = groups.map((group) => parseInt(group, 16).toString(2).padStart(16, "0"));
    assert.equal(address(text), `6${bits.join("")}`, text);
    if (tail !== undefined) assert.equal(address(groups.join(":")), undefined, text);
  }
  for (const text of BAD) assert.equal(address(text), undefined, text);
});
