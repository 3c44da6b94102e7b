// One question over everything: a line of words, each a chip, and what it found.
import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { useAnswer } from "./answer";
import * as api from "./api";
import type { Answer } from "./api";
import { count, plainNumber } from "./format";
import { Paged } from "./paged";
import { Ago, StateMark } from "./parts";
import { Plot } from "./plot";
import { Words } from "./keys";
import { plain } from "./plain";
import { BYS, SORTS, toSpan } from "./state";
import { holdsToken } from "./tokens";
import type { By, Place, Sort } from "./state";

// As `captoken.cli.console.queries` splits it.
const WORD = /-?(?:[a-z]+:)?(?:"(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)|\S+/g;

export const wordsOf = (text: string): string[] => text.match(WORD) ?? [];

// A word that is whole: no key without a value, no quote that is open.
const isWhole = (word: string): boolean =>
  !word.endsWith(":") && (word.match(/(?<!\\)"/g)?.length ?? 0) % 2 === 0;

// A value that is chosen narrows: it stands in place of what was said of its key. A minus adds.
function withWord(words: string[], word: string): string {
  const key = word.slice(0, word.indexOf(":") + 1);
  const kept = words.filter((one) => one !== word && (word.startsWith("-") || !one.startsWith(key)));
  return [...kept, word].join(" ");
}

// A value as it is typed: in quotes, in ASCII, unless it is a plain name.
export const spelled = (value: string): string =>
  /^[\w./@+-][\w./:@+-]*$/.test(value)
    ? value
    : JSON.stringify(value).replace(
        /[^\x20-\x7e]/g,
        (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
      );

export function QueryBar(props: {
  q: string;
  onAsk: (q: string) => void;
  onHelp: () => void;
  onToken: (text: string) => void;
}): JSX.Element {
  const id = useId();
  const [typed, setTyped] = useState("");
  const [offered, setOffered] = useState<string[]>([]);
  const [active, setActive] = useState(-1);
  const [isOpen, setOpen] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const chips = wordsOf(props.q);

  useEffect(() => {
    if (!isOpen) return;
    let isOver = false;
    const timer = setTimeout(() => {
      api.complete(typed).then(
        (found) => {
          if (isOver) return;
          setOffered(found.words.filter((word) => word !== typed));
          setActive(-1);
        },
        () => setOffered([]),
      );
    }, 80);
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [typed, isOpen, props.q]);

  const ask = (words: string[]): void => props.onAsk(words.join(" "));
  const take = (word: string): void => {
    if (word.endsWith(":")) {
      setTyped(word);
      return;
    }
    setTyped("");
    setOpen(false);
    if (word.trim()) ask([...chips, word.trim()]);
  };
  const remove = (place: number): void => {
    ask(chips.filter((_, other) => other !== place));
    input.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const chosen = isOpen ? offered[active] : undefined;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      const most = offered.length;
      setOpen(true);
      if (most) setActive((active + step + most + (active < 0 && step < 0 ? 1 : 0)) % most);
    } else if (event.key === "Enter") {
      take(chosen ?? typed);
    } else if (event.key === "Tab" && chosen !== undefined) {
      take(chosen);
    } else if (event.key === " " && typed.trim() !== "" && isWhole(typed)) {
      take(typed);
    } else if (event.key === "Backspace" && typed === "" && chips.length) {
      setTyped(chips.at(-1) ?? "");
      ask(chips.slice(0, -1));
    } else if (event.key === "Escape" && isOpen) {
      setOpen(false);
    } else {
      return;
    }
    event.preventDefault();
  };
  // A text with a token in it becomes no question: all of it is taken out of the field.
  const isTaken = (text: string): boolean => {
    if (!holdsToken(text)) return false;
    if (input.current) input.current.value = "";
    setTyped("");
    setOpen(false);
    props.onToken(text);
    return true;
  };
  const isShown = isOpen && offered.length > 0;
  return (
    <search class="query">
      <ul class="chips" aria-label="What is asked for">
        {chips.map((chip, place) => (
          <li key={`${chip}-${place}`} class={/^-./.test(chip) ? "chip is-not" : "chip"}>
            <span>{plain(chip)}</span>
            <button type="button" aria-label={`Remove ${plain(chip)}`} onClick={() => remove(place)}>
              <span aria-hidden="true">×</span>
            </button>
          </li>
        ))}
      </ul>
      <input
        ref={input}
        id="query"
        type="text"
        role="combobox"
        aria-label="Ask about decisions, agents and tasks"
        aria-expanded={isShown}
        aria-controls={`${id}-offered`}
        aria-autocomplete="list"
        aria-activedescendant={isShown && active >= 0 ? `${id}-${active}` : undefined}
        placeholder={chips.length ? "" : "table:customers refused since:10m, or a token"}
        autocomplete="off"
        spellcheck={false}
        value={typed}
        onInput={(event) => {
          const text = event.currentTarget.value;
          if (isTaken(text)) return;
          // What is pasted may be several words.
          const words = wordsOf(text);
          if (words.length > 1 && words.every(isWhole)) {
            setTyped("");
            ask([...chips, ...words]);
          } else {
            setTyped(text);
          }
          setOpen(true);
        }}
        // As it was copied: a field of one line would drop the line ends.
        onPaste={(event) => {
          if (isTaken(event.clipboardData?.getData("text") ?? "")) event.preventDefault();
        }}
        onDrop={(event) => {
          if (isTaken(event.dataTransfer?.getData("text") ?? "")) event.preventDefault();
        }}
        onFocus={() => setOpen(chips.length === 0)}
        onBlur={() => setOpen(false)}
        onKeyDown={onKeyDown}
      />
      {chips.length > 0 && (
        <button type="button" class="small" onClick={() => ask([])}>
          Clear<span class="unseen"> the question</span>
        </button>
      )}
      <button type="button" class="small" onClick={props.onHelp}>
        Help<span class="unseen"> with questions and keys</span>
      </button>
      <ul
        id={`${id}-offered`}
        role="listbox"
        aria-label="Words that can follow"
        class="offered"
        hidden={!isShown}
      >
        {offered.map((word, place) => (
          <li
            key={word}
            id={`${id}-${place}`}
            role="option"
            aria-selected={place === active}
            // Before the field loses the focus.
            onPointerDown={(event) => {
              event.preventDefault();
              take(word);
            }}
          >
            {plain(word)}
          </li>
        ))}
      </ul>
    </search>
  );
}

const SORTED: Record<Sort, string> = {
  refused: "most refusals",
  calls: "most calls",
  oldest: "oldest",
  unused: "most rights never used",
  spent: "most of a budget spent",
};

const EVERY = 1000; // milliseconds between two looks at what a question finds

export function Found(props: {
  place: Place;
  rev: string;
  now: number;
  go: (change: Partial<Place>, replace?: boolean) => void;
}): JSX.Element {
  const { place, now, go } = props;
  const { q, by, sort, at } = place;
  const { answer: found, trouble } = useAnswer(q, sort, at, props.rev, EVERY, by === "decisions" ? "counts" : null);
  if (trouble) {
    return (
      <section class="panel found" aria-labelledby="found-title">
        <h2 id="found-title">This was not understood</h2>
        <p class="bad" role="alert">
          {trouble}
        </p>
        <Words />
      </section>
    );
  }
  const total = found ? found.allowed + found.denied : 0;
  const counts = { decisions: total, ...found?.counts };
  const open = (task: string, node: string | null): void =>
    go({ view: at === null ? "now" : "then", task, node, q: "" });
  return (
    <section class="panel found" aria-labelledby="found-title" aria-busy={found === null}>
      <div class="panel-head">
        <h2 id="found-title">
          {found === null ? "Looking…" : `${count(total, "decision")} found`}
        </h2>
        {found !== null && (
          <p class="muted" role="status">
            {plainNumber(found.allowed)} allowed, {plainNumber(found.denied)} refused
          </p>
        )}
      </div>
      {found?.series && (
        <Plot
          series={found.series}
          onSpan={(first, last) => go({ q: toSpan(wordsOf(q), first, last) })}
        />
      )}
      <div class="found-body">
        {found !== null && found.values.length > 0 && (
          <Values
            values={found.values}
            onWord={(word) => go({ q: withWord(wordsOf(q), word) })}
          />
        )}
        <div class="found-rows">
      <div class="filters">
        <nav class="bys" aria-label="What is shown of it">
          {BYS.map((one) => (
            <button
              key={one}
              type="button"
              class="tab"
              aria-current={one === by ? "page" : undefined}
              onClick={() => go({ by: one })}
            >
              {one} {found !== null && <span class="muted">{plainNumber(counts[one] ?? 0)}</span>}
            </button>
          ))}
        </nav>
        {by !== "decisions" && (
          <label class="check">
            in order of
            <select
              value={sort}
              onChange={(event) => go({ sort: event.currentTarget.value as Sort }, true)}
            >
              {SORTS.filter((one) => by === "agents" || !["unused", "spent"].includes(one)).map(
                (one) => (
                  <option key={one} value={one}>
                    {SORTED[one]}
                  </option>
                ),
              )}
            </select>
          </label>
        )}
      </div>
      {found === null ? null : total === 0 ? (
        <None q={q} at={at} go={go} />
      ) : by === "decisions" ? (
        <Paged
          of={{ q, sort }}
          first={null}
          at={at}
          rev={props.rev}
          now={now}
          who
          caption="Decisions that were found, the last first"
        />
      ) : (
        <Groups found={found} by={by} sort={sort} now={now} onOpen={open} />
      )}
        </div>
      </div>
    </section>
  );
}

// Nothing was found: what there is without each of the words, so that one sees which of them it is.
function None(props: {
  q: string;
  at: number | null;
  go: (change: Partial<Place>) => void;
}): JSX.Element {
  const { q, at, go } = props;
  const words = wordsOf(q).slice(0, 8);
  const without = (word: string): string =>
    wordsOf(q)
      .filter((one) => one !== word)
      .join(" ");
  const [counts, setCounts] = useState<number[]>([]);
  useEffect(() => {
    let isOver = false;
    const rest = words.length > 1 ? words : [];
    Promise.all(rest.map((word) => api.query(without(word), "calls", null, at, 1, "counts"))).then(
      (found) => {
        if (!isOver) setCounts(found.map((one) => (one.trouble === null ? one.allowed + one.denied : 0)));
      },
      () => undefined,
    );
    return () => {
      isOver = true;
    };
  }, [q, at]);
  return (
    <>
      <p class="none">No decision fits all of these words. A word without a key is looked for in names.</p>
      <ul class="may">
        {words.map(
          (word, place) =>
            counts[place] !== undefined && (
              <li key={word}>
                <button type="button" class="link" onClick={() => go({ q: without(word) })}>
                  Without {plain(word)}
                </button>
                : {count(counts[place] ?? 0, "decision")}
              </li>
            ),
        )}
      </ul>
    </>
  );
}

// What it was made of: by key, the values that came most. Each asks for itself, or for all but it.
function Values(props: {
  values: readonly api.Values[];
  onWord: (word: string) => void;
}): JSX.Element {
  return (
    <details class="values" open={matchMedia("(min-width: 1000px)").matches}>
      <summary>Narrow the question</summary>
      {props.values.map((one) => {
        const most = Math.max(...one.most.map(({ allowed, denied }) => allowed + denied));
        return (
          <section key={one.key} aria-label={`By ${one.key}`}>
            <h3>
              {one.key} <span class="muted">{plainNumber(one.count)}</span>
            </h3>
            <ul>
              {one.most.map(({ value, word, allowed, denied }) => (
                <li key={word}>
                  <button type="button" class="value" onClick={() => props.onWord(word)}>
                    <span class="unseen">only </span>
                    {value}
                  </button>
                  <span class="number">
                    {plainNumber(allowed + denied)}
                    <span class="unseen"> decisions, {plainNumber(denied)} refused</span>
                  </span>
                  <button type="button" class="without" onClick={() => props.onWord(`-${word}`)}>
                    <span aria-hidden="true">−</span>
                    <span class="unseen">without {value}</span>
                  </button>
                  <svg class="share" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true" focusable="false">
                    <rect class="calls" width={((allowed + denied) / most) * 100} height="1" />
                    <rect class="refusals" width={(denied / most) * 100} height="1" />
                  </svg>
                </li>
              ))}
            </ul>
          </section>
        );
      })}
    </details>
  );
}

// Agents or tasks, one a row.
function Groups(props: {
  found: Answer & { trouble: null };
  by: Exclude<By, "decisions">;
  sort: Sort;
  now: number;
  onOpen: (task: string, node: string | null) => void;
}): JSX.Element {
  const { found, by, sort, now } = props;
  const rows = by === "agents" ? found.agents : found.tasks;
  const isWeighed = by === "agents" && (sort === "unused" || sort === "spent");
  if (rows.length === 0) return <p class="none">None.</p>;
  return (
    <>
      <table class="groups">
        <caption class="unseen">
          The {by} that it was about, {SORTED[sort]} first
        </caption>
        <thead>
          <tr>
            {by === "agents" && <th scope="col">Agent</th>}
            <th scope="col">Task</th>
            <th scope="col">For</th>
            <th scope="col" class="number">
              Refused
            </th>
            <th scope="col" class="number">
              Allowed
            </th>
            <th scope="col">
              {by === "tasks" ? "Agents" : sort === "unused" ? "Never used" : sort === "spent" ? "Spent" : "Last"}
            </th>
          </tr>
        </thead>
        <tbody>
          {by === "agents"
            ? found.agents.map((one) => (
                <tr key={one.id}>
                  <td data-label="Agent">
                    <button type="button" class="link name" onClick={() => props.onOpen(one.key, one.id)}>
                      {one.agent}
                    </button>{" "}
                    {one.state && one.state !== "live" && <StateMark state={one.state} />}
                  </td>
                  <td data-label="Task">{one.task}</td>
                  <td data-label="For">{one.subject}</td>
                  <td data-label="Refused" class={`number${one.denied ? " bad" : ""}`}>
                    {plainNumber(one.denied)}
                  </td>
                  <td data-label="Allowed" class="number">
                    {plainNumber(one.allowed)}
                  </td>
                  {sort === "unused" ? (
                    <td data-label="Never used">
                      {one.unused_count ? (
                        <>
                          {plainNumber(one.unused_count)}: {one.unused?.join(", ")}
                          {one.unused_count > (one.unused?.length ?? 0) && " …"}
                        </>
                      ) : (
                        "none"
                      )}
                    </td>
                  ) : sort === "spent" ? (
                    <td data-label="Spent">{one.spent ?? 0} %</td>
                  ) : (
                    <td data-label="Last">{one.last_at !== null && <Ago at={one.last_at} now={now} />}</td>
                  )}
                </tr>
              ))
            : found.tasks.map((one) => (
                <tr key={one.key}>
                  <td data-label="Task">
                    <button type="button" class="link name" onClick={() => props.onOpen(one.key, null)}>
                      {one.task}
                    </button>
                  </td>
                  <td data-label="For">{one.subject}</td>
                  <td data-label="Refused" class={`number${one.denied ? " bad" : ""}`}>
                    {plainNumber(one.denied)}
                  </td>
                  <td data-label="Allowed" class="number">
                    {plainNumber(one.allowed)}
                  </td>
                  <td data-label="Agents">{plainNumber(one.agents)}</td>
                </tr>
              ))}
        </tbody>
      </table>
      {rows.length < found.counts[by] && (
        <p class="none">
          The first {plainNumber(rows.length)} of {plainNumber(found.counts[by])}.
        </p>
      )}
      {isWeighed && found.counts[by] >= 300 && (
        <p class="none">Looked at: the 300 agents with most calls.</p>
      )}
    </>
  );
}
