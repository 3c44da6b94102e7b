/**
 * The newest overlay, for verifiers: looked for at an interval (spec, "Overlay").
 *
 * Whatever the source does: only what a trusted operator signed is taken, and nothing older than
 * what is known. If a look fails, the overlay that is there stays, becomes too old, and verifiers
 * then deny. So whoever keeps snapshots from a server can only stop it from allowing anything.
 */

import type { Bytes } from "./format/bytes.js";
import { CaptokenError, UsageError } from "./format/errors.js";
import { settings } from "./format/given.js";
import type { Vocabulary } from "./language/caveats.js";
import { Feed, type Overlay } from "./language/overlay.js";

/** What gives a snapshot, with deltas behind it perhaps; undefined where none was published yet. */
export type Source = (signal: AbortSignal) => Given | PromiseLike<Given>;
type Given = Bytes | string | undefined;

export interface PollerOptions {
  /** Seconds from the end of one look to the next: 5 if not said. */
  readonly every?: number;
  /** Seconds that a look may take: 5 if not said. */
  readonly timeout?: number;
  /** The verifier's: an entry with an unknown caveat makes the whole snapshot invalid. */
  readonly vocabulary?: Vocabulary;
  /** Told when looks begin to fail, when they fail otherwise, and when they succeed again. */
  readonly onProblem?: (problem: Error | undefined) => void;
}

const MOST = 2 ** 27; // bytes of a snapshot with its deltas

const refused = (text: string): CaptokenError => new CaptokenError(text, "overlay");

/**
 * Looks for the newest overlay, again and again.
 *
 *     const poller = await new OverlayPoller(new URL("https://…"), [operator]).start();
 *     const verifier = new Verifier(keyring, { overlay: poller.overlay });
 */
export class OverlayPoller {
  readonly #feed: Feed;
  readonly #source: Source;
  readonly #every: number;
  readonly #timeout: number;
  readonly #onProblem: (problem: Error | undefined) => void;
  #seen: Given;
  #problem: Error | undefined;
  #look: Promise<Overlay> | undefined;
  #timer: unknown;

  /** The newest overlay that was had: for `Verifier`, which judges how old it is. */
  readonly overlay = (): Overlay | undefined => this.#feed.overlay;

  /** Of a URL, `https:`, `http:` and `file:` are read. `operators` are public keys. */
  constructor(source: Source | URL, operators: readonly (string | Bytes)[], given: PollerOptions = {}) {
    const options = settings(given, /^(every|timeout|vocabulary|onProblem)$/);
    this.#source = source instanceof URL ? sourceOf(source) : source;
    if (typeof this.#source !== "function") throw new UsageError("a source is a function or a URL");
    this.#every = secondsOf(options.every, "every");
    this.#timeout = secondsOf(options.timeout, "timeout");
    this.#onProblem = options.onProblem ?? (() => undefined);
    this.#feed = new Feed(operators, options.vocabulary);
  }

  /** Why the last look failed; undefined if it did not. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  /**
   * The first look, and then one after the other until `stop`. Rejects as `refresh` does, so that a
   * program does not start without an overlay. It keeps no program running.
   */
  async start(): Promise<this> {
    this.stop();
    await this.refresh();
    this.#next();
    return this;
  }

  stop(): void {
    clearTimeout(this.#timer as number);
    this.#timer = undefined;
  }

  /** A look now: by itself where no timer runs between requests. Rejects for what is refused. */
  refresh(): Promise<Overlay> {
    this.#look ??= this.#taken().finally(() => {
      this.#look = undefined;
    });
    return this.#look;
  }

  #next(): void {
    const timer = setTimeout(() => {
      const own = this.#timer;
      const again = (): void => {
        if (own === this.#timer) this.#next();
      };
      void this.refresh().then(again, again);
    }, 1000 * this.#every);
    (timer as { unref?: () => void }).unref?.();
    this.#timer = timer;
  }

  async #taken(): Promise<Overlay> {
    try {
      const data = await inTime(this.#source, this.#timeout);
      if (data === undefined) throw refused("there is no snapshot yet: an operator publishes one");
      const known = this.#feed.overlay;
      // What was opened before need not be checked again.
      const overlay = known && isSame(data, this.#seen) ? known : this.#feed.accept(data);
      this.#seen = data;
      this.#tell(undefined);
      return overlay;
    } catch (error) {
      const problem = error instanceof Error ? error : refused("the source failed");
      this.#tell(problem);
      throw problem;
    }
  }

  #tell(problem: Error | undefined): void {
    const isNews = problem?.message !== this.#problem?.message;
    this.#problem = problem;
    if (isNews) this.#onProblem(problem);
  }
}

function secondsOf(given: number | undefined, what: string): number {
  const seconds = given ?? 5;
  if (typeof seconds !== "number" || !(seconds > 0 && seconds <= 86_400)) {
    throw new UsageError(`${what} is seconds, more than 0`);
  }
  return seconds;
}

const isSame = (one: Given, two: Given): boolean =>
  one === two ||
  (one instanceof Uint8Array &&
    two instanceof Uint8Array &&
    one.length === two.length &&
    one.every((byte, at) => byte === two[at]));

/** What the source gives, in time. */
function inTime(source: Source, seconds: number): Promise<Given> {
  const ends = new AbortController();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      ends.abort();
      reject(refused(`no snapshot within ${seconds} seconds`));
    }, 1000 * seconds);
    const stop = (): void => clearTimeout(timer);
    void Promise.resolve(ends.signal).then(source).then(resolve, reject).finally(stop);
  });
}

function sourceOf(url: URL): Source {
  if (url.protocol === "file:") return () => readFile(url);
  if (!/^https?:$/.test(url.protocol)) throw new UsageError("a URL is https:, http: or file:");
  let known: { readonly tag: string; readonly data: Bytes } | undefined;
  return async (signal) => {
    const headers = known && { "if-none-match": known.tag };
    const response = await fetch(url, { signal, ...(headers && { headers }) });
    if (response.status === 304 && known) return known.data;
    if (!response.ok) throw refused(`the URL answers ${response.status}`);
    const data = await bodyOf(response);
    const tag = response.headers.get("etag");
    known = tag ? { tag, data } : undefined;
    return data;
  };
}

/** So that bundles for where there are no files need none. */
async function readFile(url: URL): Promise<Bytes> {
  const name = "node:fs/promises";
  const files = (await import(name)) as { readFile(url: URL): Promise<Bytes> };
  return files.readFile(url);
}

async function bodyOf(response: Response): Promise<Bytes> {
  const parts: Bytes[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    length += part.value.length;
    if (length > MOST) {
      void reader?.cancel();
      throw refused("too long");
    }
    parts.push(part.value);
  }
  const made = new Uint8Array(length);
  parts.reduce((at, part) => {
    made.set(part, at);
    return at + part.length;
  }, 0);
  return made;
}
