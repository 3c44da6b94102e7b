// The bytes of a text, and what each of them is.
import { Component, createRef } from "preact";
import type { JSX } from "preact";
import { memo } from "../memo";
import type { Part, Piece, Section } from "./layout";

// Which part is marked: the one that was chosen stays, the one that is pointed at goes away.
export interface Mark {
  readonly chosen: string | null;
  readonly over: string | null;
}

interface Props {
  readonly sections: readonly Section[];
  readonly mark: Mark;
  readonly onHover: (id: string | null) => void;
  readonly onChoose: (id: string | null) => void;
}

const NARROW = 560; // pixels, below which 16 bytes do not stand in a row

export class BytesPanel extends Component<Props, { width: number }> {
  override state = { width: 16 };
  private readonly box = createRef<HTMLElement>();
  private watching: ResizeObserver | null = null;

  override componentDidMount(): void {
    const look = (): void =>
      this.setState({ width: (this.box.current?.clientWidth ?? 0) < NARROW ? 8 : 16 });
    this.watching = new ResizeObserver(look);
    if (this.box.current) this.watching.observe(this.box.current);
    look();
  }

  override componentWillUnmount(): void {
    this.watching?.disconnect();
  }

  override componentDidUpdate(before: Props): void {
    const { chosen, over } = this.props.mark;
    // By hand: a mark that moves along with the pointer draws nothing anew.
    for (const one of this.box.current?.querySelectorAll(".hex [data-part]") ?? []) {
      one.classList.toggle("is-marked", one.getAttribute("data-part") === (over ?? chosen));
    }
    if (chosen === null || chosen === before.mark.chosen) return;
    const first = this.box.current?.querySelector(`.hex [data-part="${chosen}"]`);
    const hex = first?.closest(".hex");
    if (!(first instanceof HTMLElement) || !hex) return;
    // With some of what stands before it.
    hex.scrollTop = first.offsetTop - hex.clientHeight / 4;
    hex.scrollIntoView({ block: "nearest" });
  }

  override render(): JSX.Element {
    const { sections, mark, onHover, onChoose } = this.props;
    return (
      <section class="panel bytes" aria-labelledby="bytes-title" ref={this.box}>
        <h2 id="bytes-title">Bytes</h2>
        <p class="hint">Point at bytes, or choose a part, to see what they are.</p>
        {sections.map((section, place) => (
          <OneSection
            key={place}
            section={section}
            width={this.state.width}
            mark={mark}
            onHover={onHover}
            onChoose={onChoose}
          />
        ))}
      </section>
    );
  }
}

const sizeOf = ({ pieces }: Part): [number, number] => [pieces[0]!.from, pieces.at(-1)!.to];
const bytesIn = (count: number): string => `${count} ${count === 1 ? "byte" : "bytes"}`;

interface SectionProps {
  readonly section: Section;
  readonly width: number;
  readonly mark: Mark;
  readonly onHover: (id: string | null) => void;
  readonly onChoose: (id: string | null) => void;
}

class OneSection extends Component<SectionProps, { caption: string }> {
  override state = { caption: "" };

  private readonly pointed = (event: PointerEvent): void => {
    const found = targetOf(event);
    const part = this.props.section.parts.find(({ id }) => id === found?.getAttribute("data-part"));
    const piece = part?.pieces[Number(found?.getAttribute("data-piece"))];
    this.props.onHover(part?.id ?? null);
    this.setState({ caption: part && piece ? captionOf(part, piece) : "" });
  };

  private readonly left = (): void => {
    this.props.onHover(null);
    this.setState({ caption: "" });
  };

  private readonly pressed = (event: MouseEvent): void => {
    const found = targetOf(event);
    if (found) this.props.onChoose(found.getAttribute("data-part"));
  };

  override render(): JSX.Element {
    const { section } = this.props;
    return (
      <div class="section">
        <h3>
          <code>{section.prefix || "?"}</code> {section.title}
          {section.bytes.length > 0 && <>, {bytesIn(section.bytes.length)}</>}
        </h3>
        {section.trouble && <p class="problem">{section.trouble}</p>}
        {section.parts.length > 0 && this.whole(section)}
      </div>
    );
  }

  private whole(section: Section): JSX.Element {
    const { mark, onHover, onChoose } = this.props;
    const { caption } = this.state;
    const marked = section.parts.find(({ id }) => id === (mark.over ?? mark.chosen));
    const chosen = section.parts.find(({ id }) => id === mark.chosen);
    return (
      <div class="whole">
        <div class="legend">
          <div class="parts" role="group" aria-label={`Parts of the ${section.title}`}>
            {section.parts.map((part) => (
              <button
                key={part.id}
                type="button"
                class={`part${marked === part ? " is-marked" : ""}`}
                aria-pressed={chosen === part}
                onClick={() => onChoose(chosen === part ? null : part.id)}
                onPointerEnter={() => onHover(part.id)}
                onPointerLeave={() => onHover(null)}
                onFocus={() => onHover(part.id)}
                onBlur={() => onHover(null)}
              >
                {part.title} <span class="muted">{sizeOf(part)[1] - sizeOf(part)[0]}</span>
              </button>
            ))}
          </div>
          <p class="caption">
            {caption || (marked ? captionOfPart(marked) : "Nothing is marked.")}
          </p>
          {chosen && <Pieces part={chosen} />}
        </div>
        <div
          class="hex"
          tabIndex={0}
          role="group"
          aria-label={`Bytes of the ${section.title}, in hex`}
          onPointerOver={this.pointed}
          onPointerLeave={this.left}
          onClick={this.pressed}
        >
          <Hex section={section} width={this.props.width} />
        </div>
      </div>
    );
  }
}

const targetOf = ({ target }: Event): Element | null =>
  target instanceof Element ? target.closest("[data-part]") : null;

const captionOf = (part: Part, { from, to, what }: Piece): string =>
  `${part.title}: ${what}, ${bytesIn(to - from)} at ${from}`;

function captionOfPart(part: Part): string {
  const [from, to] = sizeOf(part);
  return `${part.title}: ${bytesIn(to - from)} at ${from}`;
}

// What the bytes of a part are, one stretch after the other.
function Pieces(props: { part: Part }): JSX.Element {
  return (
    <table class="pieces">
      <caption>{props.part.title}</caption>
      <thead>
        <tr>
          <th scope="col">At</th>
          <th scope="col">Bytes</th>
          <th scope="col">What they are</th>
        </tr>
      </thead>
      <tbody>
        {props.part.pieces.map(({ from, to, what, kind }) => (
          <tr key={from}>
            <td>{from}</td>
            <td>{to - from}</td>
            <td>
              <span class={`of-${kind}`}>{what}</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

// --- the rows ------------------------------------------------------------------------------------

interface Stretch {
  readonly part: Part;
  readonly place: number;
  readonly kind: string;
  readonly bytes: Uint8Array;
}

// All rows, as stretches of bytes that belong to one piece each.
function rowsOf({ bytes, parts }: Section, width: number): Stretch[][] {
  const rows: Stretch[][] = Array.from({ length: Math.ceil(bytes.length / width) }, () => []);
  for (const part of parts) {
    for (const [place, { from, to, kind }] of part.pieces.entries()) {
      for (let at = from; at < to;) {
        const row = Math.floor(at / width);
        const end = Math.min(to, (row + 1) * width);
        rows[row]?.push({ part, place, kind, bytes: bytes.slice(at, end) });
        at = end;
      }
    }
  }
  return rows;
}

const hexOf = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
const textOf = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) =>
    byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "\u00b7",
  ).join("");

const Hex = memo(function Hex(props: { section: Section; width: number }): JSX.Element {
  const rows = rowsOf(props.section, props.width);
  const digits = Math.max(3, String(props.section.bytes.length).length);
  const of = ({ part, place, kind }: Stretch): Record<string, string | number> => ({
    class: `of-${kind}`,
    "data-part": part.id,
    "data-piece": place,
  });
  return (
    <>
      {rows.map((row, at) => (
        <div class="row" key={at}>
          <span class="at" aria-hidden="true">
            {String(at * props.width).padStart(digits, "0")}
          </span>
          <span class={`digits of-${props.width}`}>
            {row.map((one, place) => (
              <span key={place} {...of(one)}>
                {hexOf(one.bytes)}
              </span>
            ))}
          </span>
          <span class="chars" aria-hidden="true">
            {row.map((one, place) => (
              <span key={place} {...of(one)}>
                {textOf(one.bytes)}
              </span>
            ))}
          </span>
        </div>
      ))}
    </>
  );
});
