// Dialogs in which an operator acts: what it would have refused is seen, then a reason is given,
// and then it is done.
import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { AgentView, Entry, Hits, Keywords, Kind, Preview, Select, TokenName, WhatIf } from "./api";
import { count, exact, fromField, plainNumber, toField } from "./format";
import { Decisions, Dialog } from "./parts";
import { spelled } from "./query";
import { serverNow } from "./state";

export interface Aim {
  kind: Kind | "what-if";
  // Who is meant, for people.
  agent: string | null;
  task: string;
  select: Select;
  // What else is stopped, as names.
  below: string[];
  // What would have done, to begin with.
  suggested: Keywords | null;
  entry?: Entry;
  // The hop of an agent.
  node?: string;
  // All tokens that the agent was handed, and not this one alone.
  all?: boolean;
}

// What is aimed at, of an agent.
export function aimAt(kind: Aim["kind"], view: AgentView, task: string, all = false): Aim {
  const below = view.reach.agents.filter((one) => one.id !== view.node.id);
  return {
    kind,
    agent: view.node.agent,
    task,
    select: all ? view.reach.named : view.reach.select,
    below: below.map((one) => one.agent),
    suggested: view.unused?.keywords ?? null,
    node: view.node.id,
    all,
  };
}

const OPERATIONS = ["select", "insert", "update", "delete"] as const;

interface Fields {
  tables: string;
  operations: string[];
  tools: string;
  audience: string;
  minutes: string;
  more: string;
}

const NONE: Fields = { tables: "", operations: [], tools: "", audience: "", minutes: "", more: "" };

const listed = (text: string): string[] =>
  text
    .split(/[,\n]/)
    .map((one) => one.trim())
    .filter((one) => one !== "");

// The keywords that the form says. Throws an Error whose message is for people.
function keywordsOf(fields: Fields): Keywords | null {
  const said: Keywords = {};
  if (fields.more.trim()) {
    let more: unknown;
    try {
      more = JSON.parse(fields.more);
    } catch {
      throw new Error("What else: that is not JSON.");
    }
    if (typeof more !== "object" || more === null || Array.isArray(more)) {
      throw new Error('What else: an object of keywords, as {"columns": …}.');
    }
    Object.assign(said, more);
  }
  const tables = listed(fields.tables);
  const tools = listed(fields.tools);
  const audience = listed(fields.audience);
  if (tables.length) said["tables"] = tables;
  if (fields.operations.length) said["operations"] = fields.operations;
  if (tools.length) said["tools"] = Object.fromEntries(tools.map((tool) => [tool, {}]));
  if (audience.length) said["audience"] = audience;
  if (fields.minutes.trim()) {
    const minutes = Number(fields.minutes);
    if (!(minutes > 0)) throw new Error("Minutes: a number above 0.");
    said["expires_in"] = Math.ceil(minutes * 60);
  }
  return Object.keys(said).length ? said : null;
}

// Names that a field of names takes as they are. All others go as JSON: names that strangers chose
// can have a comma in them, or letters that look like others.
const isSimple = (names: unknown): names is string[] =>
  Array.isArray(names) && names.every((one) => typeof one === "string" && /^[\w.*-]+$/.test(one));

// JSON in ASCII, so that no letter is taken for another.
const asciiJson = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

// What the form says for some keywords: it is read back as these very ones.
export function fieldsOf(keywords: Keywords): Fields {
  const { tables, operations, ...more } = keywords;
  const rest: Keywords = { ...more };
  const fields: Fields = { ...NONE };
  if (isSimple(tables) && tables.length) fields.tables = tables.join(", ");
  else if (tables !== undefined) rest["tables"] = tables;
  const offered = OPERATIONS as readonly string[];
  if (isSimple(operations) && operations.every((one) => offered.includes(one))) {
    fields.operations = operations;
  } else if (operations !== undefined) rest["operations"] = operations;
  fields.more = Object.keys(rest).length ? asciiJson(rest) : "";
  return fields;
}

// What is left, by a form that has no way to say more than there is: each field takes away.
function NarrowForm(props: {
  fields: Fields;
  suggested: Keywords | null;
  past?: boolean;
  onChange: (fields: Fields) => void;
}): JSX.Element {
  const id = useId();
  const set = (change: Partial<Fields>): void => props.onChange({ ...props.fields, ...change });
  const text = (
    name: Exclude<keyof Fields, "operations">,
    label: string,
    hint: string,
  ): JSX.Element => (
    <div class="field">
      <label for={`${id}-${name}`}>{label}</label>
      <input
        id={`${id}-${name}`}
        type="text"
        value={props.fields[name]}
        placeholder={hint}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => set({ [name]: event.currentTarget.value })}
      />
    </div>
  );
  return (
    <fieldset class="narrow">
      <legend>{props.past ? "It could have done only" : "From now on only"}</legend>
      <div class="grid">
        {text("tables", "these tables", "as sales, market.*")}
        <div class="field" role="group" aria-label="these operations">
          <span class="label">these operations</span>
          <span class="checks">
            {OPERATIONS.map((one) => (
              <label class="check" key={one}>
                <input
                  type="checkbox"
                  checked={props.fields.operations.includes(one)}
                  onChange={(event) =>
                    set({
                      operations: event.currentTarget.checked
                        ? [...props.fields.operations, one]
                        : props.fields.operations.filter((other) => other !== one),
                    })
                  }
                />
                {one}
              </label>
            ))}
          </span>
        </div>
        {text("tools", "these tools", "as search")}
        {text("audience", "at these servers", "as reports")}
        {!props.past && text("minutes", "for so many minutes", "as 10")}
        {text("more", "what else, as keywords in JSON", 'as {"where": {"region": "eu"}}')}
      </div>
      <p class="muted">
        A field that is empty takes nothing away. No field gives anything: what an agent may not do,
        it may not do after this either. If you name tables, no tool is left, and the reverse.
      </p>
      {props.suggested && (
        <button
          type="button"
          class="small"
          onClick={() => props.suggested && props.onChange(fieldsOf(props.suggested))}
        >
          Fill in what it has used
        </button>
      )}
    </fieldset>
  );
}

export function Act(props: {
  aim: Aim;
  by: string;
  onClose: () => void;
  onDone: (said: string) => void;
}): JSX.Element {
  const { aim } = props;
  const id = useId();
  const cancel = useRef<HTMLButtonElement>(null);
  const [fields, setFields] = useState<Fields>(NONE);
  const [why, setWhy] = useState("");
  const [seen, setSeen] = useState<{ of: string; preview: Preview } | null>(null);
  const [trouble, setTrouble] = useState("");
  const [busy, setBusy] = useState(false);
  const [everywhere, setEverywhere] = useState(aim.all === true);
  const { task: _, ...anywhere } = aim.select;
  const select = everywhere ? anywhere : aim.select;

  let keywords: Keywords | null = null;
  let wrong = "";
  if (aim.kind === "narrow") {
    try {
      keywords = keywordsOf(fields);
    } catch (error) {
      wrong = (error as Error).message;
    }
  }
  const says = JSON.stringify([select, keywords]);
  const isStated =
    aim.kind !== "lift" && wrong === "" && (aim.kind !== "narrow" || keywords !== null);

  useEffect(() => cancel.current?.focus(), []);

  // What is shown is what would be done: it is asked for anew with each change of the form.
  useEffect(() => {
    setSeen(null);
    setTrouble("");
    if (!isStated) return;
    let isOver = false;
    const timer = setTimeout(
      () => {
        api.preview(select, keywords).then(
          (preview) => {
            if (!isOver) setSeen({ of: says, preview });
          },
          (error: Error) => {
            if (!isOver) setTrouble(error.message);
          },
        );
      },
      aim.kind === "narrow" ? 300 : 0,
    );
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [says, isStated]);

  const isNone = seen?.of === says && seen.preview.hits.agents === 0 && aim.all !== true;
  const isReady = !busy && !isNone && why.trim() !== "" && (aim.kind === "lift" || seen?.of === says);

  const doIt = (): void => {
    if (!isReady) return;
    setBusy(true);
    const wish =
      aim.kind === "lift"
        ? { kind: aim.kind, entry: aim.entry?.id ?? "", why }
        : {
            kind: aim.kind as Kind,
            select,
            keywords,
            why,
            stamp: seen?.preview.stamp ?? "",
          };
    api.act(wish).then(
      () =>
        props.onDone(
          `Done: ${title}.${aim.kind === "lift" ? "" : " You can undo it under Operator actions."}`,
        ),
      (error: Error) => {
        setBusy(false);
        setTrouble(error.message);
      },
    );
  };

  const whom = aim.agent ?? aim.entry?.whom ?? `the task ${aim.task}`;
  const title =
    aim.kind === "end"
      ? `End the task ${aim.task}`
      : aim.kind === "lift"
        ? `Lift what was said of ${aim.entry?.whom ?? aim.entry?.select ?? "it"}`
        : aim.kind === "narrow"
          ? `Narrow ${whom}`
          : aim.all
            ? `Revoke all tokens of ${whom}`
            : `Revoke this token of ${whom}, with all below`;
  const button =
    aim.kind === "end"
      ? `End ${aim.task}`
      : aim.kind === "lift"
        ? "Lift it"
        : aim.all
          ? `Revoke ${whom} in ${everywhere ? "all tasks" : aim.task}`
          : `${aim.kind === "narrow" ? "Narrow" : "Revoke"} ${whom}`;

  return (
    <Dialog title={title} onClose={props.onClose}>
      <Stops aim={aim} everywhere={everywhere} />
      {aim.all && (
        <fieldset class="choice">
          <legend>Its tokens</legend>
          {[true, false].map((all) => (
            <label class="check" key={String(all)}>
              <input
                type="radio"
                name={`${id}-where`}
                checked={everywhere === all}
                onChange={() => setEverywhere(all)}
              />
              {all ? "in all tasks" : `in ${aim.task}, and in tasks below it`}
            </label>
          ))}
        </fieldset>
      )}
      {aim.kind === "narrow" && (
        <NarrowForm fields={fields} suggested={aim.suggested} onChange={setFields} />
      )}
      {aim.kind !== "lift" && (
        <div class="preview" aria-live="polite">
          {!isStated ? (
            <p class="muted">{wrong || "Fill in a field, to see which calls that stops."}</p>
          ) : trouble ? null : seen === null ? (
            <p class="muted">Looking at the last hour…</p>
          ) : (
            <Seen preview={seen.preview} aim={aim} />
          )}
        </div>
      )}
      {trouble && (
        <p class="bad" role="alert">
          {trouble}
        </p>
      )}
      <div class="field">
        <label for={`${id}-why`}>Why (it is recorded, and shown to people)</label>
        <textarea
          id={`${id}-why`}
          rows={2}
          maxLength={500}
          required
          value={why}
          onInput={(event) => setWhy(event.currentTarget.value)}
        />
      </div>
      <p class="muted">
        {aim.kind === "lift"
          ? "It holds from their next call on. To stop them again, revoke or narrow them again. "
          : aim.kind === "narrow"
            ? "It holds from the next call on. Lift undoes it, under Operator actions. "
            : "From the next call on, each of these calls is refused. Lift undoes it, under Operator actions. "}
        Recorded as said by <strong>{props.by}</strong>.
      </p>
      <div class="buttons">
        <button type="button" ref={cancel} class="default" onClick={props.onClose}>
          Cancel
        </button>
        <button
          type="button"
          class={aim.kind === "lift" ? "" : "danger"}
          disabled={!isReady}
          onClick={doIt}
        >
          {button}
        </button>
      </div>
    </Dialog>
  );
}

// Whom it is about, and what it stops.
function Stops(props: { aim: Aim; everywhere: boolean }): JSX.Element {
  const { aim } = props;
  if (aim.kind === "lift" && aim.entry) {
    return (
      <dl class="stops">
        <dt>Is about</dt>
        <dd>
          {aim.entry.whom && `${aim.entry.whom}: `}
          {aim.entry.select}
        </dd>
        <dt>Limits to</dt>
        <dd>{aim.entry.narrows?.join("; ") ?? "nothing: it revokes"}</dd>
        <dt>Said by</dt>
        <dd>
          {aim.entry.by}, {exact(aim.entry.at)}: {aim.entry.why}
        </dd>
        <dt>Then</dt>
        <dd>
          {aim.entry.whom ?? "Whoever it stopped"} can act again, as far as tokens and other entries
          permit.
        </dd>
      </dl>
    );
  }
  return (
    <dl class="stops">
      {aim.agent !== null && (
        <>
          <dt>Agent</dt>
          <dd>{aim.agent}</dd>
        </>
      )}
      <dt>Task</dt>
      <dd>{props.everywhere ? "all tasks" : aim.task}</dd>
      <dt>{aim.kind === "narrow" ? "Narrows" : "Stops"}</dt>
      <dd>
        {aim.agent === null
          ? "All tokens of the task, also those that are handed on later."
          : aim.all
            ? "Each token that was handed to it, also later, and whatever is handed on from it."
          : aim.below.length === 0
            ? "It, and whatever is handed on from it."
            : `It, and ${count(aim.below.length, "agent")} below: ` +
              aim.below.slice(0, 12).join(", ") +
              (aim.below.length > 12 ? " and more." : ".")}
      </dd>
    </dl>
  );
}

// That not all of a time was looked at.
function Only(props: { most: number | null }): JSX.Element | null {
  if (props.most === null) return null;
  return (
    <span class="bad only">
      {" "}
      There were more calls than are judged here: of these, the last {plainNumber(props.most)} were.
    </span>
  );
}

// The calls that an entry stops, in a part of the dialog that scrolls by itself.
function Stopped(props: {
  rows: Preview["rows"];
  brief: boolean;
  label: string;
  caption: string;
}): JSX.Element | null {
  if (props.rows.length === 0) return null;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={props.label}>
      <Decisions
        rows={props.rows}
        now={serverNow()}
        who
        brief={props.brief}
        caption={props.caption}
      />
    </div>
  );
}

// A list of tokens, as far as it is not long.
const listOf = (tokens: readonly TokenName[]): string =>
  tokens
    .slice(0, LISTED)
    .map((one) => `task ${one.task}, for ${one.subject}`)
    .join("; ") + (tokens.length > LISTED ? `; and ${plainNumber(tokens.length - LISTED)} more` : "");

// What it is about, by token: a task of the same name has tokens of other people, too.
function Hit(props: { hits: Hits; aim: Aim }): JSX.Element {
  const { hits, aim } = props;
  return (
    <div class="hits">
      <p>
        <strong>
          {hits.agents === 0
            ? "Nothing of it works now: there is nothing to stop."
            : `This affects ${count(hits.agents, "agent")}, by ${count(hits.groups.length, "token")}.`}
        </strong>
        {!hits.is_all && <span class="bad"> There are more than are listed here.</span>}
      </p>
      <ul>
        {hits.groups.slice(0, LISTED).map((one) => (
          <li key={one.token}>
            task {one.task}, for {one.subject}: {one.agents.join(", ")}
            {one.more > 0 && ` and ${one.more} more`}
          </li>
        ))}
        {hits.groups.length > LISTED && <li>and {hits.groups.length - LISTED} more tokens</li>}
      </ul>
      {hits.namesakes.length > 0 && (
        <p class="bad">
          {count(hits.namesakes.length, "other token")} handed to {aim.agent} will go on (
          {listOf(hits.namesakes)}).{" "}
          {aim.all ? (
            <>
              <em>In all tasks</em> stops these, too.
            </>
          ) : (
            <>
              <em>Revoke all its tokens…</em> stops these, too.
            </>
          )}
        </p>
      )}
    </div>
  );
}

// Tokens that a dialog lists.
const LISTED = 8;

// What is left to whom, by token and entry together.
function Left(props: { left: Hits["left"] }): JSX.Element {
  return (
    <ul class="left">
      {props.left.slice(0, LISTED).map(({ agents, says }) => {
        const whom = agents.slice(0, LISTED).join(", ") + (agents.length > LISTED ? " and others" : "");
        return says[0] === "nothing" ? (
          <li key={whom} class="bad">
            <strong>It leaves nothing to {whom}: this stops {agents.length === 1 ? "it" : "them"}.</strong>
          </li>
        ) : (
          <li key={whom}>
            It leaves to {whom}: {says.join("; ")}.
          </li>
        );
      })}
      {props.left.length > LISTED && <li>and something else to others.</li>}
    </ul>
  );
}

function Seen(props: { preview: Preview; aim: Aim }): JSX.Element {
  const { preview, aim } = props;
  const isNone = preview.hits.agents === 0;
  return (
    <>
      <Hit hits={preview.hits} aim={aim} />
      {aim.kind === "narrow" && <Left left={preview.hits.left} />}
      {(!isNone || aim.all) && (
        <>
          <p>
            <strong>
              In the last hour it would have refused {count(preview.would_refuse, "call")}
            </strong>{" "}
            that {preview.would_refuse === 1 ? "was" : "were"} allowed
            {preview.would_refuse > preview.rows.length && `, the last ${preview.rows.length} of them here`}.
            <Only most={preview.only} />
          </p>
          <Stopped
            rows={preview.rows}
            brief={preview.stands.narrows === null}
            label="Calls that it would have refused"
            caption="Which calls it would stop, the last first"
          />
        </>
      )}
    </>
  );
}

// Which calls an entry would have stopped that was not there. Nothing is done.
export function What(props: { aim: Aim; last: number; onClose: () => void }): JSX.Element {
  const { aim } = props;
  const id = useId();
  const [how, setHow] = useState<"revoked" | "narrowed" | "lost">("revoked");
  const narrows = how === "narrowed";
  const [lost, setLost] = useState({ operation: "select", name: "" });
  const [fields, setFields] = useState<Fields>(NONE);
  const [first, setFirst] = useState(exact(props.last - 3600));
  const [last, setLast] = useState(exact(props.last));
  const [answered, setFound] = useState<(WhatIf & { to: string; of: string }) | null>(null);
  const [whose, setWhose] = useState<"its" | "name" | "all">("its");
  const [offered, setOffered] = useState<string[]>([]);
  const [trouble, setTrouble] = useState("");
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => close.current?.focus(), []);

  // An answer is of the question that was asked: with another one it goes.
  const of = JSON.stringify([how, lost, fields, first, last, whose]);
  const found = answered?.of === of ? answered : null;
  useEffect(() => {
    if (how !== "lost" || lost.name === "") return;
    const key = lost.operation === "tool" ? "tool:" : "table:";
    api.complete(key + lost.name).then(
      ({ words }) => setOffered(words.map((word) => word.slice(key.length))),
      () => setOffered([]),
    );
  }, [how, lost.name, lost.operation]);

  const ask = (event: Event): void => {
    event.preventDefault();
    setFound(null);
    setTrouble("");
    try {
      const from = fromField(first);
      const to = fromField(last);
      if (from === null || to === null || from > to)
        throw new Error("From and until: two times in order, as 2026-12-01 09:30:00.");
      if (how === "lost") {
        if (!lost.name.trim()) throw new Error("Say which table or tool it had lost.");
        askLost(from, to);
        return;
      }
      const keywords = narrows ? keywordsOf(fields) : null;
      if (narrows && keywords === null) throw new Error("Say what would have been left.");
      api
        .whatIf(aim.select, keywords, from, to)
        .then(
          (answer) => setFound({ ...answer, of, to: narrows ? "narrowed to that" : "revoked" }),
          (error: Error) => setTrouble(error.message),
        );
    } catch (error) {
      setTrouble((error as Error).message);
    }
  };

  // What would have been stopped is what was allowed: no other right has to be named for that.
  const askLost = (from: number, to: number): void => {
    const name = spelled(lost.name.trim());
    const what = lost.operation === "tool" ? `tool:${name}` : `table:${name}`;
    const operation = ["tool", "any"].includes(lost.operation) ? "" : `operation:${lost.operation}`;
    const span = `since:${toField(from)} until:${toField(to)}`;
    const scope = whose === "all" ? "" : whose === "name" ? `agent:${spelled(aim.agent ?? "")}` : scopeOf(aim);
    const right = operation ? lost.operation : "any use";
    Promise.all([
      api.query(`${scope} ${what} ${operation} allowed ${span}`, "calls", null, null, 20),
      // Does any trail know that name at all?
      api.query(what, "calls", null, null, 1, "counts"),
    ]).then(
      ([answer, all]) => {
        if (answer.trouble !== null) throw new Error(answer.trouble);
        const isKnown = all.trouble === null && all.allowed + all.denied > 0;
        setFound({
          of,
          to: `without ${right} ${lost.operation === "tool" ? "of" : "on"} ${lost.name.trim()}`,
          unknown: isKnown ? undefined : lost.name.trim(),
          only: null,
          stopped: answer.allowed,
          agents: answer.agents.map((one) => ({
            agent: `${one.agent}, task ${one.task}`,
            calls: one.allowed,
          })),
          rows: answer.rows,
        });
      },
    ).catch((error: Error) => setTrouble(error.message));
  };

  return (
    <Dialog
      title={`What if ${aim.agent ?? `the task ${aim.task}`} ${how === "revoked" ? "had been stopped" : how === "lost" ? "had one right less" : "had been narrowed"}?`}
      wide
      onClose={props.onClose}
    >
      <p class="muted">Calls that were allowed are judged again. Nothing is done.</p>
      <form onSubmit={ask}>
        <fieldset class="choice">
          <legend>It had been</legend>
          <label class="check">
            <input
              type="radio"
              name={`${id}-how`}
              checked={how === "revoked"}
              onChange={() => setHow("revoked")}
            />
            revoked{aim.agent === null ? "" : " with all below"}
          </label>
          <label class="check">
            <input
              type="radio"
              name={`${id}-how`}
              checked={narrows}
              onChange={() => setHow("narrowed")}
            />
            narrowed
          </label>
          <label class="check">
            <input
              type="radio"
              name={`${id}-how`}
              checked={how === "lost"}
              onChange={() => setHow("lost")}
            />
            without one right
          </label>
        </fieldset>
        {narrows && (
          <NarrowForm past fields={fields} suggested={aim.suggested} onChange={setFields} />
        )}
        {how === "lost" && (
          <div class="grid">
            <div class="field">
              <label for={`${id}-operation`}>it had lost</label>
              <select
                id={`${id}-operation`}
                value={lost.operation}
                onChange={(event) => setLost({ ...lost, operation: event.currentTarget.value })}
              >
                {[...OPERATIONS, "any", "tool"].map((one) => (
                  <option key={one} value={one}>
                    {one === "tool" ? "the use of a tool" : one === "any" ? "all on" : `${one} on`}
                  </option>
                ))}
              </select>
            </div>
            <div class="field">
              <label for={`${id}-name`}>{lost.operation === "tool" ? "tool" : "table"}</label>
              <input
                id={`${id}-name`}
                type="text"
                value={lost.name}
                placeholder="as customers, market.*"
                autocomplete="off"
                list={`${id}-offered`}
                spellcheck={false}
                onInput={(event) => setLost({ ...lost, name: event.currentTarget.value })}
              />
              <datalist id={`${id}-offered`}>
                {offered.map((one) => (
                  <option key={one} value={one} />
                ))}
              </datalist>
            </div>
            <div class="field">
              <label for={`${id}-whose`}>by whom</label>
              <select
                id={`${id}-whose`}
                value={whose}
                onChange={(event) => setWhose(event.currentTarget.value as "its" | "name" | "all")}
              >
                <option value="its">
                  {aim.agent === null ? `task ${aim.task}` : `${aim.agent}, with all below`}
                </option>
                {aim.agent !== null && <option value="name">{aim.agent}, in all tasks</option>}
                <option value="all">all agents, in all tasks</option>
              </select>
            </div>
          </div>
        )}
        <div class="grid">
          <div class="field">
            <label for={`${id}-first`}>From (UTC)</label>
            <input
              id={`${id}-first`}
              type="text"
              autocomplete="off"
              value={first}
              onInput={(event) => setFirst(event.currentTarget.value)}
            />
          </div>
          <div class="field">
            <label for={`${id}-last`}>Until (UTC)</label>
            <input
              id={`${id}-last`}
              type="text"
              autocomplete="off"
              value={last}
              onInput={(event) => setLast(event.currentTarget.value)}
            />
          </div>
        </div>
        <div class="buttons">
          <button type="button" ref={close} onClick={props.onClose}>
            Close
          </button>
          <button type="submit" class="default">
            Check
          </button>
        </div>
      </form>
      <div aria-live="polite">
        {found && (
          <>
            <p>
              <strong>
                {found.to[0]?.toUpperCase() + found.to.slice(1)}, it would have stopped{" "}
                {count(found.stopped, "call")}.
              </strong>
              {found.unknown !== undefined && (
                <span class="bad"> No trail has any call on {found.unknown}: is the name right?</span>
              )}
              {found.stopped > found.rows.length && ` The last ${found.rows.length}:`}
              <Only most={found.only} />
            </p>
            {found.agents.length > 0 && (
              <ul class="by-agent" aria-label="The agents that would have been stopped">
                {found.agents.slice(0, LISTED * 2).map((one) => (
                  <li key={one.agent}>
                    <span class="name">{one.agent}</span>: {count(one.calls, "call")}
                  </li>
                ))}
                {found.agents.length > LISTED * 2 && (
                  <li>and {plainNumber(found.agents.length - LISTED * 2)} more</li>
                )}
              </ul>
            )}
            <Stopped
              rows={found.rows}
              brief={!narrows}
              label="Calls that it would have stopped"
              caption="Calls that it would have stopped"
            />
          </>
        )}
      </div>
      {trouble && (
        <p class="bad" role="alert">
          {trouble}
        </p>
      )}
    </Dialog>
  );
}

// The decisions that it is about: of a task, or of an agent with all below.
function scopeOf(aim: Aim): string {
  return aim.node === undefined ? `task:${spelled(aim.select["task"] ?? "")}` : `below:${aim.node}`;
}
