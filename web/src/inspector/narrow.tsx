// Narrowing a token in the page, by each keyword that there is. What would be more than the token has
// is told while it is typed: by the library itself, which writes no such link.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Token } from "../../../ports/typescript/src/writing/token.js";
import { caveatsOf } from "../caveats";
import { troubleOf } from "../tried";

// How a value is typed: names with commas between, a text, or JSON as it is.
type Kind = "names" | "text" | "json";

// In the order of docs/keywords.md.
const KEYWORDS: Readonly<Record<string, readonly [Kind, string]>> = {
  tables: ["names", "sales, market.*"],
  operations: ["names", "select, insert"],
  allow: ["json", '{"sales": ["select"]}'],
  columns: ["json", '{"sales": ["id", "amount"]}'],
  rows: ["json", '{"sales": {"region": {"in": ["eu"]}}}'],
  tools: ["json", '{"search": {"query": {"any": true}}}'],
  where: ["json", '{"region": {"in": ["eu"]}}'],
  uses: ["json", "10"],
  budget: ["json", '{"cents": 500}'],
  marks: ["json", '{"private": {"tables": ["crm.*"]}}'],
  forbid: ["json", '[{"in": ["outside"], "after": ["private"]}]'],
  consent: ["json", '[{"by": "…", "for": {"tools": ["mail.send"]}}]'],
  fresh: ["json", "60"],
  expires_in: ["text", "10m"],
  expires_at: ["json", "1767225600"],
  not_before: ["json", "1767225600"],
  audience: ["names", "warehouse"],
  task: ["text", "q3/eu"],
  depth: ["json", "1"],
  delegate_only: ["json", "true"],
};

interface Row {
  readonly keyword: string;
  readonly value: string;
}

const FIRST: Row = { keyword: "tables", value: "" };

function spelled({ keyword, value }: Row): string {
  const [kind] = KEYWORDS[keyword] ?? ["json"];
  if (kind === "json") return value;
  if (kind === "text") return JSON.stringify(value.trim());
  return JSON.stringify(value.split(",").map((name) => name.trim()));
}

// The narrower token; what is wrong; or neither, where nothing is asked for.
function narrowed(held: string, to: string, rows: readonly Row[]): { token: string; trouble: string } {
  const stated = rows.filter((row) => row.value.trim() !== "");
  if (stated.length === 0 && to.trim() === "") return { token: "", trouble: "" };
  try {
    const caveats = caveatsOf(
      `{${stated.map((row) => `${JSON.stringify(row.keyword)}: ${spelled(row)}`).join(", ")}}`,
    );
    const token = Token.parse(held);
    const made =
      to.trim() === "" ? token.attenuate(caveats) : token.delegate({ ...caveats, to: to.trim() });
    return { token: made.serialize(), trouble: "" };
  } catch (error) {
    return { token: "", trouble: troubleOf(error) };
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

export function Narrow(props: { held: string; onLook: (token: string) => void }): JSX.Element {
  const [rows, setRows] = useState<readonly Row[]>([FIRST]);
  const [said, setTo] = useState("");
  const [copied, setCopied] = useState("");
  const key = keyOf(props.held);
  const to = key ? "" : said;
  const { token, trouble } = narrowed(props.held, to, rows);
  const change = (at: number, change: Partial<Row>): void =>
    setRows(rows.map((row, other) => (other === at ? { ...row, ...change } : row)));
  return (
    <section class="panel narrow" aria-labelledby="narrow-title">
      <h2 id="narrow-title">Narrow it</h2>
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
