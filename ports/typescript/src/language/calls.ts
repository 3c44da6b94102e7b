/** What the `tools` caveats of links permit together: pattern to call, in normal form (19.3). */

import { byCodePoint } from "../format/bytes.js";
import { canonical, type Json, type JsonObject } from "../format/json.js";
import type { Argument, Arguments } from "./caveats.js";
import {
  NOTHING,
  constraintJson,
  isNothing,
  meetConstraints,
  normalConstraint,
} from "./constraints.js";
import { decided, meetMaps, normal } from "./patterns.js";

/** Nothing, or arguments that are free or a closed world. */
export type Call = "nothing" | Arguments;
export type CallMap = ReadonlyMap<string, Call>;

export const OPEN_CALLS: CallMap = new Map([["*", "free"]]);

const UNNAMED: Argument = { constraint: NOTHING, optional: true };

/** An argument that nothing satisfies is absent; where it must be present, the call is nothing. */
function normalCall(call: Call): Call {
  if (typeof call === "string") return call;
  const kept = new Map<string, Argument>();
  for (const [name, { constraint, optional }] of call) {
    const normalOne = normalConstraint(constraint);
    if (!isNothing(normalOne)) kept.set(name, { constraint: normalOne, optional });
    else if (!optional) return "nothing";
  }
  return kept;
}

export function bothCalls(one: Call, two: Call): Call {
  if (one === "nothing" || two === "nothing") return "nothing";
  if (one === "free") return two;
  if (two === "free") return one;
  const made = new Map<string, Argument>();
  for (const name of new Set([...one.keys(), ...two.keys()])) {
    const mine = one.get(name) ?? UNNAMED;
    const its = two.get(name) ?? UNNAMED;
    made.set(name, {
      constraint: meetConstraints(mine.constraint, its.constraint),
      optional: mine.optional && its.optional,
    });
  }
  return normalCall(made);
}

function argumentJson({ constraint, optional }: Argument): JsonObject {
  const made = constraintJson(constraint);
  return optional ? made.set("optional", true) : made;
}

export function callJson(call: Call): JsonObject {
  if (call === "free") return new Map();
  if (call === "nothing") {
    return new Map([["_", argumentJson({ constraint: NOTHING, optional: false })]]);
  }
  if (call.size === 0) return new Map([["_", argumentJson(UNNAMED)]]);
  return new Map(
    [...call].map(([name, argument]): [string, Json] => [name, argumentJson(argument)]),
  );
}

/** Of two in normal form. */
export const sameCall = (one: Call, two: Call): boolean =>
  canonical(callJson(one)) === canonical(callJson(two));

const normalCalls = (map: CallMap): CallMap => normal(map, "nothing" as Call, sameCall);

export const meetCalls = (one: CallMap, two: CallMap): CallMap =>
  normalCalls(meetMaps(one, two, "nothing" as Call, bothCalls));
export const callAt = (map: CallMap, key: string): Call => decided(map, key, "nothing");

export const callsOf = (tools: ReadonlyMap<string, Arguments>): CallMap =>
  normalCalls(new Map([...tools].map(([pattern, call]) => [pattern, normalCall(call)])));

export function callsJson(map: CallMap): JsonObject {
  const entries = [...normalCalls(map)].sort(([one], [two]) => byCodePoint(one, two));
  return new Map([
    ["tools", new Map(entries.map(([pattern, call]): [string, Json] => [pattern, callJson(call)]))],
  ]);
}
