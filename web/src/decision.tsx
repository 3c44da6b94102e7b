// One decision: what it was, along which links it came about, and what would have done.
import type { JSX } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { DecisionView } from "./api";
import { plainNumber } from "./format";
import { Ago, Among, Copy, Outcome } from "./parts";
import { beside } from "./state";
import type { Place } from "./state";

export function Decision(props: {
  of: string;
  now: number;
  go: (change: Partial<Place>, replace?: boolean) => void;
  tell: (said: string) => void;
}): JSX.Element {
  const { now, go } = props;
  const { onTrace } = useContext(Among);
  const [found, setFound] = useState<{ of: string; view: DecisionView } | null>(null);
  const [trouble, setTrouble] = useState("");
  const title = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    let isOver = false;
    setTrouble("");
    api.decision(props.of).then(
      (view) => {
        if (!isOver) setFound({ of: props.of, view });
      },
      (error: Error) => {
        if (!isOver) setTrouble(error.message);
      },
    );
    return () => {
      isOver = true;
    };
  }, [props.of]);
  const view = found?.of === props.of ? found.view : null;
  // Who reads by ear hears where this is.
  useEffect(() => title.current?.focus(), [view === null]);
  if (view === null) {
    return (
      <section class="panel decision" aria-labelledby="decision-title">
        <h2 id="decision-title">Decision</h2>
        {trouble ? (
          <p class="bad" role="alert">
            {trouble}
          </p>
        ) : (
          <p class="none">Reading…</p>
        )}
      </section>
    );
  }
  const { row, links, reasons, consents } = view;
  const elsewhere = reasons.filter((one) => one.link === null);
  const places = [...new Set(reasons.flatMap((one) => one.link ?? []))];
  return (
    <section class="panel decision" aria-labelledby="decision-title">
      <div class="panel-head">
        <h2 id="decision-title" ref={title} tabIndex={-1}>
          <Outcome row={row} /> <span class="name">{row.what}</span>
        </h2>
        <span class="steps">
          {([-1, 1] as const).map((step) => {
            const key = beside(props.of, step);
            return (
              key !== null && (
                <button
                  type="button"
                  key={step}
                  class={`small ${step > 0 ? "is-next" : "is-before"}`}
                  onClick={() => go({ decision: key }, true)}
                >
                  {step > 0 ? "Next" : "Before"}
                </button>
              )
            );
          })}
          <button type="button" class="small" onClick={() => history.back()}>
            Back
          </button>
        </span>
      </div>
      <p class="facts">
        <span class="name">{row.who}</span>
        {view.task.text && <span>task {view.task.text}</span>}
        {view.subject && <span>for {view.subject}</span>}
        {row.at !== null && (
          <span>
            {view.moment}, <Ago at={row.at} now={now} />
          </span>
        )}
      </p>
      <div class="actions">
        {view.task.key !== null && view.hop !== null && (
          <button type="button" onClick={() => go({ view: "now", at: null, task: view.task.key, node: view.hop, q: "" })}>
            The agent
          </button>
        )}
        {view.task.key !== null && row.at !== null && (
          <button
            type="button"
            onClick={() => go({ view: "then", at: row.at, task: view.task.key, node: view.hop, q: "" })}
          >
            History at this moment
          </button>
        )}
        {row.trace !== null && onTrace !== null && (
          <button type="button" onClick={() => row.trace && onTrace(row.trace)}>
            Same request
          </button>
        )}
        {!row.allowed && (
          <button type="button" onClick={() => go({ q: `code:${row.code} refused`, by: "decisions" })}>
            All with this code
          </button>
        )}
      </div>

      {elsewhere.length > 0 && (
        <ul class="stopped">
          {elsewhere.map((one) => (
            <li key={one.text}>
              <code>{one.code}</code> {one.text}
              {one.added_by !== null && ` (added by ${one.added_by})`}
            </li>
          ))}
        </ul>
      )}
      {consents.length > 0 && (
        <>
          <h3>A person has consented</h3>
          <ul class="may">
            {consents.map((one) => (
              <li key={one.by}>
                <code>{one.by}</code> said yes to <strong>{row.what}</strong>, given {one.given}, for use until{" "}
                {one.until}
                {one.link !== null && `; link ${one.link} asks for it`}
              </li>
            ))}
          </ul>
        </>
      )}
      <h3>{row.allowed ? "By these links" : "Along these links, each asked in turn"}, as they were then</h3>
      {links.length === 0 ? (
        <p class="none">The token is described in none of these trails.</p>
      ) : (
        <ol class="chain" start={0}>
          {links.map((link) => (
            <li key={link.id} class={link.stopped.length ? "is-stop" : ""}>
              <p>
                <strong>Link {link.place}</strong>, added by <span class="name">{link.added_by}</span>
                {link.holder !== link.added_by && (
                  <>
                    {" "}
                    for <span class="name">{link.holder}</span>
                  </>
                )}
              </p>
              <ul class="may" aria-label={`What link ${link.place} says`}>
                {link.says.map((line) => (
                  <li key={line}>{line}</li>
                ))}
                {link.says.length === 0 && <li class="muted">takes nothing away</li>}
              </ul>
              {link.stopped.map((one, place) => (
                <p key={place} class="bad">
                  <span aria-hidden="true">✕ </span>
                  {link.place === firstOf(reasons) ? "Stopped here: " : "Would stop it, too: "}
                  {one.text}
                </p>
              ))}
            </li>
          ))}
        </ol>
      )}

      {view.needs !== null && (
        <>
          <h3>
            The smallest grant that would have done
            {places.length > 0 && `, in link ${places.join(" and ")}`}
          </h3>
          <div class="copied">
            <pre tabIndex={0} aria-label="The smallest grant that would have done">
              {view.needs}
            </pre>
            <Copy text={view.needs} tell={props.tell} />
          </div>
        </>
      )}

      <h3>The record</h3>
      <dl class="record">
        <dt>Trail</dt>
        <dd>
          {row.server}, record {row.seq === null ? "" : plainNumber(row.seq)}
        </dd>
        <dt>Digest</dt>
        <dd>
          <code>{view.digest}</code>
        </dd>
        {view.id && (
          <>
            <dt>Denial</dt>
            <dd>
              <code>{view.id}</code>
            </dd>
          </>
        )}
        {row.trace !== null && (
          <>
            <dt>Trace</dt>
            <dd>
              <code>{row.trace.text}</code>
            </dd>
          </>
        )}
        {view.token && (
          <>
            <dt>Token</dt>
            <dd>
              <code>{view.token}</code>
            </dd>
          </>
        )}
        {view.marks.length > 0 && (
          <>
            <dt>Sets marks</dt>
            <dd>{view.marks.join(", ")}</dd>
          </>
        )}
      </dl>
      <details>
        <summary>As JSON</summary>
        <div class="copied">
          <pre tabIndex={0} aria-label="The record">
            {view.json}
          </pre>
          <Copy text={view.json} tell={props.tell} />
        </div>
      </details>
    </section>
  );
}

// The link that stopped it: of the first reason.
const firstOf = (reasons: DecisionView["reasons"]): number | null => reasons[0]?.link ?? null;
