// One agent: how it came to be, what it may do and did, what it never needed, and what stops it.
import type { JSX } from "preact";
import { useContext, useEffect, useRef } from "preact/hooks";
import type { AgentView, Entry } from "./api";
import { count, exact, minuteOf, plainNumber, STATES } from "./format";
import { Paged } from "./paged";
import { Ago, Among, Bar, Basis, Copy, Export, Press, StateMark } from "./parts";
import { saysTime, timeLeft } from "./tree";

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
        {node.strange > 0 && (
          <strong class="bad">
            <span aria-hidden="true">▲ </span>
            {count(node.strange, "call")} by somebody without its key
          </strong>
        )}
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
      {props.canAct && isOver && (
        <p class="muted">
          This token is {STATES[node.state]?.says}: there is nothing of it to revoke or to narrow.
        </p>
      )}

      {view.said.length > 0 && (
        <>
          <h3>Operator actions on it</h3>
          <ul class="may">
            {view.said.map((entry) => (
              <li key={entry.id}>
                {entry.narrows === null ? "Revoked" : `Limited to: ${entry.narrows.join("; ")}`}
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

      <h3>May{view.said.length > 0 && " now"}</h3>
      <ul class="may" aria-label="What it may do">
        {view.may.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      {view.by_token.length > 0 && (
        <p class="muted">By its token alone: {view.by_token.join("; ")}.</p>
      )}
      <div class="gauges">
        <div class="gauge">
          <span>Time</span>
          <Bar left={timeLeft(node, now)} label="Time left" />
          <span>
            {saysTime(node, now)}
            {node.expires_at !== null && (
              <span class="exact" title={exact(node.expires_at)}>
                {" "}
                until {minuteOf(node.expires_at)}
              </span>
            )}
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
              <div class="muted">nothing was taken away</div>
            ) : (
              <ul
                class="may"
                aria-label={place === 0 ? "What it was issued with" : `What was left to ${hop.holder}`}
              >
                {hop.took.map((line) => (
                  <li key={line}>{line}</li>
                ))}
              </ul>
            )}
            {hop.lost.length > 0 && (
              <ul class="took" aria-label={`What was taken away on the way to ${hop.holder}`}>
                {hop.lost.map((line) => (
                  <li key={line}>
                    <span class="muted">no more </span>
                    {line}
                  </li>
                ))}
              </ul>
            )}
          </li>
        ))}
      </ol>

      {view.unused && (
        <>
          <h3>{view.unused.allowed === 0 ? "Given, and never used" : "Less would have done"}</h3>
          {view.unused.allowed === 0 ? (
            <p class="none">All of it: none of its calls was allowed.</p>
          ) : (
            <>
              <p>
                This would have been enough for its {count(view.unused.allowed, "call")}, with those of
                all below:
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
