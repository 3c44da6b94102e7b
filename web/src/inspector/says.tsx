// What a token says, in words: the whole, and link by link.
import type { JSX } from "preact";
import type { Mark } from "./bytes";
import type { Part } from "./layout";
import type { Hop, Problem, Read, Row, TokenRead } from "./read";
import type { Refused } from "../tried";
import type { Verdict } from "./verify";

function Code(props: { problem: Problem }): JSX.Element {
  return (
    <p class="problem">
      <code>{props.problem.code}</code> <span>{props.problem.text}</span>
    </p>
  );
}

// Who started what. Of what travels beside tokens: all that it says.
export function Says(props: { seen: Read; isGood: boolean }): JSX.Element {
  const { seen, isGood } = props;
  if (seen.kind === "none") {
    return (
      <section class="panel" aria-labelledby="says-title">
        <h2 id="says-title">No token</h2>
        <Code problem={seen.problem} />
        <p class="hint">
          {seen.isCut
            ? "It begins as a token does. Copy it again, to its very end."
            : "It begins as no token does."}{" "}
          What can be read of its bytes stands under Bytes.
        </p>
      </section>
    );
  }
  if (seen.kind !== "token") {
    return (
      <section class="panel" aria-labelledby="says-title">
        <h2 id="says-title">{seen.title}</h2>
        {seen.problem && <Code problem={seen.problem} />}
        <Lines says={seen.says} isOver={seen.isOver} isVoid={seen.problem !== null} />
      </section>
    );
  }
  return (
    <section class="panel root" aria-labelledby="says-title">
      <p class="kind">
        {isGood
          ? "Root record, written by the issuer"
          : "Root record, which anybody can have written"}
      </p>
      <h2 id="says-title" class="name">
        {seen.title}
      </h2>
      <Rows rows={seen.facts} />
    </section>
  );
}

const WHEN = /^(?:answered, )?until /;

function Lines(props: { says: readonly string[]; isOver: boolean; isVoid: boolean }): JSX.Element {
  return (
    <ul class={props.isVoid ? "lines is-void" : "lines"}>
      {props.says.map((line, place) => (
        <li key={place} class={props.isOver && WHEN.test(line) ? "bad" : ""}>
          {line}
        </li>
      ))}
    </ul>
  );
}

function Rows(props: { rows: readonly Row[] }): JSX.Element {
  return (
    <dl class="rows">
      {props.rows.map(({ label, says }, place) => (
        <div key={place}>
          <dt>{label}</dt>
          {says.map((line, at) => (
            <dd key={at}>{line}</dd>
          ))}
        </div>
      ))}
    </dl>
  );
}

// --- all links together --------------------------------------------------------------------------

export function Summary(props: { seen: TokenRead; verdict: Verdict | null }): JSX.Element {
  const { seen, verdict } = props;
  const rest = seen.summary.filter(({ label }) => label !== "may");
  const isNothing = seen.may[0] === "nothing";
  const isGood = verdict?.state === "good";
  return (
    <section class="panel" aria-labelledby="may-title">
      <h2 id="may-title">{isGood ? "What it permits" : "What it says that it permits"}</h2>
      <ul class={isNothing ? "may is-nothing" : "may"}>
        {seen.may.map((line, place) => (
          <li key={place}>{line}</li>
        ))}
      </ul>
      <Rows rows={rest} />
      {verdict && isGood && <Verified verdict={verdict} />}
    </section>
  );
}

const BASES: Record<string, string> = {
  issued: "the issuer named it",
  vouched: "whoever handed on vouches for the name",
  proven: "it proved to have its key",
};

function Verified(props: { verdict: Verdict }): JSX.Element {
  const { chain, now, servers } = props.verdict;
  return (
    <div class="verified">
      <h3>What the key tells</h3>
      <ul class="chain">
        {chain.map(({ name, basis }, place) => (
          <li key={place}>
            <span class="name">{name}</span> <span class="basis">{basis}</span>{" "}
            <span class="muted">{BASES[basis]}</span>
          </li>
        ))}
      </ul>
      <h3>
        {servers.length ? `Now, at ${servers.join(", ")}` : "Now, at a server without a name"}
      </h3>
      {now.length === 0 ? (
        <p class="ok">A server would accept it now. Which calls it allows, the links decide.</p>
      ) : (
        now.map((one, place) => <Refusal key={place} refused={one} />)
      )}
      <p class="hint">Whether an operator has stopped it, only a server’s overlay tells.</p>
    </div>
  );
}

function Refusal(props: { refused: Refused }): JSX.Element {
  const { code, text, place } = props.refused;
  return (
    <p class="problem">
      <code>{code}</code> <span>{text}</span>
      {place && <span class="place"> ({place})</span>}
    </p>
  );
}

// --- link by link --------------------------------------------------------------------------------

export function Links(props: {
  seen: TokenRead;
  parts: readonly Part[];
  mark: Mark;
  onHover: (id: string | null) => void;
  onChoose: (id: string | null) => void;
}): JSX.Element {
  const { seen, mark } = props;
  return (
    <section class="panel" aria-labelledby="links-title">
      <h2 id="links-title">Links, each of which takes away</h2>
      <ol class="links">
        {seen.hops.map((hop) => {
          const part = props.parts.find(({ link }) => link === hop.number)?.id ?? null;
          const isMarked = part !== null && (mark.over ?? mark.chosen) === part;
          return (
            <li
              key={hop.number}
              class={`link${hop.problem ? " is-bad" : ""}${isMarked ? " is-marked" : ""}`}
              onPointerEnter={() => props.onHover(part)}
              onPointerLeave={() => props.onHover(null)}
            >
              <Head hop={hop} />
              {part !== null && (
                <button
                  type="button"
                  class="small"
                  aria-pressed={mark.chosen === part}
                  aria-label={`Bytes of link ${hop.number}`}
                  onClick={() => props.onChoose(mark.chosen === part ? null : part)}
                >
                  Bytes
                </button>
              )}
              {hop.problem && <Code problem={hop.problem} />}
              <Lines says={hop.says} isOver={hop.isOver} isVoid={hop.problem !== null} />
            </li>
          );
        })}
      </ol>
    </section>
  );
}

function Head(props: { hop: Hop }): JSX.Element {
  const { number, addedBy, receiver } = props.hop;
  return (
    <h3>
      <span class="number">link {number}</span>, added by <span class="name">{addedBy}</span>
      {receiver !== null && (
        <>
          , hands on to <span class="name">{receiver}</span>
        </>
      )}
    </h3>
  );
}
