// Where an access is tried: may it be done, and if not, which link refuses and who added it?
import type { JSX } from "preact";
import type { Tried } from "./tried";

export function Trying(props: {
  typed: string;
  tried: Tried | null;
  onType: (typed: string) => void;
}): JSX.Element {
  const { typed, tried } = props;
  return (
    <section class="panel trying" aria-labelledby="trying-title">
      <h2 id="trying-title">Try an access</h2>
      <label for="access">What the server states of a request, as JSON</label>
      <textarea
        id="access"
        rows={3}
        placeholder={'{"table": "sales", "operation": "select"}'}
        spellcheck={false}
        autocomplete="off"
        value={typed}
        onInput={(event) => props.onType(event.currentTarget.value)}
      />
      <div role="status">{tried && <Outcome tried={tried} />}</div>
    </section>
  );
}

function Outcome({ tried }: { tried: Tried }): JSX.Element {
  if (tried.kind === "unasked") return <p class="problem">{tried.trouble}</p>;
  if (tried.kind === "allowed") return <p class="ok outcome">Allowed: every link permits it.</p>;
  return (
    <>
      <p class="bad outcome">Denied</p>
      <ul class="refusals">
        {tried.refused.map(({ code, text, place }, at) => (
          <li key={at}>
            <code>{code}</code> {text}
            {place && <strong class="place">{place}</strong>}
          </li>
        ))}
      </ul>
    </>
  );
}
