// Keys that do something by themselves, and the page that tells of them and of questions.
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

// How one asks.
export function Words(): JSX.Element {
  return (
    <dl class="help">
      <dt>table: operation: tool: code:</dt>
      <dd>what was asked for, and the code of the answer</dd>
      <dt>agent: task: subject: token:</dt>
      <dd>who asked; a task stands for those below it</dd>
      <dt>refused, allowed</dt>
      <dd>what came of it</dd>
      <dt>since: until:</dt>
      <dd>when: 10m, 2h, 1d ago, or 2026-12-01T09:30</dd>
      <dt>sales*</dt>
      <dd>whatever begins so; a word alone is looked for in all names</dd>
    </dl>
  );
}

export function Help(props: { onClose: () => void }): JSX.Element {
  const [off, setOff] = useState(areOff);
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => close.current?.focus(), []);
  return (
    <Dialog title="Questions and keys" onClose={props.onClose}>
      <h3>Questions</h3>
      <Words />
      <h3>Keys</h3>
      <dl class="help">
        <dt>/</dt>
        <dd>to the question</dd>
        <dt>j, k</dt>
        <dd>to the next row, to the one before</dd>
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
