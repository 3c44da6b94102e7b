// The agents of a task, as a tree: who handed on to whom.
import { hierarchy } from "d3-hierarchy";
import type { JSX } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import type { AgentNode } from "./api";
import { ago, duration, plainNumber } from "./format";
import { memo } from "./memo";
import { Basis, StateMark } from "./parts";
import { Spark } from "./plot";
import { useGrowing } from "./state";

const MIDDLE = 12; // of a row, in pixels
const MANY = 20; // rows: more of them stand in two columns
const BLOCK = 40; // rows that are seen at once
const INDENT = 16; // pixels of a level, but for a tree that is deep
const TYPING = 700; // milliseconds between two letters of one name
const DEEPEST = 120; // pixels of all levels

interface Item {
  node: AgentNode | null;
  children: Item[];
}

export interface Line {
  node: AgentNode;
  depth: number;
  place: number;
  among: number;
  below: number;
  refusedBelow: number;
  // By level, whether a line of the tree passes this row.
  passes: boolean[];
}

// The rows of the tree, in the order in which they stand. A node without a parent here is a root.
export function linesOf(nodes: AgentNode[]): Line[] {
  const items = new Map(nodes.map((node): [string, Item] => [node.id, { node, children: [] }]));
  const top: Item = { node: null, children: [] };
  for (const item of items.values()) {
    const parent = item.node?.parent;
    ((parent ? items.get(parent) : undefined) ?? top).children.push(item);
  }
  const lines: Line[] = [];
  const tree = hierarchy(top).sum((item) => item.node?.denied ?? 0);
  tree.eachBefore((found) => {
    const node = found.data.node;
    if (node === null) return;
    const brothers = found.parent?.children ?? [];
    const path = found.ancestors().reverse().slice(2);
    lines.push({
      node,
      depth: found.depth - 1,
      place: brothers.indexOf(found) + 1,
      among: brothers.length,
      below: found.descendants().length - 1,
      refusedBelow: (found.value ?? 0) - node.denied,
      passes: path.map((one) => one !== one.parent?.children?.at(-1)),
    });
  });
  return lines;
}

// The lines of the tree, at the left of a row.
function Guides(props: { line: Line; open: boolean; indent: number }): JSX.Element {
  const { depth, passes, below } = props.line;
  const { indent } = props;
  const half = INDENT / 2;
  const width = depth * indent + INDENT;
  const lines: JSX.Element[] = [];
  for (let level = 1; level <= depth; level += 1) {
    const x = (level - 1) * indent + half;
    const here = level === depth;
    if (here) {
      lines.push(<line x1={x} x2={x} y1="0" y2={passes[level - 1] ? "100%" : MIDDLE} />);
      lines.push(<line x1={x} x2={x + indent - 5} y1={MIDDLE} y2={MIDDLE} />);
    } else if (passes[level - 1]) {
      lines.push(<line x1={x} x2={x} y1="0" y2="100%" />);
    }
  }
  const x = depth * indent + half;
  if (below && props.open) lines.push(<line x1={x} x2={x} y1={MIDDLE + 4} y2="100%" />);
  return (
    <div class="guides">
      <svg class="guides-room" width={width} height="1" aria-hidden="true" focusable="false" />
      <svg class="guides-lines" width={width} height="100%" aria-hidden="true" focusable="false">
        {lines}
        {below > 0 ? (
          <>
            <circle cx={x} cy={MIDDLE} r="5.5" />
            <path
              d={`M${x - 3} ${MIDDLE}h6${props.open ? "" : `M${x} ${MIDDLE - 3}v6`}`}
            />
          </>
        ) : (
          <circle class="leaf" cx={x} cy={MIDDLE} r="2.5" />
        )}
      </svg>
    </div>
  );
}

// How much of its time an agent has left, from its first call to its end. 1 if that is not known.
export function timeLeft(node: AgentNode, now: number): number {
  if (node.expires_at === null || node.since === null) return 1;
  const whole = Math.max(1, node.expires_at - node.since);
  return (node.expires_at - now) / whole;
}

export function saysTime(node: AgentNode, now: number): string {
  if (node.expires_at === null) return "no end";
  return node.expires_at <= now ? "expired" : `${duration(node.expires_at - now)} left`;
}

const Row = memo(
  function Row(props: {
    line: Line;
    open: boolean;
    chosen: boolean;
    reachable: boolean;
    indent: number;
    time: string;
    // As the first row has it: it is seen there.
    sameTime: boolean;
    last: string;
    left: number;
    onChoose: (id: string) => void;
    onToggle: (id: string) => void;
  }): JSX.Element {
    const { line, open } = props;
    const { node } = line;
    // What it shares with who is above it stands there, once.
    const budget = node.budget.filter((one) => one.spent !== null && one.of === node.agent);
    const below = open ? 0 : line.refusedBelow;
    return (
      <div
        role="treeitem"
        id={`node-${node.id}`}
        data-node={node.id}
        class={`node is-${node.state}`}
        aria-level={line.depth + 1}
        aria-posinset={line.place}
        aria-setsize={line.among}
        aria-selected={props.chosen}
        {...(line.below ? { "aria-expanded": open } : {})}
        tabIndex={props.reachable ? 0 : -1}
        onClick={(event) => {
          const onGuides = (event.target as Element).closest(".guides") !== null;
          if (onGuides && line.below) props.onToggle(node.id);
          else props.onChoose(node.id);
        }}
      >
        <Guides line={line} open={open} indent={props.indent} />
        <div class="node-line">
          <span class="node-name">{node.agent}</span>
          <StateMark state={node.state} brief />
          <Basis basis={node.basis} />
          {node.strange > 0 && (
            <span class="bad stolen">
              <span aria-hidden="true">▲ </span>
              {plainNumber(node.strange)} stolen
            </span>
          )}
          {!open && line.below > 0 && <span class="muted">+{line.below} below</span>}
        </div>
        <div class="node-text" title={node.words.join("; ")}>
          {budget.map((one) => (
            <span key={one.unit}>
              {plainNumber(Math.max(0, one.limit - (one.spent ?? 0)))} {one.unit} left;{" "}
            </span>
          ))}
          {node.last && (
            <span class="node-last">
              <span class={node.last.allowed ? "ok" : "bad"}>
                <span aria-hidden="true">{node.last.allowed ? "✓" : "✕"}</span>
                <span class="unseen">last {node.last.allowed ? "allowed" : "refused"}</span>
              </span>{" "}
              {props.last}: {node.last.what};{" "}
            </span>
          )}
          {node.at
            .map((one) => `at ${one.servers.join(", ") || "a server"}: ${one.allowed} ✓ ${one.denied} ✕; `)
            .join("")}
          {node.words.join("; ")}
        </div>
        <div class={`node-left${props.left <= 0.1 ? " is-low" : ""}`}>
          <span class={props.sameTime ? "unseen" : ""}>{props.time.replace(/ left$/, "")}</span>
          {props.time.endsWith(" left") && <span class="unseen"> left</span>}
        </div>
        <div class="node-calls">
          <Spark calls={node.spark} refused={node.refused} />
          <span class="counts">
            <span>
              {plainNumber(node.allowed)}
              <span class="unseen"> allowed, </span>
              <span aria-hidden="true"> ✓ </span>
            </span>
            <span class={node.denied + below ? "bad" : "muted no-refusal"}>
              {plainNumber(node.denied)}
              <span class="unseen"> refused</span>
              <span aria-hidden="true"> ✕</span>
              {below > 0 && (
                <>
                  {" "}
                  +{plainNumber(below)}
                  <span class="unseen"> refused below</span>
                </>
              )}
            </span>
          </span>
        </div>
      </div>
    );
  },
  (a, b) =>
    a.open === b.open &&
    a.chosen === b.chosen &&
    a.reachable === b.reachable &&
    a.time === b.time &&
    a.sameTime === b.sameTime &&
    a.indent === b.indent &&
    a.left === b.left &&
    a.last === b.last &&
    (a.line === b.line || JSON.stringify(a.line) === JSON.stringify(b.line)),
);

export function Tree(props: {
  nodes: AgentNode[];
  now: number;
  chosen: string | null;
  onChoose: (id: string) => void;
}): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const [active, setActive] = useState<string | null>(null);
  const typed = useRef({ text: "", at: -Infinity });
  const lines = useMemo(() => linesOf(props.nodes), [props.nodes]);

  const deepest = Math.max(1, ...lines.map((line) => line.depth));
  const indent = Math.max(5, Math.min(INDENT, Math.floor(DEEPEST / deepest)));

  // What is under a row that is closed is passed over.
  const shown: Line[] = [];
  let hiddenFrom = Infinity;
  for (const line of lines) {
    if (line.depth > hiddenFrom) continue;
    hiddenFrom = closed.has(line.node.id) ? line.depth : Infinity;
    shown.push(line);
  }

  const first = shown[0] ? saysTime(shown[0].node, props.now) : "";
  const blocks: Line[][] = [];
  const most = useGrowing(shown.length, shown[0]?.node.id ?? "");

  for (let at = 0; at < Math.min(most, shown.length); at += BLOCK) {
    blocks.push(shown.slice(at, Math.min(at + BLOCK, most)));
  }

  const has = (id: string | null): boolean => shown.some((line) => line.node.id === id);
  const reachable = has(active) ? active : has(props.chosen) ? props.chosen : shown[0]?.node.id;

  const toggle = (id: string, open?: boolean): void => {
    const next = new Set(closed);
    if (open ?? next.has(id)) next.delete(id);
    else next.add(id);
    setClosed(next);
  };
  const focus = (line: Line | undefined): void => {
    if (!line) return;
    const rows = box.current?.querySelectorAll<HTMLElement>("[role=treeitem]") ?? [];
    for (const row of rows) if (row.dataset["node"] === line.node.id) row.focus();
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    const id = (document.activeElement as HTMLElement | null)?.dataset["node"];
    const at = shown.findIndex((line) => line.node.id === id);
    const line = shown[at];
    if (!line || event.ctrlKey || event.metaKey || event.altKey) return;
    const isOpen = !closed.has(line.node.id);
    switch (event.key) {
      case "ArrowDown":
        focus(shown[at + 1]);
        break;
      case "ArrowUp":
        focus(shown[at - 1]);
        break;
      case "Home":
        focus(shown[0]);
        break;
      case "End":
        focus(shown.at(-1));
        break;
      case "ArrowRight":
        if (line.below && !isOpen) toggle(line.node.id, true);
        else if (line.below) focus(shown[at + 1]);
        break;
      case "ArrowLeft":
        if (line.below && isOpen) toggle(line.node.id, false);
        else
          focus(
            shown
              .slice(0, at)
              .reverse()
              .find((one) => one.depth < line.depth),
          );
        break;
      case "Enter":
      case " ":
        props.onChoose(line.node.id);
        break;
      default: {
        // Letters that are typed one after the other begin a name. One letter again and again goes
        // through all names that it begins.
        if (event.key.length !== 1) return;
        const isOn = event.timeStamp - typed.current.at < TYPING;
        const text = (isOn ? typed.current.text : "") + event.key.toLowerCase();
        typed.current = { text, at: event.timeStamp };
        const isOne = [...text].every((letter) => letter === text[0]);
        const begins = isOne ? (text[0] ?? "") : text;
        const from = isOne ? at + 1 : at;
        const round = [...shown.slice(from), ...shown.slice(0, from)];
        focus(round.find((one) => one.node.agent.toLowerCase().startsWith(begins)));
        event.stopPropagation();
      }
    }
    event.preventDefault();
  };

  return (
    <div
      role="tree"
      aria-label="Agents: who handed on to whom"
      class={shown.length > MANY ? "tree is-dense" : "tree"}
      ref={box}
      onKeyDown={onKeyDown}
      onFocusIn={(event) => {
        const id = (event.target as HTMLElement).dataset["node"];
        if (id !== undefined) setActive(id);
      }}
    >
      {blocks.map((block) => (
        <div role="none" class="block" key={block[0]?.node.id}>
          {block.map((line) => (
            <Row
              key={line.node.id}
              line={line}
              open={!closed.has(line.node.id)}
              indent={indent}
              chosen={line.node.id === props.chosen}
              reachable={line.node.id === reachable}
              time={saysTime(line.node, props.now)}
              sameTime={line !== shown[0] && saysTime(line.node, props.now) === first}
              last={line.node.last ? ago(line.node.last.at, props.now) : ""}
              left={Math.round(timeLeft(line.node, props.now) * 50) / 50}
              onChoose={props.onChoose}
              onToggle={toggle}
            />
          ))}
        </div>
      ))}
    </div>
  );
}
