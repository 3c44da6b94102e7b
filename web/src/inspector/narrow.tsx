// Narrowing a token in the page, by each keyword that there is. What would be more than the token has
// is told while it is typed: by the library itself, which writes no such link.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { UsageError } from "../../../ports/typescript/src/format/errors.js";
import { parseJson } from "../../../ports/typescript/src/format/json.js";
import { Token } from "../../../ports/typescript/src/writing/token.js";
import { caveatsOf } from "../caveats";
import { span } from "../plain";
import { troubleOf } from "../tried";

// How a value is typed: names with commas between, a text, a number, a time, or JSON as it is.
type Kind = "names" | "text" | "number" | "time" | "json";

// In the order of docs/keywords.md.
const KEYWORDS: Readonly<Record<string, readonly [Kind, string, string]>> = {
  tables: ["names", "sales, market.*", "only these tables"],
  operations: ["names", "select, insert", "only these operations"],
  allow: ["json", '{"sales": ["select"]}', "by table, only these operations"],
  columns: ["json", '{"sales": ["id", "amount"]}', "by table, only these columns"],
  rows: ["json", '{"sales": {"region": {"in": ["eu"]}}}', "by table, only rows like these"],
  tools: ["json", '{"search": {"query": {"any": true}}}', "only these tools, with these arguments"],
  where: ["json", '{"region": {"in": ["eu"]}}', "only requests with these attributes"],
  uses: ["number", "10", "how many calls in all"],
  budget: ["json", '{"cents": 500}', "how much in all, by unit"],
  marks: ["json", '{"private": {"tables": ["crm.*"]}}', "what marks the task"],
  forbid: ["json", '[{"in": ["outside"], "after": ["private"]}]', "what is closed after a mark"],
  consent: ["json", '[{"by": "…", "for": {"tools": ["mail.send"]}}]', "what a person has to say yes to"],
  fresh: ["number", "60", "at most so many seconds since the overlay was signed"],
  expires_in: ["text", "10m", "for how long from now"],
  expires_at: ["time", "2026-12-01 09:30", "until when, in UTC"],
  not_before: ["time", "2026-12-01 09:30", "from when on, in UTC"],
  audience: ["names", "warehouse", "only at these servers"],
  task: ["text", "q3/eu", "in this task, or one below it"],
  depth: ["number", "1", "how often it may be handed on"],
  delegate_only: ["json", "true", "for handing on, not for use"],
};

interface Row {
  readonly keyword: string;
  readonly value: string;
}

const FIRST: Row = { keyword: "tables", value: "" };

// As JSON. What is written otherwise is told with an example.
function spelled({ keyword, value }: Row): string {
  const [kind, example = ""] = KEYWORDS[keyword] ?? ["json"];
  if (kind === "number" && !/^\s*\d+\s*$/.test(value)) {
    throw new UsageError(`${keyword}: write a whole number, as ${example}.`);
  }
  if (kind === "time") return String(timeOf(keyword, value));
  if (kind === "json") {
    try {
      parseJson(value);
    } catch {
      throw new UsageError(`${keyword}: write it as ${example}.`);
    }
  }
  if (kind === "json" || kind === "number") return value.trim();
  if (kind === "text") return JSON.stringify(value.trim());
  return JSON.stringify(value.split(",").map((name) => name.trim()));
}

// A date, with or without a time of day, in UTC; or seconds since 1970, as tokens have them.
function timeOf(keyword: string, value: string): number {
  const text = value.trim();
  const isDate = /^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?Z?$/.test(text);
  const stated = text.replace(" ", "T").replace(/Z?$/, text.length > 11 ? "Z" : "");
  const at = /^\d{9,12}$/.test(text) ? Number(text) : isDate ? Date.parse(stated) / 1000 : NaN;
  if (Number.isNaN(at)) throw new UsageError(`${keyword}: write a time in UTC, as 2026-12-01 09:30.`);
  return at;
}

// What the library calls a keyword, as the form does.
const asTyped = (trouble: string): string =>
  trouble.replace(
    /\b(expires|not|delegate)(In|At|Before|Only)\b/g,
    (_, one: string, two: string) => `${one}_${two.toLowerCase()}`,
  );

// The narrower token; what is wrong; or neither, where nothing is asked for.
function narrowed(
  held: string,
  to: string,
  rows: readonly Row[],
  now: number,
): { token: string; trouble: string } {
  const stated = rows.filter((row) => row.value.trim() !== "");
  if (stated.length === 0 && to.trim() === "") return { token: "", trouble: "" };
  try {
    const caveats = caveatsOf(
      `{${stated.map((row) => `${JSON.stringify(row.keyword)}: ${spelled(row)}`).join(", ")}}`,
    );
    const token = Token.parse(held);
    const end = token.unverified.expiresAt;
    const made =
      to.trim() === "" ? token.attenuate(caveats) : token.delegate({ ...caveats, to: to.trim() });
    // A later end takes nothing away, though a link may say it.
    const later = stated.find(({ keyword }) => keyword === "expires_in" || keyword === "expires_at");
    if (later && end !== undefined && made.unverified.expiresAt === end) {
      const left = end > now ? `${span(end - now)} are left` : "it has expired";
      throw new UsageError(`${later.keyword}: that is more than it has: ${left}.`);
    }
    return { token: made.serialize(), trouble: "" };
  } catch (error) {
    return { token: "", trouble: asTyped(troubleOf(error)) };
  }
}

// The key that a token is bound to. Whoever hands it on signs with the private one.
function keyOf(held: string): string {
  try {
    return Token.parse(held).unverified.key ?? "";
  } catch {
    return "";
  }
}

export function Narrow(props: {
  held: string;
  now: number;
  onLook: (token: string) => void;
  // To the token that was pasted, where this one was made of it here.
  onBack: (() => void) | undefined;
}): JSX.Element {
  const [rows, setRows] = useState<readonly Row[]>([FIRST]);
  const [said, setTo] = useState("");
  const [copied, setCopied] = useState("");
  const key = keyOf(props.held);
  const to = key ? "" : said;
  const { token, trouble } = narrowed(props.held, to, rows, props.now);
  const change = (at: number, change: Partial<Row>): void =>
    setRows(rows.map((row, other) => (other === at ? { ...row, ...change } : row)));
  return (
    <section class="panel narrow" aria-labelledby="narrow-title">
      <h2 id="narrow-title">Narrow it</h2>
      {props.onBack && (
        <p>
          This is the narrower token.{" "}
          <button type="button" class="small" onClick={props.onBack}>
            Back to the pasted one
          </button>
        </p>
      )}
      <p class="hint">
        Each line takes away. Nothing can be added: a line that would be more than the token has is
        refused while you type.
      </p>
      <ul>
        {rows.map((row, at) => (
          <li key={at}>
            <select
              aria-label={`Keyword ${at + 1}`}
              value={row.keyword}
              onChange={(event) => change(at, { keyword: event.currentTarget.value })}
            >
              {Object.keys(KEYWORDS).map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
            <input
              aria-label={`What ${row.keyword} is narrowed to`}
              value={row.value}
              placeholder={KEYWORDS[row.keyword]?.[1] ?? ""}
              spellcheck={false}
              autocomplete="off"
              onInput={(event) => change(at, { value: event.currentTarget.value })}
            />
            <span class="hint">{KEYWORDS[row.keyword]?.[2]}</span>
            {rows.length > 1 && (
              <button
                type="button"
                class="small"
                aria-label={`Remove ${row.keyword}`}
                onClick={() => setRows(rows.filter((_, other) => other !== at))}
              >
                ×
              </button>
            )}
          </li>
        ))}
      </ul>
      <p>
        <button type="button" class="small" onClick={() => setRows([...rows, { keyword: "expires_in", value: "" }])}>
          One more keyword
        </button>
      </p>
      {key ? (
        <p class="hint bound">
          It is bound to the key <code>{key}</code>. To narrow it takes no key, and the narrower token is
          bound to the same one. To hand it to another agent, its holder signs with the private key, which
          this page does not take: <code>token.delegate(to=…, key=…, signer=…)</code>.
        </p>
      ) : (
        <>
          <label for="narrow-to">Handed to (left empty: nobody)</label>
          <input
            id="narrow-to"
            value={said}
            spellcheck={false}
            autocomplete="off"
            onInput={(event) => setTo(event.currentTarget.value)}
          />
        </>
      )}
      <div role="status">{trouble && <p class="problem">{trouble}</p>}</div>
      {token && (
        <>
          <label for="narrow-token">The narrower token</label>
          <textarea id="narrow-token" rows={4} readOnly value={token} />
          <p class="made">
            <button type="button" onClick={() => props.onLook(token)}>
              Look at this one
            </button>{" "}
            <button
              type="button"
              onClick={() => {
                navigator.clipboard.writeText(token).then(
                  () => setCopied(token),
                  () => document.querySelector<HTMLTextAreaElement>("#narrow-token")?.select(),
                );
              }}
            >
              Copy
            </button>{" "}
            <span role="status">{copied === token && "Copied."}</span>
          </p>
        </>
      )}
    </section>
  );
}
