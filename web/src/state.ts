// Where the page is, kept in the address, so that "back" works; and what time it is at the server.
import { useEffect, useState } from "preact/hooks";
import { toField } from "./format";

export type ViewName = "needs" | "now" | "then" | "said";

export interface Place {
  view: ViewName;
  task: string | null;
  node: string | null;
  at: number | null;
  // A question, what of its answer is shown, and in which order.
  q: string;
  by: By;
  sort: Sort;
  // One decision, by the key of its row.
  decision: string | null;
}

export const BYS = ["decisions", "agents", "tasks"] as const;
export type By = (typeof BYS)[number];
export const SORTS = ["refused", "calls", "oldest", "unused", "spent"] as const;
export type Sort = (typeof SORTS)[number];

const VIEWS: readonly ViewName[] = ["needs", "now", "then", "said"];

export function placeOf(hash: string): Place {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const view = VIEWS.find((one) => one === given.get("view")) ?? "needs";
  const at = Number(given.get("at") ?? "");
  return {
    view,
    task: given.get("task"),
    node: given.get("node"),
    at: view === "then" && Number.isSafeInteger(at) && at > 0 ? at : null,
    q: given.get("q") ?? "",
    by: BYS.find((one) => one === given.get("by")) ?? "decisions",
    sort: SORTS.find((one) => one === given.get("sort")) ?? "refused",
    decision: given.get("decision"),
  };
}

export function hashOf(place: Place): string {
  const said = new URLSearchParams({ view: place.view });
  if (place.task !== null) said.set("task", place.task);
  if (place.node !== null) said.set("node", place.node);
  if (place.at !== null) said.set("at", String(place.at));
  if (place.q !== "") {
    said.set("q", place.q);
    said.set("by", place.by);
    said.set("sort", place.sort);
  }
  if (place.decision !== null) said.set("decision", place.decision);
  return `#${said}`;
}

// A question, about a time that was chosen on a chart.
export const toSpan = (words: readonly string[], first: number, last: number): string =>
  [
    ...words.filter((one) => !/^(since|until):/.test(one)),
    `since:${toField(first)}`,
    `until:${toField(last)}`,
  ].join(" ");

// The address of one decision, from where one is.
export const hashOfDecision = (key: string): string =>
  hashOf({ ...placeOf(location.hash), decision: key });

export function usePlace(): [Place, (change: Partial<Place>, replace?: boolean) => void] {
  const [place, setPlace] = useState(() => placeOf(location.hash));
  useEffect(() => {
    const moved = (): void => setPlace(placeOf(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const go = (change: Partial<Place>, replace = false): void => {
    const next = { ...placeOf(location.hash), decision: null, ...change };
    if (replace) history.replaceState(null, "", hashOf(next));
    else history.pushState(null, "", hashOf(next));
    setPlace(next);
  };
  return [place, go];
}

// Seconds that the server's clock is ahead of the browser's.
let ahead = 0;

export function setClock(now: number): void {
  const found = now - Date.now() / 1000;
  // The server says whole seconds: less than one of difference is none.
  if (Math.abs(found - ahead) > 1) ahead = found;
}

export const serverNow = (): number => Math.floor(Date.now() / 1000 + ahead);

// The time at the server, which moves on each second.
export function useClock(): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    const timer = setInterval(() => setNow(serverNow()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

const AT_ONCE = 25;

// How many rows of a long list are drawn: more with each turn, so that none takes long.
// It begins anew with another list.
export function useGrowing(whole: number, list: string): number {
  const [drawn, setDrawn] = useState({ list, most: AT_ONCE });
  const most = drawn.list === list ? drawn.most : AT_ONCE;
  useEffect(() => {
    if (most >= whole) return;
    const timer = setTimeout(() => setDrawn({ list, most: most + AT_ONCE }), 16);
    return () => clearTimeout(timer);
  }, [most, whole, list]);
  return most;
}
