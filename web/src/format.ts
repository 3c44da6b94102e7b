// Numbers with units, and times as people say them.
import { FIRST, LAST } from "./plain";

const number = new Intl.NumberFormat("en-GB");
// One zone on the page, the one of trails and commands, whatever the browser's is.
const timeZone = "UTC";
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone });
const day = new Intl.DateTimeFormat("sv-SE", {
  dateStyle: "short",
  timeStyle: "medium",
  timeZone,
});

export function count(value: number, one: string, many = `${one}s`): string {
  return `${number.format(value)} ${value === 1 ? one : many}`;
}

export const plainNumber = (value: number): string => number.format(value);

// How long: "12 s", "4 min", "3 h 5 min", "2 d". Never less than it is by more than a twelfth.
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 10) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

export function ago(at: number, now: number): string {
  const passed = now - at;
  // Servers' clocks are not quite the same: a second or two in the future is now.
  if (passed < -2) return `in ${duration(-passed)}`;
  return passed < 1 ? "now" : `${about(passed)} ago`;
}

// As in a list, where the exact time stands beside it: in one unit.
function about(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return duration(seconds - (seconds % 3600));
}

// A record or a token may say any integer. One that no calendar has stays a number.
const isDate = (at: number): boolean => at >= FIRST && at <= LAST;

export const exact = (at: number): string => (isDate(at) ? day.format(at * 1000) : String(at));

export const timeOfDay = (at: number): string =>
  isDate(at) ? clock.format(at * 1000) : String(at);

export const minuteOf = (at: number): string => exact(at).slice(0, 16);

// For machines; none where no calendar has it.
export const iso = (at: number): string | undefined =>
  isDate(at) ? new Date(at * 1000).toISOString() : undefined;

// A time in a question, and what a field of times gives: in UTC, as the whole page.
export const toField = (at: number): string => exact(at).replace(" ", "T");

export function fromField(text: string): number | null {
  const at = new Date(`${text.trim().replace(/ +/, "T").replace(/Z?$/i, "Z")}`).getTime();
  return Number.isNaN(at) ? null : Math.floor(at / 1000);
}

export const STATES: Record<string, { sign: string; says: string }> = {
  live: { sign: "●", says: "live" },
  narrowed: { sign: "◐", says: "narrowed" },
  revoked: { sign: "✕", says: "revoked" },
  ended: { sign: "✕", says: "ended" },
  stopped: { sign: "✕", says: "stopped" },
  expired: { sign: "○", says: "expired" },
  used: { sign: "○", says: "used up" },
  over: { sign: "○", says: "over" },
};

export const BASES: Record<string, string> = {
  issued: "the issuer named it",
  vouched: "whoever handed on vouches for the name",
  proven: "it proved to have its key",
};
