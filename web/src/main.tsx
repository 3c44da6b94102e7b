// The page: what is asked for, and where it stands.
import { render } from "preact";
import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Act, What, aimAt } from "./act";
import type { Aim } from "./act";
import { Agent } from "./agent";
import * as api from "./api";
import type { AgentView, Entry, Need, Now, Session, TaskView } from "./api";
import { Decision } from "./decision";
import { ago, count, duration, exact, plainNumber } from "./format";
import { Paged } from "./paged";
import { Ago, Among, Decisions, Dialog, Export, Press, StateMark, TimeField } from "./parts";
import { Plot } from "./plot";
import { LastHour, Needs, together } from "./needs";
import { Help, useKeys } from "./keys";
import { Found, QueryBar, spelled } from "./query";
import { arrive, serverNow, setClock, toSpan, useClock, usePlace } from "./state";
import type { Place, ViewName } from "./state";
import { Tasks } from "./tasks";
import { Tree } from "./tree";

const EVERY = 500; // milliseconds between two questions
const LATER = 2000; // after one that was not answered
const TOLD_FOR = 8000;
const SLOWLY = 5; // seconds
const A_LITTLE = 60; // seconds, by which the clocks of servers may differ
const HEARD_EACH = 5000; // at most, so that a reader can follow

const nothing = Promise.resolve(null);

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

function App(): JSX.Element {
  const [place, goTo] = usePlace();
  const now = useClock();
  const [who, setWho] = useState<Session | null>(null);
  const [seen, setSeen] = useState<Now | null>(null);
  const [task, setTask] = useState<TaskView | null>(null);
  const [agent, setAgent] = useState<AgentView | null>(null);
  const [entries, setEntries] = useState<Entry[]>([]);
  const [needs, setNeeds] = useState<Need[] | null>(null);
  const [recent, setRecent] = useState<api.Page | null>(null);
  const [trouble, setTrouble] = useState("");
  const [told, setTold] = useState("");
  const [pasted, setPasted] = useState<api.Pasted | null>(null);
  // What was told of another view is of no use here.
  const go: typeof goTo = (change, replace) => {
    setTold("");
    setPasted(null);
    goTo(change, replace);
  };
  const [heard, setHeard] = useState("");
  const [aim, setAim] = useState<Aim | null>(null);
  const [help, setHelp] = useState(false);
  useKeys(() => setHelp(true));
  const [trace, setTrace] = useState<{ text: string; key: string } | null>(null);
  const nudge = useRef(0);
  const [asked, setAsked] = useState(0);

  // One question after the other, as long as the page stands where it does.
  useEffect(() => {
    let isOver = false;
    const run = async (): Promise<void> => {
      let rev: string | null = null;
      let late = 0;
      let lookedAt = 0;
      for (;;) {
        const began = performance.now();
        let wait = EVERY;
        try {
          if (!who) setWho(await api.session());
          const found = await api.now(rev, place.at);
          if (isOver) return;
          setClock(found.now);
          if (!("same" in found)) {
            rev = found.rev;
            setSeen(found);
            // Each is shown as it comes: an agent with many calls takes longer than its task.
            const show =
              <T,>(set: (found: T) => void) =>
              (found: T): void => {
                if (!isOver) set(found);
              };
            await Promise.all([
              (place.task === null ? nothing : api.task(place.task, place.at).catch(gone)).then(
                show(setTask),
              ),
              (place.node === null ? nothing : api.agent(place.node, place.at).catch(gone)).then(
                show(setAgent),
              ),
              (place.view === "needs" ? api.decisions({}, null, true, null, 100) : nothing).then(
                show(setRecent),
              ),
              api.needs().then(show((said) => setNeeds(said.needs))),
              api.overlay().then(show((said) => setEntries(said.entries))),
            ]);
            if (isOver) return;
            // A server that is busy is asked less often.
            late = performance.now() - began;
            lookedAt = found.now;
          } else {
            if (place.at !== null) wait = LATER;
            // Some of it comes of time alone.
            if (found.now - lookedAt >= SLOWLY) {
              lookedAt = found.now;
              setNeeds((await api.needs()).needs);
            }
          }
          setTrouble("");
        } catch (error) {
          if (isOver) return;
          setTrouble((error as Error).message);
          // An overlay that cannot be read stops all views but this one, which says why.
          api.needs().then((said) => setNeeds(said.needs), () => undefined);
          wait = LATER;
        }
        await pause(Math.max(wait - (performance.now() - began), late, 50));
        late = 0;
        // What a dialog is about stays as it is while it is open.
        while ((document.hidden || document.querySelector("dialog[open]")) && !isOver) {
          await pause(EVERY);
        }
        if (isOver) return;
      }
    };
    void run();
    return () => {
      isOver = true;
    };
  }, [place.task, place.node, place.at, place.view, asked]);

  const again = (): void => {
    nudge.current += 1;
    setAsked(nudge.current);
  };

  // The first task is shown without a click, also if it comes later than the page.
  useEffect(() => {
    const first = seen?.tasks[0];
    const isOfTask = place.view === "now" || place.view === "then";
    if (place.task === null && first && isOfTask) go({ task: first.key }, true);
  }, [seen?.tasks.length === 0, seen === null, place.task, place.view]);

  // Where one has gone, the focus and the title of the tab say.
  const heading =
    place.decision !== null
      ? "decision-title"
      : place.q !== ""
        ? "found-title"
        : place.view === "needs" || place.view === "said"
          ? `${place.view}-title`
          : place.node !== null
            ? "agent-title"
            : "tasks-title";
  const isFirst = useRef(true);
  useEffect(() => {
    const wasFirst = isFirst.current;
    isFirst.current = false;
    return wasFirst ? undefined : arrive(heading);
  }, [heading, place.decision]);
  const open = needs?.filter((one) => !one.handled).length ?? 0;
  useEffect(() => {
    const name = {
      "decision-title": "Decision",
      "found-title": place.q,
      "needs-title": "Needs you",
      "said-title": "Operator actions",
    }[heading];
    const view = name ?? (place.view === "then" ? "History" : "Now");
    const shown = [agent?.node.id === place.node && agent?.node.agent, task?.task.key === place.task && task?.task.task];
    const parts = [...(name === undefined ? shown : []), view, "captoken"].filter(Boolean);
    document.title = `${open ? `(${open}) ` : ""}${parts.join(" · ")}`;
  }, [heading, place.q, place.view, open, agent?.node.id, task?.task.key]);

  useHeard(task, setHeard);
  useEffect(() => {
    const timer = setTimeout(() => setTold(""), TOLD_FOR);
    return () => clearTimeout(timer);
  }, [told]);

  const choose = useCallback((key: string) => go({ task: key, node: null }), []);
  const chooseNode = useCallback((id: string) => go({ node: id }), []);
  // From a token that is pasted to its agent, where it can be stopped: if it is that agent's.
  const onToken = (text: string): void => {
    api.pasted(text).then(
      (found) => {
        if (found.trouble === null && found.is_known) {
          go({ view: "now", at: null, q: "", task: found.task, node: found.node });
        }
        setPasted(found);
      },
      (error: Error) => setPasted({ trouble: error.message }),
    );
  };
  const view = (name: ViewName): void =>
    go({ view: name, q: "", at: name === "then" ? (place.at ?? serverNow()) : null });

  const aimAtTask = (kind: Aim["kind"]): void => {
    if (!task) return;
    const names = task.nodes.map((node) => node.agent);
    setAim({
      kind,
      agent: null,
      task: task.task.task,
      select: { task: task.task.key },
      below: names,
      suggested: null,
    });
  };
  const lift = (entry: Entry): void =>
    setAim({
      kind: "lift",
      agent: null,
      task: "",
      select: {},
      below: [],
      suggested: null,
      entry,
    });
  const aimAtAgent = (kind: Aim["kind"], all = false): void => {
    if (!agent) return;
    const isHere = task !== null && task.nodes.some((node) => node.id === agent.node.id);
    setAim(aimAt(kind, agent, isHere ? task.task.task : "another task", all));
  };
  // From the list, which stays behind the dialog.
  const revoke = (key: string, node: string): void => {
    Promise.all([api.agent(node, null), api.task(key, null)]).then(
      ([view, { task }]) => setAim(aimAt("revoke", view, task.task)),
      (error: Error) => setTold(error.message),
    );
  };

  useEffect(() => {
    if (place.decision !== null) setTold("");
  }, [place.decision]);

  // What is past is looked at.
  const canAct = who?.can_act === true && place.view !== "then";
  const then = place.at ?? now;
  // What is seen counts in a question, also where a clock here or there is a little behind.
  const newest = Math.max(now, Math.min(lastOf(seen), now + A_LITTLE));
  const isTask = task !== null && task.task.key === place.task;
  const isOneOfMany = (seen?.trails.length ?? 0) > 1;
  const among = useMemo(() => ({ isOneOfMany, onTrace: setTrace }), [isOneOfMany]);
  return (
    <Among.Provider value={among}>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        To the content
      </a>
      <Head
        view={place.q !== "" || place.decision !== null ? null : place.view}
        onView={view}
        seen={seen}
        who={who}
        now={now}
        said={entries.length}
        needs={needs}
      />
      {trouble && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      {seen?.trails
        .filter((one) => one.lacks !== null)
        .map((one) => (
          <p class="trouble" role="alert" key={one.name}>
            The trail {one.name} is not whole: {one.lacks}
          </p>
        ))}
      {seen?.trails
        .filter((one) => one.trouble !== null)
        .map((one) => (
          <p class="trouble" role="alert" key={one.name}>
            The trail {one.name} is not followed: {one.trouble}
          </p>
        ))}
      <QueryBar q={place.q} onAsk={(q) => go({ q })} onHelp={() => setHelp(true)} onToken={onToken} />
      {pasted && <Answered pasted={pasted} go={go} onClose={() => setPasted(null)} />}
      {place.view === "then" && seen && (
        <Slider
          at={then}
          now={now}
          first={Math.min(seen.first_at ?? now, now)}
          onMove={(at) => go({ at }, true)}
        />
      )}
      <main
        id="main"
        tabIndex={-1}
        class={
          place.decision !== null || place.q !== ""
            ? "alone"
            : `${place.view}${place.node ? " with-agent" : ""}${place.task ? " with-task" : ""}`
        }
      >
        {place.decision !== null ? (
          <Decision of={place.decision} now={now} go={go} tell={setTold} />
        ) : place.q !== "" ? (
          <Found place={place} rev={seen?.rev ?? ""} now={then} go={go} />
        ) : place.view === "needs" ? (
          <>
            <Needs
              needs={needs}
              now={now}
              canAct={canAct}
              go={go}
              onRevoke={revoke}
              onSign={() =>
                void api.act({ kind: "renew", why: "" }).then(
                  () => setTold("Signed now. It has to be signed again and again: captoken operate does."),
                  (error: Error) => setTold(error.message),
                )
              }
            />
            <div class="lately">
              <LastHour rev={seen?.rev ?? ""} go={go} />
              <Empty seen={seen} recent={recent} now={now} />
            </div>
          </>
        ) : place.view === "said" ? (
          <>
            <Said
              id="said"
              title="Operator actions"
              entries={entries.filter((entry) => !isByRule(entry))}
              now={now}
              canAct={canAct}
              has={seen?.overlay != null}
              onLift={lift}
            />
            {entries.some(isByRule) && (
              <Said
                id="by-rules"
                title="By rules"
                entries={entries.filter(isByRule)}
                now={now}
                canAct={canAct}
                has
                onLift={lift}
              />
            )}
          </>
        ) : (
          <>
            <Tasks
              key={place.at ?? "now"}
              tasks={seen?.tasks ?? []}
              more={seen?.more ?? 0}
              now={then}
              chosen={place.task}
              onChoose={choose}
            />
            <div class="middle">
              {isTask && task ? (
                <TaskPanel
                  view={task}
                  now={then}
                  at={place.at}
                  canAct={canAct}
                  chosen={place.node}
                  onAct={aimAtTask}
                  onChoose={chooseNode}
                  onSpan={(first, last) =>
                    go({
                      q: toSpan([`task:${spelled(task.task.key)}`], first, last),
                      by: "decisions",
                    })
                  }
                />
              ) : (
                <section class="panel">
                  <p class="none">
                    {seen === null || seen.tasks.length > 0 ? "Reading…" : "Nothing has been decided yet."}
                  </p>
                </section>
              )}
            </div>
            <div class="right">
              {agent && place.node === agent.node.id ? (
                <Agent
                  key={agent.node.id}
                  view={agent}
                  now={then}
                  rev={seen?.rev ?? ""}
                  at={place.at}
                  canAct={canAct}
                  onAct={aimAtAgent}
                  onGo={chooseNode}
                  onLift={lift}
                  tell={setTold}
                  onClose={() => go({ node: null })}
                />
              ) : (
                isTask &&
                place.task !== null && (
                  <section class="panel" aria-labelledby="last-title">
                    <div class="panel-head">
                      <h2 id="last-title">Decisions of the task</h2>
                    </div>
                    <Paged
                      key={place.task}
                      of={{ task: place.task }}
                      first={null}
                      at={place.at}
                      rev={seen?.rev ?? ""}
                      now={then}
                      who
                      caption="Decisions of the task, the last first"
                    />
                  </section>
                )
              )}
            </div>
          </>
        )}
      </main>
      {aim &&
        (aim.kind === "what-if" ? (
          <What aim={aim} last={place.at ?? newest} onClose={() => setAim(null)} />
        ) : (
          <Act
            aim={aim}
            by={who?.by ?? ""}
            onClose={() => setAim(null)}
            onDone={(said) => {
              setAim(null);
              setTold(said);
              again();
              // What was pressed to lift goes away with the entry.
              if (aim.kind === "lift") {
                setTimeout(() => document.getElementById("main")?.focus());
              }
            }}
          />
        ))}
      <p class="printed">
        Printed {exact(now)} UTC{who?.can_act && `, by ${who.by}`}
      </p>
      {help && <Help onClose={() => setHelp(false)} />}
      {trace && <Request trace={trace} now={then} at={place.at} onClose={() => setTrace(null)} />}
      <div class="told" role="status">
        {told}
      </div>
      <div class="unseen" role="log" aria-label="What was refused">
        {heard}
      </div>
    </Among.Provider>
  );
}

// Whose token it was that somebody has pasted. It stays until it is closed, or one goes elsewhere.
function Answered(props: {
  pasted: api.Pasted;
  go: (change: Partial<Place>) => void;
  onClose: () => void;
}): JSX.Element {
  const { pasted } = props;
  const claims = pasted.claims;
  const isKnown = pasted.trouble === null && pasted.is_known;
  return (
    <section class="answered" aria-label="The token that was pasted" role="status">
      <p>
        <strong>
          {claims === undefined
            ? "No token was found in what you pasted."
            : `You pasted a token that says it is for ${claims.agent}, in task ${claims.task}.`}
        </strong>{" "}
        {pasted.trouble !== null
          ? pasted.trouble
          : isKnown
            ? `The trails have this very token: it was handed to ${pasted.agent}, who is shown here.`
            : "No trail here has it. By its own text, which anybody can write, it was made from a " +
              `token of ${pasted.agent}: to revoke that stops ${pasted.agent}, too.`}
        {claims !== undefined && " Its signatures were not verified."}
      </p>
      <span class="where">
        {pasted.trouble === null && !isKnown && (
          <button
            type="button"
            class="small"
            onClick={() => props.go({ view: "now", at: null, q: "", task: pasted.task, node: pasted.node })}
          >
            Show {pasted.agent}
          </button>
        )}
        <a class="button small" href="inspector.html" target="_blank" rel="noopener">
          Inspect a token<span class="unseen"> in a new tab</span> <span aria-hidden="true">↗</span>
        </a>
        <button type="button" class="small" onClick={props.onClose}>
          Close<span class="unseen"> what was said of the token</span>
        </button>
      </span>
    </section>
  );
}

// What servers decided on one request, as they were told which it is.
function Request(props: {
  trace: { text: string; key: string };
  now: number;
  at: number | null;
  onClose: () => void;
}): JSX.Element {
  const { trace } = props;
  const [page, setPage] = useState<api.Page | null>(null);
  const [trouble, setTrouble] = useState("");
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    close.current?.focus();
    api
      .decisions({ trace: trace.key }, null, false, props.at, 100)
      .then(setPage, (error: Error) => setTrouble(error.message));
  }, [trace.key]);
  const among = useMemo(() => ({ isOneOfMany: true, onTrace: null }), []);
  return (
    <Dialog title="One request, at all servers" wide onClose={props.onClose}>
      <p>
        Trace <code>{trace.text}</code>, the last first. Whoever calls says which trace it is, so
        that others may use the same.
      </p>
      {trouble && (
        <p class="bad" role="alert">
          {trouble}
        </p>
      )}
      {page && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Decisions of the request">
          <Among.Provider value={among}>
            <Decisions rows={page.rows} now={props.now} who caption="Decisions of the request" />
          </Among.Provider>
          {page.next !== null && <p class="none">Earlier ones are not shown.</p>}
        </div>
      )}
      <div class="buttons">
        <button type="button" ref={close} class="default" onClick={props.onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

// What is not there any more is nothing. All else is an error.
function gone(error: unknown): null {
  if (error instanceof api.Refusal && error.status === 404) return null;
  throw error;
}

// Says what was refused since the last look, for who does not see it.
function useHeard(task: TaskView | null, say: (said: string) => void): void {
  const before = useRef<{ key: string; denied: number; at: number } | null>(null);
  useEffect(() => {
    if (!task) return;
    const { key, denied } = task.task;
    const kept = before.current;
    if (kept?.key !== key) {
      before.current = { key, denied, at: -HEARD_EACH };
      return;
    }
    if (denied <= kept.denied) return;
    const tell = (): void => {
      before.current = { key, denied, at: performance.now() };
      const last = task.nodes
        .filter((node) => node.last !== null && !node.last.allowed)
        .sort((a, b) => (b.last?.at ?? 0) - (a.last?.at ?? 0))[0];
      const which = last?.last ? ` The last: ${last.last.what}, by ${last.agent}.` : "";
      say(`${count(denied - kept.denied, "call")} refused.${which}`);
    };
    const wait = kept.at + HEARD_EACH - performance.now();
    if (wait <= 0) {
      tell();
      return;
    }
    const timer = setTimeout(tell, wait);
    return () => clearTimeout(timer);
  }, [task]);
}

// When the last record of any trail was written, or 0.
const lastOf = (seen: Now | null): number =>
  Math.max(0, ...(seen?.trails.map((one) => one.last_at ?? 0) ?? []));

function Head(props: {
  view: ViewName | null;
  onView: (view: ViewName) => void;
  seen: Now | null;
  who: Session | null;
  now: number;
  said: number;
  needs: Need[] | null;
}): JSX.Element {
  const { seen, now } = props;
  const waiting = props.needs?.filter((one) => !one.handled).length ?? 0;
  const grave = props.needs?.some((one) => one.grave) ?? false;
  // One source for what is said of the overlay, here and below.
  const stale = props.needs?.find((one) => one.kind === "overlay");
  const tab = (name: ViewName, text: string): JSX.Element => (
    <button
      type="button"
      class="tab"
      aria-current={props.view === name ? "page" : undefined}
      onClick={() => props.onView(name)}
    >
      {text}
      {name === "needs" && waiting > 0 && (
        <span class={grave ? "badge is-grave" : "badge"}>
          {plainNumber(waiting)}
          <span class="unseen"> {waiting === 1 ? "thing" : "things"}</span>
        </span>
      )}
    </button>
  );
  const records = seen?.trails.reduce((sum, one) => sum + one.records, 0) ?? 0;
  const last = lastOf(seen);
  return (
    <header>
      <h1>
        captoken <span>console</span>
      </h1>
      <nav aria-label="Views">
        {tab("needs", "Needs you")}
        {tab("now", "Now")}
        {tab("then", "History")}
        {tab("said", `Operator actions${seen?.overlay ? ` (${props.said})` : ""}`)}
        <a class="button tab" href="inspector.html" target="_blank" rel="noopener">
          Inspector<span class="unseen"> in a new tab</span> <span aria-hidden="true">↗</span>
        </a>
      </nav>
      <p class="status">
        {seen === null ? (
          "Reading…"
        ) : (
          <>
            <span class="extent" title={seen.trails.map((one) => one.name).join(", ")}>
              {seen.trails.length > 1 && `${count(seen.trails.length, "trail")}, `}
              {count(records, "record")}
              {last > 0 && (
                <>
                  , last <Ago at={last} now={now} />
                </>
              )}
            </span>
            {seen.overlay && (
              <span
                class={stale ? (stale.grave ? "bad" : "warn") : ""}
                title={`the overlay, snapshot ${plainNumber(seen.overlay.seq)}`}
              >
                overlay{" "}
                {seen.overlay.expires_at <= now
                  ? `expired ${ago(seen.overlay.expires_at, now)}`
                  : `signed ${ago(seen.overlay.issued_at, now)}`}
              </span>
            )}
            <span>
              {props.who?.can_act ? (
                <>
                  you act as <strong>{props.who.by}</strong>
                </>
              ) : (
                "you look, and cannot act"
              )}
            </span>
            <span>
              <span class="unseen">all </span>times <span class="unseen">are </span>UTC
            </span>
          </>
        )}
      </p>
    </header>
  );
}

function TaskPanel(props: {
  view: TaskView;
  now: number;
  at: number | null;
  canAct: boolean;
  chosen: string | null;
  onAct: (kind: Aim["kind"]) => void;
  onChoose: (id: string) => void;
  onSpan: (first: number, last: number) => void;
}): JSX.Element {
  const { task, nodes, series } = props.view;
  const isOver = task.state === "over" || task.state === "ended";
  return (
    <section class="panel" aria-labelledby="task-title">
      <div class="panel-head">
        <h2 id="task-title">
          <span class="kind">Task</span> <span class="name">{task.task}</span>
        </h2>
      </div>
      <p class="facts">
        <StateMark state={task.state} />
        <span>for {task.subject}</span>
        <span>
          {count(task.agents, "agent")}, {count(task.tokens, "token")}
        </span>
        <span>
          {count(task.allowed, "call")} allowed,{" "}
          <span class={task.denied ? "bad" : ""}>{plainNumber(task.denied)} refused</span>
        </span>
        <span>
          since <Ago at={task.first_at} now={props.now} />
        </span>
        {task.expires_at !== null && (
          <span title={exact(task.expires_at)}>
            {task.expires_at > props.now
              ? `ends in ${duration(task.expires_at - props.now)}`
              : `ended ${ago(task.expires_at, props.now)}`}
          </span>
        )}
      </p>
      <div class="actions">
        {props.canAct && (
          <>
            <Press kind="danger" off={isOver} onPress={() => props.onAct("end")}>
              End task…
            </Press>
            <Press off={isOver} onPress={() => props.onAct("narrow")}>
              Narrow<span class="unseen"> task</span>…
            </Press>
          </>
        )}
        <button type="button" onClick={() => props.onAct("what-if")}>
          What if<span class="unseen"> for the task</span>…
        </button>
        <Export of={{ task: task.key }} at={props.at} />
      </div>
      {props.canAct && isOver && (
        <p class="muted">No token of it works any more: there is nothing to end or to narrow.</p>
      )}
      <Plot series={series} onSpan={props.onSpan} />
      <Marks view={props.view} now={props.now} />
      <h3>Agents</h3>
      {nodes.length === 0 ? (
        <p class="none">No agent yet.</p>
      ) : (
        <Tree nodes={nodes} now={props.now} chosen={props.chosen} onChoose={props.onChoose} />
      )}
    </section>
  );
}

// What the task has set, and what its rules refused after that. Nothing where it has no marks.
function Marks(props: { view: TaskView; now: number }): JSX.Element | null {
  const { marks, closed } = props.view;
  if (marks.length === 0 && closed.count === 0) return null;
  return (
    <>
      <h3 id="marks-title">Marks</h3>
      <ul class="marks" aria-labelledby="marks-title">
        {marks.map((mark) => (
          <li key={`${mark.name} ${mark.whose}`}>
            <span class="name">{mark.name}</span>
            {mark.whose === "entry" && " of an operator's entry"}
            {mark.whose !== "entry" && mark.whose !== "task" && ` of link ${mark.whose}`}
            {" since "}
            <Ago at={mark.since} now={props.now} />
            {mark.by.who && ` by ${mark.by.who}`}: {mark.by.what}
          </li>
        ))}
      </ul>
      {closed.count > 0 && (
        <>
          <p class="bad">{count(closed.count, "call")} refused after that.</p>
          <Decisions rows={closed.rows} now={props.now} who caption="What rules over marks refused last" />
        </>
      )}
    </>
  );
}

const REFUSALS = 12; // kinds

function Empty(props: { seen: Now | null; recent: api.Page | null; now: number }): JSX.Element {
  return (
    <section class="panel" aria-labelledby="empty-title">
      <div class="panel-head">
        <h2 id="empty-title">Refused lately</h2>
      </div>
      {props.seen === null || props.recent === null ? (
        <p class="none">Reading…</p>
      ) : (
        <Decisions
          rows={together(props.recent.rows).slice(0, REFUSALS)}
          now={props.now}
          who
          caption="What was refused last, in all tasks; what came several times stands once"
        />
      )}
    </section>
  );
}

// Was it made by a rule of `captoken react`, and not by a person?
const isByRule = (entry: Entry): boolean => entry.by.startsWith("react:");

// What operators have said, or rules have done, and what stands of it.
function Said(props: {
  id: string;
  title: string;
  entries: Entry[];
  now: number;
  canAct: boolean;
  has: boolean;
  onLift: (entry: Entry) => void;
}): JSX.Element {
  return (
    <section class="panel" aria-labelledby={`${props.id}-title`}>
      <div class="panel-head">
        <h2 id={`${props.id}-title`}>{props.title}</h2>
      </div>
      {!props.has ? (
        <p class="none">There is no overlay here: start the console with --overlay.</p>
      ) : props.entries.length === 0 ? (
        <p class="none">Nothing stands: all tokens do what they say.</p>
      ) : (
        <table class="said">
          <caption class="unseen">{props.title} in force</caption>
          <thead>
            <tr>
              <th scope="col">Is about</th>
              <th scope="col">Limits to</th>
              <th scope="col">By</th>
              <th scope="col">Why</th>
              {props.canAct && (
                <th scope="col">
                  <span class="unseen">Lift</span>
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {props.entries.map((entry) => (
              <tr key={entry.id}>
                <td data-label="Is about">
                  {entry.whom && <strong class="whom">{entry.whom} </strong>}
                  <span class={entry.whom ? "muted" : ""}>{entry.select}</span>
                </td>
                <td data-label="Limits to">
                  {entry.narrows === null ? (
                    <span class="bad">
                      <span aria-hidden="true">✕</span> nothing
                    </span>
                  ) : (
                    entry.narrows.join("; ")
                  )}
                </td>
                <td data-label="By">
                  {entry.by}, <Ago at={entry.at} now={props.now} both />
                  {entry.until !== null && ` until ${exact(entry.until)}`}
                </td>
                <td data-label="Why">{entry.why}</td>
                {props.canAct && (
                  <td>
                    <button type="button" class="small" onClick={() => props.onLift(entry)}>
                      Lift<span class="unseen"> the entry on {entry.select}</span>…
                    </button>
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

// A time to look back to.
function Slider(props: {
  at: number;
  now: number;
  first: number;
  onMove: (at: number) => void;
}): JSX.Element {
  const [at, setAt] = useState(props.at);
  useEffect(() => setAt(props.at), [props.at]);
  // The server is asked once the hand rests.
  useEffect(() => {
    if (at === props.at) return;
    const timer = setTimeout(() => props.onMove(at), 150);
    return () => clearTimeout(timer);
  }, [at]);
  const step = (by: number): void => setAt(Math.min(props.now, Math.max(props.first, at + by)));
  return (
    <section class="slider" aria-label="As of which time">
      <label for="at">As of</label>
      <input
        id="at"
        type="range"
        min={props.first}
        max={props.now}
        step={1}
        value={at}
        aria-valuetext={`${exact(at)}, ${ago(at, props.now)}`}
        onInput={(event) => setAt(Number(event.currentTarget.value))}
      />
      <output for="at">
        <TimeField id="then" label="As of, in UTC" at={at} onTime={(to) => step(to - at)} />{" "}
        <span class="muted">{ago(at, props.now)}</span>
      </output>
      <span class="steps">
        <button type="button" class="small" onClick={() => step(-3600)}>
          <span aria-hidden="true">−</span>
          <span class="unseen">back by </span>1 h
        </button>
        <button type="button" class="small" onClick={() => step(-60)}>
          <span aria-hidden="true">−</span>
          <span class="unseen">back by </span>1 min
        </button>
        <button type="button" class="small" onClick={() => step(-1)}>
          <span aria-hidden="true">−</span>
          <span class="unseen">back by </span>1 s
        </button>
        <button type="button" class="small" onClick={() => step(1)}>
          <span aria-hidden="true">+</span>
          <span class="unseen">on by </span>1 s
        </button>
        <button type="button" class="small" onClick={() => step(60)}>
          <span aria-hidden="true">+</span>
          <span class="unseen">on by </span>1 min
        </button>
        <button type="button" class="small" onClick={() => step(3600)}>
          <span aria-hidden="true">+</span>
          <span class="unseen">on by </span>1 h
        </button>
      </span>
      <p class="muted">
        Calls, counts and entries are of that time. What was lifted before this console began, it
        does not know.
      </p>
    </section>
  );
}

// What is dropped beside a field would be opened as an address: a token, too.
for (const name of ["dragover", "drop"] as const) {
  addEventListener(name, (event) => {
    const isField = event.target instanceof Element && event.target.closest("textarea, input");
    if (!isField) event.preventDefault();
  });
}

const root = document.getElementById("app");
if (root) render(<App />, root);
