// What the server answers, and how it is asked. See `captoken/cli/console/views.py`.
//
// Each text is what a stranger wrote, and comes escaped. Here it is put into text nodes alone.

import { holdsToken } from "./tokens";

export type State = "live" | "expired" | "revoked" | "stopped" | "narrowed" | "used" | "over" | "ended";

export type Basis = "issued" | "vouched" | "proven";

export interface Session {
  csrf: string;
  now: number;
  can_act: boolean;
  by: string;
}

export interface TrailFacts {
  name: string;
  records: number;
  last_at: number | null;
  trouble: string | null;
  // Why it is not whole, though it is followed.
  lacks: string | null;
}

export interface OverlayFacts {
  seq: number;
  issued_at: number;
  expires_at: number;
  entries: number;
}

export interface Task {
  task: string;
  key: string;
  subject: string;
  tokens: number;
  agents: number;
  first_at: number;
  // None of a time before its first call.
  last_at: number | null;
  allowed: number;
  denied: number;
  expires_at: number | null;
  state: State;
}

export interface Now {
  rev: string;
  now: number;
  trails: TrailFacts[];
  overlay: OverlayFacts | null;
  tasks: Task[];
  more: number;
  // When the first task began, whatever time is looked at.
  first_at: number | null;
}

// What needs a person: a sentence, what to make of it, and where to look.
export interface Need {
  kind: string;
  text: string;
  more: string;
  grave: boolean;
  // What was to be done is done, or its token does not work any more.
  handled: boolean;
  at: number | null;
  task: string | null;
  node: string | null;
  query: string | null;
}

export interface Unchanged {
  rev: string;
  same: true;
  now: number;
}

export interface Budget {
  unit: string;
  // Whose it is: all below share it.
  of: string;
  limit: number;
  spent: number | null;
}

export interface AgentNode {
  id: string;
  parent: string | null;
  agent: string;
  basis: Basis;
  since: number | null;
  expires_at: number | null;
  allowed: number;
  denied: number;
  // Refused to who has its token, and not its key.
  strange: number;
  // Of a set of tokens: what each server says.
  at: { servers: string[]; allowed: number; denied: number }[];
  last: { at: number; what: string; allowed: boolean; code: string } | null;
  words: string[];
  budget: Budget[];
  state: State;
  spark: number[];
  refused: number[];
  // Seconds of a bar.
  step: number;
  // Where it was seen.
  servers: string[];
}

export interface Series {
  from: number;
  step: number;
  allowed: number[];
  denied: number[];
}

// A mark that a task has set, by the first record that says so.
export interface MarkSet {
  name: string;
  // `task`, `entry` of the overlay, or the id of the link that it belongs to.
  whose: string;
  since: number;
  by: Row;
}

export interface TaskView {
  task: Task;
  nodes: AgentNode[];
  marks: MarkSet[];
  // What rules over marks denied: the last of it.
  closed: { count: number; rows: Row[] };
  series: Series;
}

export interface Row {
  // What finds it again; null of one that is not there, or that would only have been.
  key: string | null;
  // Which server's trail it is in, and what that calls the request. `key` is what one asks with.
  server: string | null;
  trace: { text: string; key: string } | null;
  seq: number | null;
  at: number | null;
  what: string;
  allowed: boolean;
  code: string;
  why: string;
  added_by?: string | null;
  who: string;
  link: string | null;
  // Of several that are the same: how many there were. The row is the last of them.
  times?: number;
}

export interface Page {
  rows: Row[];
  next: string | null;
}

// An agent or a task that decisions were about.
export interface FoundTask {
  task: string;
  key: string;
  subject: string;
  since: number | null;
  allowed: number;
  denied: number;
  agents: number;
}

export interface FoundAgent extends Omit<FoundTask, "agents"> {
  id: string;
  agent: string;
  basis: Basis;
  last_at: number | null;
  state: State;
  // Only where these were asked for: rights that it never used, and what percentage is spent.
  unused?: string[];
  unused_count?: number;
  spent?: number;
}

// What a question found. `trouble` says why it cannot be read: then there is nothing else.
export type Answer =
  | { trouble: string }
  | (Page & {
      trouble: null;
      allowed: number;
      denied: number;
      agents: FoundAgent[];
      tasks: FoundTask[];
      counts: { agents: number; tasks: number };
      series: Series | null;
      values: Values[];
    });

// Of one key of questions: the values that came most, each with the word that asks for it alone.
export interface Values {
  key: string;
  count: number;
  most: { value: string; word: string; allowed: number; denied: number }[];
}

export interface Reason {
  link: number | null;
  code: string;
  text: string;
  added_by: string | null;
}

export interface DecisionView {
  row: Row;
  moment: string;
  id: string;
  digest: string;
  task: { text: string; key: string | null };
  hop: string | null;
  subject: string;
  token: string;
  reasons: Reason[];
  links: {
    place: number;
    id: string;
    added_by: string;
    holder: string;
    says: string[];
    stopped: Reason[];
  }[];
  needs: string | null;
  consents: { by: string; link: number | null; given: string; until: string }[];
  marks: string[];
  json: string;
}

export interface Hop {
  holder: string;
  basis: Basis;
  id: string;
  // What the hand-over says in words, and the names that it took away.
  took: string[];
  lost: string[];
}

export type Keywords = Record<string, unknown>;

export interface AgentView {
  node: AgentNode;
  chain: Hop[];
  // By its token, and by what operators have said of it.
  may: string[];
  // By its token alone, where operators have said something.
  by_token: string[];
  said: Entry[];
  unused: { keywords: Keywords; python: string; allowed: number } | null;
  reach: {
    agents: { id: string; agent: string; state: State }[];
    select: Select;
    // All tokens that its name was handed, in its task and below.
    named: Select;
  };
  decisions: Page;
}

export interface Entry {
  id: string;
  at: number;
  by: string;
  why: string;
  until: number | null;
  select: string;
  narrows: string[] | null;
  // Only in the list of all: who is meant, where that is known.
  whom?: string | null;
}

export type Select = Record<string, string>;

// A token, by its task and whose it is.
export interface TokenName {
  task: string;
  subject: string;
  token: string;
}

// What an act is about, of what works now.
export interface Hits {
  groups: (TokenName & { agents: string[]; more: number })[];
  agents: number;
  // Of what narrows: what is left then, and to whom.
  left: { agents: string[]; says: string[] }[];
  // Other tokens that were handed to the same name: they go on.
  namesakes: TokenName[];
  is_all: boolean;
}

export interface Preview {
  hits: Hits;
  hours: number;
  // If not all calls of that time were looked at: how many.
  only: number | null;
  would_refuse: number;
  rows: Row[];
  stands: Entry;
  stamp: string;
}

export interface WhatIf {
  // A name that no trail has.
  unknown?: string | undefined;
  only: number | null;
  stopped: number;
  // Who made these calls, the most first.
  agents: { agent: string; calls: number }[];
  rows: Row[];
}

export type Kind = "narrow" | "end" | "revoke" | "lift" | "renew";

// What the server said no to. The message is its sentence.
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

let csrf = "";

async function answer<T>(request: Promise<Response>): Promise<T> {
  let response: Response;
  try {
    response = await request;
  } catch {
    throw new Refusal(0, "The console does not answer. Is it still running?");
  }
  let said: unknown;
  try {
    said = await response.json();
  } catch {
    throw new Refusal(response.status, "The console answered with something that cannot be read.");
  }
  if (!response.ok) {
    const error = (said as { error?: unknown }).error;
    throw new Refusal(response.status, typeof error === "string" ? error : "It was refused.");
  }
  return said as T;
}

function get<T>(
  path: string,
  query: Record<string, string | number | null | undefined>,
): Promise<T> {
  const asked = new URLSearchParams();
  if (Object.values(query).some((value) => holdsToken(String(value)))) return noToken();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined) asked.set(name, String(value));
  }
  const text = asked.toString();
  return answer<T>(fetch(text ? `${path}?${text}` : path, { credentials: "same-origin" }));
}

const PASTED = "api/pasted";

const noToken = (): Promise<never> =>
  Promise.reject(
    new Refusal(0, "There is a token in it. Paste it into the line above: it is kept nowhere there."),
  );

function post<T>(path: string, body: unknown): Promise<T> {
  if (path !== PASTED && holdsToken(JSON.stringify(body))) return noToken();
  return answer<T>(
    fetch(path, {
      method: "POST",
      credentials: "same-origin",
      headers: { "content-type": "application/json", "x-captoken-form": csrf },
      body: JSON.stringify(body),
    }),
  );
}

// The word that forms are sent with is kept here, and nowhere else.
export async function session(): Promise<Session> {
  const found = await get<Session>("api/session", {});
  csrf = found.csrf;
  return found;
}

export const now = (rev: string | null, at: number | null): Promise<Now | Unchanged> =>
  get("api/now", { rev, at });

export const needs = (): Promise<{ needs: Need[] }> => get("api/needs", {});

export const task = (key: string, at: number | null): Promise<TaskView> =>
  get("api/task", { task: key, at });

export const agent = (id: string, at: number | null): Promise<AgentView> =>
  get("api/agent", { id, at });

export const decisions = (
  of: { id?: string; task?: string; trace?: string },
  before: string | null,
  refused: boolean,
  at: number | null,
  limit: number,
): Promise<Page> =>
  get("api/decisions", { ...of, before, at, limit, refused: refused ? 1 : null });

export const query = (
  q: string,
  sort: string,
  before: string | null,
  at: number | null,
  limit: number,
  only: "rows" | "counts" | null = null,
): Promise<Answer> => get("api/query", { q, sort, before, at, limit, only });

export const complete = (word: string): Promise<{ words: string[] }> =>
  get("api/complete", { word });

export const decision = (key: string): Promise<DecisionView> => get("api/decision", { key });

export const overlay = (): Promise<{ entries: Entry[] }> => get("api/overlay", {});

// The agent that a token was handed to, which somebody has pasted; and what it says of itself.
interface Claims {
  claims?: { agent: string; task: string };
}
export type Pasted = Claims &
  (
    | { trouble: string }
    | { trouble: null; is_known: boolean; agent: string; task: string; node: string }
  );

export const pasted = (text: string): Promise<Pasted> => post(PASTED, { text });

export const preview = (select: Select, keywords: Keywords | null): Promise<Preview> =>
  post("api/preview", { select, keywords });

export const whatIf = (
  select: Select,
  keywords: Keywords | null,
  first: number,
  last: number,
): Promise<WhatIf> => post("api/what-if", { add: [{ select, keywords }], first, last });

export const act = (wish: {
  kind: Kind;
  select?: Select;
  entry?: string;
  keywords?: Keywords | null;
  why: string;
  stamp?: string;
}): Promise<{ entry: string; seq: number }> => post("api/act", wish);
