// What needs a person now, the gravest first: what is so, what to make of it, and where to look.
import type { JSX } from "preact";
import { useAnswer } from "./answer";
import type { Need, Row } from "./api";
import { plainNumber } from "./format";
import { Ago } from "./parts";
import { Plot } from "./plot";
import { toSpan } from "./state";
import type { Place } from "./state";

const EVERY = 5000; // milliseconds between two looks at the last hour
const STOPPED = ["stolen", "often"]; // kinds of what is stopped at once

// Rows that say the same of the same, once, where the last of them stands.
export function together(rows: Row[]): Row[] {
  const found = new Map<string, Row>();
  for (const row of rows) {
    const key = JSON.stringify([row.who, row.what, row.code, row.why, row.server]);
    const kept = found.get(key);
    found.set(key, { ...(kept ?? row), times: (kept?.times ?? 0) + 1 });
  }
  return [...found.values()];
}

// All calls of the last hour. What a drag over it chooses is asked for.
export function LastHour(props: {
  rev: string;
  go: (change: Partial<Place>) => void;
}): JSX.Element {
  const { answer: found } = useAnswer("since:1h", "refused", null, props.rev, EVERY, "counts");
  return (
    <section class="panel hour" aria-labelledby="hour-title">
      <div class="panel-head">
        <h2 id="hour-title">The last hour</h2>
        {found && (
          <span class="muted">
            {plainNumber(found.allowed)} allowed, {plainNumber(found.denied)} refused
          </span>
        )}
      </div>
      {!found?.series ? (
        <p class="none">{found === null ? "Reading…" : "No call."}</p>
      ) : (
        <Plot
          series={found.series}
          onSpan={(first, last) => props.go({ q: toSpan([], first, last), by: "decisions" })}
        />
      )}
    </section>
  );
}

export function Needs(props: {
  needs: Need[] | null;
  now: number;
  canAct: boolean;
  go: (change: Partial<Place>) => void;
  onRevoke: (task: string, node: string) => void;
  onSign: () => void;
}): JSX.Element {
  const { go } = props;
  const needs = props.needs?.filter((one) => !one.handled) ?? null;
  const handled = props.needs?.filter((one) => one.handled) ?? [];
  const item = (one: Need): JSX.Element => (
    <li
      key={`${one.kind} ${one.node} ${one.query} ${one.text}`}
      class={one.grave ? "is-grave" : one.handled ? "is-handled" : ""}
    >
      <span class="sign" aria-hidden="true">
        {one.grave ? "▲" : one.handled ? "✓" : "●"}
      </span>
      <div>
        <p>
          {one.grave && <span class="unseen">Grave: </span>}
          <strong>{one.text}</strong>{" "}
          {one.at !== null && (
            <span class="muted">
              last <Ago at={one.at} now={props.now} />
            </span>
          )}
        </p>
        {one.more && <p class="muted">{one.more}</p>}
      </div>
      <span class="where">
        {props.canAct && !one.handled && one.kind === "overlay" && (
          <button type="button" class="small" onClick={props.onSign}>
            Sign it now
          </button>
        )}
        {props.canAct && !one.handled && STOPPED.includes(one.kind) && one.node !== null && one.task !== null && (
          <button
            type="button"
            class="small danger"
            onClick={() => props.onRevoke(one.task ?? "", one.node ?? "")}
          >
            Revoke…<span class="unseen"> for: {one.text}</span>
          </button>
        )}
        {one.task !== null && (
          <button
            type="button"
            class="small"
            onClick={() => go({ view: "now", task: one.task, node: one.node })}
          >
            {one.node === null ? "Task" : "Agent"}
            <span class="unseen"> of: {one.text}</span>
          </button>
        )}
        {one.query !== null && (
          <button
            type="button"
            class="small"
            onClick={() =>
              go(
                one.kind === "unused"
                  ? { q: one.query ?? "", by: "agents", sort: "unused" }
                  : { q: one.query ?? "", by: "decisions" },
              )
            }
          >
            {one.kind === "unused" ? "Which" : "Decisions"}
            <span class="unseen"> of: {one.text}</span>
          </button>
        )}
      </span>
    </li>
  );
  return (
    <section class="panel needs" aria-labelledby="needs-title">
      <div class="panel-head">
        <h2 id="needs-title">What needs you</h2>
      </div>
      {needs === null ? (
        <p class="none">Reading…</p>
      ) : needs.length === 0 ? (
        <p class="none">
          Nothing. No token is used without its key, no server fails, and nobody insists on what it
          may not do.
        </p>
      ) : (
        <ul>{needs.map(item)}</ul>
      )}
      {handled.length > 0 && (
        <>
          <h3>Handled</h3>
          <ul aria-label="Handled">{handled.map(item)}</ul>
        </>
      )}
    </section>
  );
}
