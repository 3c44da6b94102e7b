// Keys that do something by themselves, and the page that tells of them and of questions.
import { Fragment } from "preact";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Dialog } from "./parts";

// What `j` and `k` go through.
const ROWS = ".needs .where > :first-child, .decisions .what a, .groups td:first-child button";
const OFF = "captoken-keys-off";

// Whoever speaks to the machine can turn them off: a word would press them (WCAG 2.1.4).
function areOff(): boolean {
  try {
    return localStorage.getItem(OFF) !== null;
  } catch {
    return false;
  }
}

function turn(off: boolean): void {
  try {
    if (off) localStorage.setItem(OFF, "1");
    else localStorage.removeItem(OFF);
  } catch {
    // A browser that keeps nothing has them on.
  }
}

export function useKeys(onHelp: () => void): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const target = event.target as Element;
      const isTyping = target.closest("input, textarea, select, dialog") !== null;
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey || areOff()) return;
      if (event.key === "/") {
        document.getElementById("query")?.focus();
      } else if (event.key === "?") {
        onHelp();
      } else if (event.key === "j" || event.key === "k") {
        const beside = document.querySelector<HTMLElement>(event.key === "j" ? ".is-next" : ".is-before");
        beside?.click();
        const rows = [...document.querySelectorAll<HTMLElement>(ROWS)];
        const at = rows.indexOf(document.activeElement as HTMLElement);
        const to = event.key === "j" ? at + 1 : Math.max(0, at - 1);
        rows[Math.min(to, rows.length - 1)]?.focus();
      } else {
        return;
      }
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

// How one asks: each word, and what it finds.
const WORDS: readonly (readonly [string, string])[] = [
  ["table:sales", "decisions on this table"],
  ["operation:select", "select, insert, update or delete"],
  ["tool:send_mail", "calls of this tool"],
  ["code:argument", "what was refused for this reason"],
  ["server:warehouse", "what this server decided, by the name of its trail"],
  ["agent:sales-agent", "what this agent asked for"],
  ["task:q3", "a task, and those below it: q3/eu"],
  ["subject:user:jane", "whose tasks they are"],
  ["token:UKd7x…", "by the id of a token"],
  ["refused, allowed", "what came of it"],
  ["since:10m until:2m", "when: 30s, 10m, 2h, 1d ago, or 2026-12-01T09:30 in UTC"],
  ["-code:argument", "a minus: all but that. Before any word but since: and until:"],
  ["sales*", "a star: whatever begins so"],
  ['"sales*"', "in quotes, as a JSON string: that very name"],
  ["mail", "any other word: what has it in a name"],
];

export function Words(): JSX.Element {
  return (
    <>
      <dl class="help">
        {WORDS.map(([word, finds]) => (
          <Fragment key={word}>
            <dt>{word}</dt>
            <dd>{finds}</dd>
          </Fragment>
        ))}
      </dl>
      <p class="muted">
        Two values of one key: either of them. Two keys: both. A token that is pasted leads to its agent.
      </p>
    </>
  );
}

export function Help(props: { onClose: () => void }): JSX.Element {
  const [off, setOff] = useState(areOff);
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => close.current?.focus(), []);
  return (
    <Dialog title="Questions and keys" wide onClose={props.onClose}>
      <h3>Questions</h3>
      <Words />
      <h3>Keys</h3>
      <dl class="help">
        <dt>/</dt>
        <dd>to the question</dd>
        <dt>j, k</dt>
        <dd>to the next row, or the one before; to the next decision of the list</dd>
        <dt>?</dt>
        <dd>this page</dd>
        <dt>↑ ↓ ← → Home End</dt>
        <dd>in the tree; letters go to the agent whose name begins with them</dd>
      </dl>
      <label class="check">
        <input
          type="checkbox"
          checked={!off}
          onChange={(event) => {
            turn(!event.currentTarget.checked);
            setOff(!event.currentTarget.checked);
          }}
        />
        single keys do something
      </label>
      <div class="buttons">
        <button type="button" ref={close} class="default" onClick={props.onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
