/** The families of `spec/vectors`. */

import { readFileSync, readdirSync } from "node:fs";

import type { Vector } from "./adapter.js";

const FOLDER = new URL("../../../../spec/vectors/", import.meta.url);

export interface Family {
  readonly file: string;
  readonly vectors: readonly Vector[];
}

export function families(): Family[] {
  const files = readdirSync(FOLDER).filter((each) => each.endsWith(".json"));
  return files.sort().map((file) => ({
    file,
    vectors: (JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) as Family).vectors,
  }));
}
