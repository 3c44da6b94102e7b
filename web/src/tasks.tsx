// Tasks, the last to have done something first: a list of which one is chosen.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Task } from "./api";
import { ago, count, plainNumber } from "./format";
import { memo } from "./memo";
import { StateMark } from "./parts";
import { hashOf, placeOf as placeAt, useGrowing } from "./state";

const Line = memo(
  function Line(props: {
    task: Task;
    when: string;
    chosen: boolean;
    reachable: boolean;
    place: number;
    onChoose: (key: string) => void;
  }): JSX.Element {
    const { task } = props;
    return (
      <div
        role="option"
        id={`task-${props.place}`}
        class="task"
        aria-selected={props.chosen}
        tabIndex={props.reachable ? 0 : -1}
        onClick={() => props.onChoose(task.key)}
      >
        <span class="task-name">{task.task}</span>
        <span class="task-state">
          <StateMark state={task.state} />
        </span>
        <span class="task-of">
          {task.subject}, {count(task.agents, "agent")}
        </span>
        <span class="task-counts">
          <span>
            <span class="unseen">, </span>
            {plainNumber(task.allowed)}
            <span class="unseen"> calls allowed, </span>
            <span aria-hidden="true"> ✓</span>
          </span>
          <span class={task.denied ? "bad" : ""}>
            {plainNumber(task.denied)}
            <span class="unseen"> refused, </span>
            <span aria-hidden="true"> ✕</span>
          </span>
          <span class="task-when">{props.when}</span>
        </span>
      </div>
    );
  },
  (a, b) =>
    a.when === b.when &&
    a.chosen === b.chosen &&
    a.reachable === b.reachable &&
    a.place === b.place &&
    (a.task === b.task || JSON.stringify(a.task) === JSON.stringify(b.task)),
);

export function Tasks(props: {
  tasks: Task[];
  more: number;
  now: number;
  chosen: string | null;
  onChoose: (key: string) => void;
}): JSX.Element {
  const [onlyRefused, setOnlyRefused] = useState(false);
  const list = useRef<HTMLDivElement>(null);

  // Rows stay where they are. What is new stands below them, until somebody sorts.
  const [kept, setKept] = useState<{ order: string[]; sorted: number }>({ order: [], sorted: 0 });
  const places = new Map(kept.order.map((key, place): [string, number] => [key, place]));
  const missing = props.tasks.filter((task) => !places.has(task.key)).map((task) => task.key);
  const placeOf = (task: Task): number => places.get(task.key) ?? Infinity;
  const tasks = [...props.tasks].sort((a, b) =>
    placeOf(a) < placeOf(b) ? -1 : Number(placeOf(a) > placeOf(b)),
  );
  const fresh = tasks.filter((task) => placeOf(task) >= kept.sorted).length;
  const isMoved = tasks.some((task, place) => task !== props.tasks[place]);
  const sort = (): void =>
    setKept({ order: props.tasks.map((task) => task.key), sorted: props.tasks.length });
  useEffect(() => {
    if (kept.order.length === 0) sort();
    else if (missing.length) setKept({ ...kept, order: [...kept.order, ...missing.reverse()] });
  }, [missing.join(" ")]);
  const shown = tasks.filter((task) => !onlyRefused || task.denied > 0);
  const most = useGrowing(shown.length, String(onlyRefused));
  const chosenAt = shown.findIndex((task) => task.key === props.chosen);

  // What is chosen is in sight, wherever it was chosen.
  const isDrawn = chosenAt >= 0 && chosenAt < most;
  useEffect(() => {
    const box = list.current;
    const row = box?.querySelector<HTMLElement>("[aria-selected=true]");
    if (!box || !row) return;
    const above = row.getBoundingClientRect().top - box.getBoundingClientRect().top;
    if (above < 0 || above + row.offsetHeight > box.clientHeight) box.scrollTop += above - 8;
  }, [props.chosen, isDrawn]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const options = [...(list.current?.querySelectorAll<HTMLElement>("[role=option]") ?? [])];
    const at = options.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: options.length - 1 }[event.key];
    if (to !== undefined) {
      options[Math.min(Math.max(to, 0), options.length - 1)]?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      const task = shown[at];
      if (task) props.onChoose(task.key);
    } else {
      return;
    }
    event.preventDefault();
  };

  return (
    <section class="panel tasks" aria-labelledby="tasks-title">
      <div class="panel-head">
        <h2 id="tasks-title">Tasks</h2>
        <span class="muted">{plainNumber(shown.length)} shown</span>
      </div>
      <div class="filters">
        <label class="check">
          <input
            type="checkbox"
            checked={onlyRefused}
            onChange={(event) => setOnlyRefused(event.currentTarget.checked)}
          />
          with refusals
        </label>
        {kept.order.length > 0 && isMoved && (
          <button type="button" class="small new" onClick={sort}>
            {fresh > 0 ? `${plainNumber(fresh)} new, sort` : "Sort"}
            <span class="unseen"> by the last call</span>
          </button>
        )}
      </div>
      {shown.length === 0 ? (
        <p class="none">No task{onlyRefused ? " like that" : " yet"}.</p>
      ) : (
        <div
          role="listbox"
          aria-labelledby="tasks-title"
          class="rows"
          ref={list}
          onKeyDown={onKeyDown}
        >
          {shown.slice(0, most).map((task, place) => (
            <Line
              key={task.key}
              task={task}
              when={task.last_at === null ? "no call yet" : ago(task.last_at, props.now)}
              place={place}
              chosen={task.key === props.chosen}
              reachable={chosenAt < 0 || chosenAt >= most ? place === 0 : place === chosenAt}
              onChoose={props.onChoose}
            />
          ))}
        </div>
      )}
      {props.more > 0 && (
        <p class="none">
          {count(props.more, "older task")} not shown.{" "}
          <a href={hashOf({ ...placeAt(""), q: "agent:*", by: "tasks", sort: "oldest" })}>
            Ask for tasks
          </a>
        </p>
      )}
    </section>
  );
}
