// Small things that all views are made of.
import { createContext } from "preact";
import type { ComponentChildren, JSX } from "preact";
import { useContext, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Row, State } from "./api";
import { ago, BASES, exact, fromField, iso, minuteOf, STATES, timeOfDay } from "./format";
import { hashOfDecision } from "./state";

// The time of day; and the day, if it is another one.
const spelled = (at: number, now: number): string =>
  exact(at).slice(0, 10) === exact(now).slice(0, 10) ? timeOfDay(at) : minuteOf(at).slice(5);

// "12 s ago", with the exact time beside it, or in its title where there is no room.
export function Ago(props: { at: number; now: number; both?: boolean }): JSX.Element {
  const { at, now } = props;
  return (
    <time dateTime={iso(at)} title={exact(at)}>
      {ago(at, now)}
      {props.both && <span class="exact"> {spelled(at, now)}</span>}
    </time>
  );
}

// With `brief`, of what is as it should be the sign alone is seen.
export function StateMark(props: { state: State; brief?: boolean }): JSX.Element {
  const { sign, says } = STATES[props.state] ?? { sign: "?", says: props.state };
  return (
    <span class={`state is-${props.state}`}>
      <span aria-hidden="true">{sign}</span>{" "}
      <span class={props.brief && props.state === "live" ? "unseen" : ""}>{says}</span>
    </span>
  );
}

export function Basis(props: { basis: string }): JSX.Element {
  return (
    <span class={`basis is-${props.basis}`} title={BASES[props.basis] ?? ""}>
      {props.basis}
    </span>
  );
}

// What is left of something, as a bar that runs down. The text beside it says the same.
export function Bar(props: { left: number; label?: string }): JSX.Element {
  const left = Math.round(Math.min(1, Math.max(0, props.left)) * 100);
  const kind = left <= 10 ? "low" : left <= 33 ? "middle" : "high";
  const named =
    props.label === undefined
      ? { "aria-hidden": true }
      : {
          role: "meter" as const,
          "aria-label": props.label,
          "aria-valuenow": left,
          "aria-valuemin": 0,
          "aria-valuemax": 100,
          "aria-valuetext": `${left} % left`,
        };
  return (
    <span class="bar" {...named}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" focusable="false">
        <rect class="bar-all" width="100" height="6" />
        <rect class={`bar-left is-${kind}`} width={left} height="6" />
      </svg>
    </span>
  );
}

export function Outcome(props: { row: { allowed: boolean; code: string } }): JSX.Element {
  return props.row.allowed ? (
    <span class="outcome">
      <span class="ok" aria-hidden="true">
        ✓
      </span>{" "}
      allowed
    </span>
  ) : (
    <span class="outcome">
      <span class="bad" aria-hidden="true">
        ✕
      </span>{" "}
      refused{props.row.code && ": "}
      <code>{props.row.code}</code>
    </span>
  );
}

// How decisions are told where there are several servers: each by its own, and what came with the
// same request can be looked at.
export const Among = createContext<{
  isOneOfMany: boolean;
  onTrace: ((trace: { text: string; key: string }) => void) | null;
}>({ isOneOfMany: false, onTrace: null });

// Where it was decided, and what else came with the same request.
function Whence(props: { row: Row }): JSX.Element | null {
  const { isOneOfMany, onTrace } = useContext(Among);
  const { server, trace } = props.row;
  if (!isOneOfMany || server === null) return null;
  return (
    <span class="whence">
      at {server}
      {trace !== null && onTrace !== null && (
        <>
          ,{" "}
          <button
            type="button"
            class="link"
            title={`trace ${trace.text}`}
            onClick={() => onTrace(trace)}
          >
            same request<span class="unseen"> as {props.row.what}</span>
          </button>
        </>
      )}
    </span>
  );
}

// Who asked, and along whom the token came to it.
function Who(props: { who: string }): JSX.Element {
  const at = props.who.lastIndexOf(" > ") + 3;
  if (at < 3) return props.who ? <>{props.who}</> : <span class="muted">not known</span>;
  return (
    <>
      <span class="muted">{props.who.slice(0, at)}</span>
      {props.who.slice(at)}
    </>
  );
}

// Decisions, one a row.
export function Decisions(props: {
  rows: Row[];
  now: number;
  caption: string;
  who?: boolean;
  // Of a preview, where all rows have the same outcome, for the same reason.
  brief?: boolean;
}): JSX.Element {
  if (props.rows.length === 0) return <p class="none">None.</p>;
  return (
    <table class={`decisions${props.who ? " with-who" : ""}`}>
      <caption class="unseen">{props.caption}</caption>
      <thead>
        <tr>
          <th scope="col">When</th>
          {props.who && <th scope="col">Who</th>}
          <th scope="col">What</th>
          {!props.brief && <th scope="col">Outcome, and why</th>}
        </tr>
      </thead>
      <tbody>
        {props.rows.map((row, place) => (
          <tr
            key={row.key ?? `${place}`}
            class={row.allowed || props.brief ? "" : "refused"}
          >
            <td class="when">{row.at !== null && <Ago at={row.at} now={props.now} both />}</td>
            {props.who && (
              <td class="who">
                <Who who={row.who} />
              </td>
            )}
            <td class="what">
              {row.key === null ? row.what : <a href={hashOfDecision(row.key)}>{row.what}</a>}
              {" "}
              {row.times !== undefined && row.times > 1 && (
                <span class="times">
                  <span aria-hidden="true">×</span>
                  {row.times}
                  <span class="unseen"> times</span>
                </span>
              )}
              <Whence row={row} />
            </td>
            {!props.brief && (
              <td class="why">
                <Outcome row={row} />{" "}
                {row.why && (
                  <span class="reason">
                    {row.why}
                    {row.added_by && <span class="added-by"> (added by {row.added_by})</span>}
                  </span>
                )}
              </td>
            )}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

// A button that can be off. It keeps the focus then, which one that is disabled would lose.
export function Press(props: {
  off: boolean;
  kind?: "danger" | "small";
  onPress: () => void;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <button
      type="button"
      class={props.kind ?? ""}
      aria-disabled={props.off}
      onClick={() => {
        if (!props.off) props.onPress();
      }}
    >
      {props.children}
    </button>
  );
}

// A dialog that traps the focus and gives it back. Esc and Cancel close it.
export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}): JSX.Element {
  const box = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = box.current;
    // A browser may close it without asking: the page hears of that, too.
    const closed = (): void => props.onClose();
    dialog?.addEventListener("close", closed);
    dialog?.showModal();
    return () => {
      dialog?.removeEventListener("close", closed);
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const cancel = (event: Event): void => {
    event.preventDefault();
    props.onClose();
  };
  return (
    <dialog
      ref={box}
      class={props.wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={cancel}
    >
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

// A time that is typed: taken when Enter is pressed, or the field is left.
export function TimeField(props: {
  id: string;
  label: string;
  at: number;
  onTime: (at: number) => void;
}): JSX.Element {
  // The page is drawn anew each second: what is being typed stays.
  const [typed, setTyped] = useState<string | null>(null);
  const take = (): void => {
    const at = typed === null ? null : fromField(typed);
    setTyped(null);
    if (at !== null && at !== props.at) props.onTime(at);
  };
  return (
    <input
      id={props.id}
      class="time"
      type="text"
      aria-label={props.label}
      placeholder="2026-12-01 09:30:00"
      autocomplete="off"
      value={typed ?? exact(props.at)}
      onInput={(event) => setTyped(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key === "Enter") take();
      }}
      onBlur={take}
    />
  );
}

// Evidence of a task or an agent, as one file: up to a time, where one looks back.
export function Export(props: { of: Record<string, string>; at: number | null }): JSX.Element {
  const asked = new URLSearchParams(props.of);
  if (props.at !== null) asked.set("at", String(props.at));
  return (
    <a class="button" href={`export?${asked}`} download>
      Export
    </a>
  );
}

// Puts a text into the clipboard, and says so.
export function Copy(props: { text: string; tell: (said: string) => void }): JSX.Element {
  const copy = (): void => {
    navigator.clipboard.writeText(props.text).then(
      () => props.tell("Copied."),
      () => props.tell("The browser did not let it be copied: select the text."),
    );
  };
  return (
    <button type="button" class="small" onClick={copy}>
      Copy
    </button>
  );
}
