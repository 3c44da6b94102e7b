// Where the page is, kept in the address, so that "back" works; and what time it is at the server.
import { useEffect, useState } from "preact/hooks";
import { toField } from "./format";
import { holdsToken } from "./tokens";

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

// What an address says, without whatever holds a token.
const stated = (hash: string): URLSearchParams =>
  new URLSearchParams(
    [...new URLSearchParams(hash.replace(/^#/, ""))].filter((pair) => !pair.some(holdsToken)),
  );

export function placeOf(hash: string): Place {
  const given = stated(hash);
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
  return `#${stated(String(said))}`;
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

// The address as it is. One that came with a token stands without it, also in the history.
function cleaned(): string {
  const given = new URLSearchParams(location.hash.slice(1));
  if ([...given].flat().some(holdsToken)) {
    history.replaceState(null, "", hashOf(placeOf(location.hash)));
  }
  return location.hash;
}

// --- where one was -------------------------------------------------------------------------------

// By address: what had the focus, and how far the page was scrolled, when it was left.
const left = new Map<string, { text: string; scroll: number }>();
// The decisions of the list that one came from, by address: for the next one.
let listed: string[] = [];

const LINES = ".decisions .what a";
const textOf = (one: Element): string => one.getAttribute("href") ?? `${one.id} ${one.textContent}`;

function leave(hash: string): void {
  const links = [...document.querySelectorAll(LINES)].map((one) => one.getAttribute("href") ?? "");
  if (links.length) listed = links;
  const focused = document.activeElement;
  if (focused && focused !== document.body) {
    left.set(hash, { text: textOf(focused), scroll: scrollY });
  }
}

// The decision after this one, or before it, in the list that one came from.
export function beside(key: string, step: 1 | -1): string | null {
  const at = listed.findIndex((link) => placeOf(link).decision === key);
  const link = at < 0 ? undefined : listed[at + step];
  return link === undefined ? null : placeOf(link).decision;
}

const SOON = 3000; // milliseconds in which what was left, or a heading, has to come

// After the page has gone elsewhere: the focus stands on what it was left on, or on the heading.
export function arrive(heading: string): () => void {
  const kept = left.get(location.hash);
  const began = performance.now();
  const look = (): void => {
    const isLost = (document.activeElement ?? document.body) === document.body;
    if (!isLost || document.querySelector("dialog[open]")) return;
    const found = kept && [...document.querySelectorAll("main :is(a, button), nav button")].find(
      (one) => textOf(one) === kept.text,
    );
    if (found instanceof HTMLElement) {
      found.focus({ preventScroll: true });
      scrollTo(0, kept?.scroll ?? 0);
      return;
    }
    const passed = performance.now() - began;
    const title = document.getElementById(heading);
    if (title && (!kept || passed > SOON)) {
      title.tabIndex = -1;
      title.focus({ preventScroll: kept !== undefined });
    } else if (passed < SOON * 2) timer = setTimeout(look, 50);
  };
  let timer = setTimeout(look, 0);
  return () => clearTimeout(timer);
}

export function usePlace(): [Place, (change: Partial<Place>, replace?: boolean) => void] {
  const [place, setPlace] = useState(() => placeOf(cleaned()));
  useEffect(() => {
    const moved = (event: HashChangeEvent): void => {
      leave(new URL(event.oldURL).hash);
      setPlace(placeOf(cleaned()));
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const go = (change: Partial<Place>, replace = false): void => {
    const next = { ...placeOf(location.hash), decision: null, ...change };
    // A time is of the view back in time. One that comes when that was left moves nothing.
    if (next.view !== "then") next.at = null;
    if (replace) history.replaceState(null, "", hashOf(next));
    else {
      leave(location.hash);
      // It is gone to anew, and not back to.
      left.delete(hashOf(next));
      history.pushState(null, "", hashOf(next));
    }
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
