// What needs a person now, the gravest first: what is so, what to make of it, and where to look.
import type { JSX } from "preact";
import type { Need } from "./api";
import { Ago } from "./parts";
import type { Place } from "./state";

export function Needs(props: {
  needs: Need[] | null;
  now: number;
  go: (change: Partial<Place>) => void;
}): JSX.Element {
  const { needs, go } = props;
  return (
    <section class="panel needs" aria-labelledby="needs-title">
      <div class="panel-head">
        <h2 id="needs-title">What needs you</h2>
      </div>
      {needs === null ? (
        <p class="none">Reading…</p>
      ) : needs.length === 0 ? (
        <p class="none">
          Nothing. No token is used without its key, no server fails, and nobody insists on what it
          may not do.
        </p>
      ) : (
        <ul>
          {needs.map((one) => (
            <li key={`${one.kind} ${one.node} ${one.query} ${one.text}`} class={one.grave ? "is-grave" : ""}>
              <span class="sign" aria-hidden="true">
                {one.grave ? "▲" : "●"}
              </span>
              <div>
                <p>
                  {one.grave && <span class="unseen">Grave: </span>}
                  <strong>{one.text}</strong>{" "}
                  {one.at !== null && (
                    <span class="muted">
                      last <Ago at={one.at} now={props.now} />
                    </span>
                  )}
                </p>
                {one.more && <p class="muted">{one.more}</p>}
              </div>
              <span class="where">
                {one.node !== null && one.task !== null && (
                  <button
                    type="button"
                    class="small"
                    onClick={() => go({ view: "now", task: one.task, node: one.node })}
                  >
                    Agent<span class="unseen"> of: {one.text}</span>
                  </button>
                )}
                {one.node === null && one.task !== null && (
                  <button
                    type="button"
                    class="small"
                    onClick={() => go({ view: "now", task: one.task, node: null })}
                  >
                    Task<span class="unseen"> of: {one.text}</span>
                  </button>
                )}
                {one.query !== null && (
                  <button
                    type="button"
                    class="small"
                    onClick={() =>
                      go(
                        one.kind === "unused"
                          ? { q: one.query ?? "", by: "agents", sort: "unused" }
                          : { q: one.query ?? "", by: "decisions" },
                      )
                    }
                  >
                    {one.kind === "unused" ? "Which" : "Decisions"}
                    <span class="unseen"> of: {one.text}</span>
                  </button>
                )}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
