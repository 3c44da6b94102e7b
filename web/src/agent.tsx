// One agent: how it came to be, what it may do and did, what it never needed, and what stops it.
import type { JSX } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { AgentView, Entry, Page, Row } from "./api";
import { count, exact, plainNumber, STATES } from "./format";
import { Ago, Among, Bar, Basis, Copy, Decisions, Export, Press, StateMark } from "./parts";
import { saysTime, timeLeft } from "./tree";

const LIMIT = 25;

// Decisions a page at a time. The first page is the newest, and moves on with the trail.
export function Paged(props: {
  of: { id: string } | { task: string };
  first: Page | null;
  at: number | null;
  rev: string;
  now: number;
  caption: string;
  who?: boolean;
}): JSX.Element {
  const [refused, setRefused] = useState(false);
  const [before, setBefore] = useState<string[]>([]);
  const [page, setPage] = useState<Page | null>(props.first);
  const [trouble, setTrouble] = useState("");
  const cursor = before.at(-1) ?? null;
  const of = JSON.stringify(props.of);

  useEffect(() => setBefore([]), [of, refused, props.at]);
  // A page of earlier decisions stays as it is: it is asked for once.
  const rev = cursor === null ? props.rev : "";
  useEffect(() => {
    let isOver = false;
    api.decisions(props.of, cursor, refused, props.at, LIMIT).then(
      (found) => {
        if (isOver) return;
        setPage(found);
        setTrouble("");
      },
      (error: Error) => {
        if (!isOver) setTrouble(error.message);
      },
    );
    return () => {
      isOver = true;
    };
  }, [of, cursor, refused, rev, props.at]);

  const rows: Row[] = page?.rows ?? [];
  return (
    <>
      <div class="filters">
        <label class="check">
          <input
            type="checkbox"
            checked={refused}
            onChange={(event) => setRefused(event.currentTarget.checked)}
          />
          refused only
        </label>
        <span class="pager">
          <Press
            kind="small"
            off={before.length === 0}
            onPress={() => setBefore(before.slice(0, -1))}
          >
            Newer
          </Press>
          <span class="muted">page {before.length + 1}</span>
          <Press
            kind="small"
            off={!page?.next}
            onPress={() => page?.next && setBefore([...before, page.next])}
          >
            Older
          </Press>
        </span>
      </div>
      {trouble && (
        <p class="bad" role="alert">
          {trouble}
        </p>
      )}
      <Decisions rows={rows} now={props.now} caption={props.caption} who={props.who ?? false} />
    </>
  );
}

export function Agent(props: {
  view: AgentView;
  now: number;
  rev: string;
  at: number | null;
  canAct: boolean;
  onAct: (kind: "narrow" | "revoke" | "what-if", all?: boolean) => void;
  onGo: (id: string) => void;
  onLift: (entry: Entry) => void;
  onClose: () => void;
  tell: (said: string) => void;
}): JSX.Element {
  const { view, now } = props;
  const { isOneOfMany } = useContext(Among);
  const { node } = view;
  const works = view.reach.agents;
  const box = useRef<HTMLElement>(null);
  // Where all stands in one column, it is below what was pressed.
  useEffect(() => {
    if (!matchMedia("(min-width: 1200px)").matches) box.current?.scrollIntoView({ block: "start" });
  }, []);
  const isOver = node.state === "revoked" || node.state === "expired";
  return (
    <section ref={box} class="panel agent" aria-labelledby="agent-title">
      <div class="panel-head">
        <h2 id="agent-title">
          <span class="kind">Agent</span> <span class="name">{node.agent}</span>
        </h2>
        <button type="button" class="small" onClick={props.onClose}>
          Close<span class="unseen"> this agent</span>
        </button>
      </div>
      <p class="facts">
        <StateMark state={node.state} /> <Basis basis={node.basis} />
        <span>
          {count(node.allowed, "call")} allowed,{" "}
          <span class={node.denied ? "bad" : ""}>{plainNumber(node.denied)} refused</span>
        </span>
        {node.last && (
          <span>
            last: <Ago at={node.last.at} now={now} />
          </span>
        )}
        {isOneOfMany && node.servers.length > 0 && <span>at {node.servers.join(", ")}</span>}
      </p>
      <div class="actions">
        {props.canAct && (
          <>
            <Press kind="danger" off={isOver} onPress={() => props.onAct("revoke")}>
              Revoke with all below…
            </Press>
            <Press off={false} onPress={() => props.onAct("revoke", true)}>
              Revoke all its tokens…
            </Press>
            <Press off={isOver} onPress={() => props.onAct("narrow")}>
              Narrow…
            </Press>
          </>
        )}
        <button type="button" onClick={() => props.onAct("what-if")}>
          What if…
        </button>
        <Export of={{ id: node.id }} at={props.at} />
      </div>

      {view.said.length > 0 && (
        <>
          <h3>Operator actions on it</h3>
          <ul class="may">
            {view.said.map((entry) => (
              <li key={entry.id}>
                {entry.narrows === null ? "Revoked" : `Narrowed: ${entry.narrows.join("; ")}`}
                {", for "}
                {entry.select}: {entry.why}{" "}
                <span class="muted">
                  ({entry.by}, <Ago at={entry.at} now={now} />)
                </span>
                {props.canAct && (
                  <>
                    {" "}
                    <button type="button" class="small" onClick={() => props.onLift(entry)}>
                      Lift<span class="unseen"> what was said for {entry.select}</span>…
                    </button>
                  </>
                )}
              </li>
            ))}
          </ul>
        </>
      )}

      <h3>May{view.said.length > 0 && ", by its token"}</h3>
      <ul class="may">
        {view.may.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      <div class="gauges">
        <div class="gauge">
          <span>Time</span>
          <Bar left={timeLeft(node, now)} label="Time left" />
          <span>
            {saysTime(node, now)}
            {node.expires_at !== null && <span class="exact"> until {exact(node.expires_at)}</span>}
          </span>
        </div>
        {node.budget.map((one, place) => (
          <div class="gauge" key={`${one.unit}-${place}`}>
            <span>
              {one.unit}
              {one.of !== node.agent && <span class="muted"> of {one.of}</span>}
            </span>
            {one.spent === null ? (
              <span class="muted">{props.at === null ? "no ledger here" : "not known for then"}</span>
            ) : (
              <Bar
                left={1 - one.spent / Math.max(1, one.limit)}
                label={`${one.unit} of ${one.of} left`}
              />
            )}
            <span>
              {one.spent === null
                ? `at most ${plainNumber(one.limit)}`
                : `${plainNumber(Math.max(0, one.limit - one.spent))} of ` +
                  `${plainNumber(one.limit)} left`}
            </span>
          </div>
        ))}
      </div>

      <h3>Handed over</h3>
      <ol class="chain">
        {view.chain.map((hop, place) => (
          <li key={hop.id}>
            {hop.id === node.id ? (
              <strong>{hop.holder}</strong>
            ) : (
              <button type="button" class="link" onClick={() => props.onGo(hop.id)}>
                {hop.holder}
              </button>
            )}{" "}
            <Basis basis={hop.basis} />
            {hop.took.length === 0 ? (
              <div class="muted">took nothing away</div>
            ) : (
              <ul
                class={place === 0 ? "may" : "took"}
                aria-label={
                  place === 0
                    ? "What it was issued with"
                    : `What was taken away on the way to ${hop.holder}`
                }
              >
                {hop.took.map((line) => (
                  <li key={line}>{line}</li>
                ))}
              </ul>
            )}
          </li>
        ))}
      </ol>

      {view.unused && (
        <>
          <h3>Given, and never used</h3>
          {view.unused.allowed === 0 ? (
            <p class="none">All of it: none of its calls was allowed.</p>
          ) : (
            <>
              <p>
                This would have done for its {count(view.unused.allowed, "call")}, those below too:
              </p>
              <div class="copied">
                <pre tabIndex={0} aria-label="The narrower token to make instead">
                  {view.unused.python}
                </pre>
                <Copy text={view.unused.python} tell={props.tell} />
              </div>
            </>
          )}
        </>
      )}

      <h3>Working below</h3>
      {works.length === 0 ? (
        <p class="none">Nothing: neither it nor what came of it.</p>
      ) : (
        <>
          <p>
            Revoking this stops {count(works.length, "agent")}:
          </p>
          <ul class="reach">
            {works.slice(0, 50).map((one) => (
              <li key={one.id}>
                {one.id === node.id ? (
                  one.agent
                ) : (
                  <button type="button" class="link" onClick={() => props.onGo(one.id)}>
                    {one.agent}
                  </button>
                )}
                {one.state !== "live" && <span class="muted"> {STATES[one.state]?.says}</span>}
              </li>
            ))}
          </ul>
          {works.length > 50 && <p class="none">and {works.length - 50} more.</p>}
        </>
      )}

      <h3>Decisions</h3>
      <Paged
        of={{ id: node.id }}
        first={view.decisions}
        at={props.at}
        rev={props.rev}
        now={now}
        caption={`Decisions about ${node.agent}, the last first`}
      />
    </section>
  );
}
