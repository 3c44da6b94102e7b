// Text of strangers as people may be shown it: the rule of `captoken.cli.console.views.plain`, and
// of `captoken._format.spelling` for names and times. The one place of it on this side.
//
// All is ASCII. What steers text, what leaves no ink, and letters that look like others come out as
// their numbers. It is then put in as text, never as markup.

function numbered(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  const digits = code.toString(16);
  if (code <= 0xff) return `\\x${digits.padStart(2, "0")}`;
  return code <= 0xffff ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`;
}

export const plain = (text: string): string => text.replace(/[^\x20-\x7e]/gu, numbered);

const IS_PLAIN = /^[\p{L}\p{N}_.*:/@+-]+$/u;

// A name: in quotes unless its characters are plain, so that `sales, hr` does not look like two.
export const named = (text: string): string =>
  plain(IS_PLAIN.test(text) ? text : JSON.stringify(text));

// --- times ---------------------------------------------------------------------------------------

export const FIRST = -62_135_596_800; // of the year 1
export const LAST = 253_402_300_799; // of the year 9999

// In UTC. One that no calendar has stays a number.
export function readableTime(seconds: number): string {
  if (seconds < FIRST || seconds > LAST) return String(seconds);
  const [date = "", time = ""] = new Date(seconds * 1000).toISOString().split("T");
  return `${date} ${time.slice(0, 8)}Z`;
}

const UNITS = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "m"],
  [1, "s"],
] as const;

// A length of time in its two largest units, never rounded up: "9m 30s".
export function span(seconds: number): string {
  const parts: string[] = [];
  let left = seconds;
  for (const [size, unit] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0s";
}

// When something ends, and how far off that is. At its end it has expired.
export function until(end: number, now: number): string {
  const left = end - now;
  const away = left > 0 ? `${span(left)} left` : `expired ${span(-left)} ago`;
  return `${readableTime(end)}, ${away}`;
}
