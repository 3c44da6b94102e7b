/**
 * The Python library of this repository. CAPTOKEN_PYTHON names an interpreter that can import it;
 * left out, it is `python3`.
 */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export const PYTHON = process.env["CAPTOKEN_PYTHON"] ?? "python3";
export const REPOSITORY = fileURLToPath(new URL("../../../../", import.meta.url));
export const ENVIRONMENT = { ...process.env, PYTHONPATH: REPOSITORY } as Record<string, string>;

/** Why a test is left out: false where Python has the library, and what else it needs. */
export function missing(...partners: readonly string[]): string | false {
  const modules = ["captoken", ...partners].join(", ");
  try {
    execFileSync(PYTHON, ["-c", `import ${modules}`], { env: ENVIRONMENT, stdio: "ignore" });
    return false;
  } catch {
    return `${PYTHON} has not ${modules}: name one that has in CAPTOKEN_PYTHON`;
  }
}

/** What a program in Python prints of what it is told. */
export const ran = (program: string, input: unknown): unknown =>
  JSON.parse(
    execFileSync(PYTHON, ["-c", program], {
      env: ENVIRONMENT,
      input: JSON.stringify(input),
      encoding: "utf8",
    }),
  );
