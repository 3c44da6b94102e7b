// Calls over time, as small plots.
import type { JSX, TargetedPointerEvent } from "preact";
import { useState } from "preact/hooks";
import { memo } from "./memo";
import type { Series } from "./api";
import { count, duration, minuteOf, plainNumber, timeOfDay } from "./format";

// What one agent did lately. What it says is in the name of its row, so it is hidden from readers.
export const Spark = memo(
  function Spark(props: { calls: number[]; refused: number[] }): JSX.Element {
    const most = Math.max(1, ...props.calls);
    let bars = "";
    let marks = "";
    props.calls.forEach((calls, place) => {
      const refused = props.refused[place] ?? 0;
      if (calls > refused) {
        const height = Math.max(1, ((calls - refused) / most) * 15);
        const foot = 16 - (refused / most) * 15;
        bars += `M${place * 3} ${foot.toFixed(1)}h2v${(-height).toFixed(1)}h-2z`;
      }
      if (refused) {
        const height = Math.max(1.5, (refused / most) * 15);
        marks += `M${place * 3} 16h2v${(-height).toFixed(1)}h-2z`;
        marks += `M${place * 3 - 0.5} 20l1.5 -3l1.5 3z`;
      }
    });
    return (
      <svg class="spark" viewBox="0 0 90 20" aria-hidden="true" focusable="false">
        <path class="axis" d="M0 16.5h90" />
        <path class="calls" d={bars} />
        <path class="refusals" d={marks} />
      </svg>
    );
  },
  (a, b) => same(a.calls, b.calls) && same(a.refused, b.refused),
);

function same(a: number[], b: number[]): boolean {
  return a.length === b.length && a.every((one, place) => one === b[place]);
}

const HEIGHT = 56;
const DAY = 86_400;

// The calls of a task lately: what was refused stands below, with a mark under it. Sixty bars are two
// paths. A library for plots draws on a canvas, which no reader and no print sees.
//
// A time is chosen by a drag over it, or by a click on a bar; by keys, in the table below it.
export function Plot(props: {
  series: Series;
  onSpan: (first: number, last: number) => void;
}): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const [held, setHeld] = useState<{ from: number; to: number } | null>(null);
  const { allowed, denied, from, step } = props.series;
  // A time of day says nothing of yesterday.
  const end = from + step * allowed.length;
  const spell = Math.floor(from / DAY) === Math.floor(end / DAY) ? timeOfDay : minuteOf;
  const until = spell(end);
  const totals = allowed.map((yes, place) => yes + (denied[place] ?? 0));
  const most = Math.max(1, ...totals);
  const refusals = denied.reduce((sum, one) => sum + one, 0);
  const calls = totals.reduce((sum, one) => sum + one, 0);
  const barAt = (event: TargetedPointerEvent<SVGSVGElement>): number => {
    const box = event.currentTarget.getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left) / box.width) * totals.length);
    return Math.min(totals.length - 1, Math.max(0, place));
  };
  const chosen = held && [Math.min(held.from, held.to), Math.max(held.from, held.to)];
  let yes = "";
  let no = "";
  totals.forEach((total, place) => {
    const refused = denied[place] ?? 0;
    const x = place * 10 + 1;
    const low = (refused / most) * HEIGHT;
    const high = ((total - refused) / most) * HEIGHT;
    if (total > refused) yes += `M${x} ${(HEIGHT - low).toFixed(1)}h8v${(-high).toFixed(1)}h-8z`;
    if (refused) {
      no += `M${x} ${HEIGHT}h8v${(-Math.max(2, low)).toFixed(1)}h-8z`;
      no += `M${x + 1.5} ${HEIGHT + 9}l2.5 -6l2.5 6z`;
    }
  });
  const said =
    `Calls in the ${duration(step * totals.length)} until ${until}: ` +
    `${count(calls, "call")}, ${plainNumber(refusals)} of them refused; ` +
    `at most ${plainNumber(most)} in ${duration(step)}.`;
  return (
    <figure class="plot">
      <svg
        viewBox={`0 0 ${totals.length * 10} ${HEIGHT + 10}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={said}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          const place = barAt(event);
          setHeld({ from: place, to: place });
        }}
        onPointerMove={(event) => {
          if (held) setHeld({ ...held, to: barAt(event) });
        }}
        onPointerUp={() => {
          const [first, last] = chosen ?? [];
          setHeld(null);
          if (first !== undefined && last !== undefined) {
            props.onSpan(from + first * step, from + (last + 1) * step - 1);
          }
        }}
        onPointerCancel={() => setHeld(null)}
      >
        <title>Drag over a time to ask about it</title>
        {chosen && (
          <rect
            class="chosen"
            x={(chosen[0] ?? 0) * 10}
            width={((chosen[1] ?? 0) - (chosen[0] ?? 0) + 1) * 10}
            height={HEIGHT + 10}
          />
        )}
        <path class="axis" d={`M0 ${HEIGHT + 0.5}h${totals.length * 10}`} />
        <path class="calls" d={yes} />
        <path class="refusals" d={no} />
      </svg>
      <figcaption>
        <span>{spell(from)}</span>
        <span>
          <span class="key-calls" aria-hidden="true" /> allowed{" "}
          <span class="key-refusals" aria-hidden="true">
            ▲
          </span>{" "}
          refused, a bar is {duration(step)}, the highest {count(most, "call")}
        </span>
        <span>{until}</span>
      </figcaption>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>As a table</summary>
        {isOpen && (
          <table>
            <caption class="unseen">{said}</caption>
            <thead>
              <tr>
                <th scope="col">From</th>
                <th scope="col">Allowed</th>
                <th scope="col">Refused</th>
              </tr>
            </thead>
            <tbody>
              {totals.map(
                (total, place) =>
                  total > 0 && (
                    <tr key={place}>
                      <td>
                        <button
                          type="button"
                          class="link"
                          onClick={() => props.onSpan(from + place * step, from + (place + 1) * step - 1)}
                        >
                          <span class="unseen">Ask about the {duration(step)} from </span>
                          {spell(from + place * step)}
                        </button>
                      </td>
                      <td>{plainNumber(allowed[place] ?? 0)}</td>
                      <td>{plainNumber(denied[place] ?? 0)}</td>
                    </tr>
                  ),
              )}
            </tbody>
          </table>
        )}
      </details>
    </figure>
  );
}
