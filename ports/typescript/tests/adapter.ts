/**
 * captoken for TypeScript, as a runner of `spec/vectors` asks it: a function for each kind of
 * vector.
 */

import { b64encode, byCodePoint, concat, hex, unhex, utf8 } from "../src/format/bytes.js";
import { bind, derive, tagsOf } from "../src/format/crypto.js";
import { CaptokenError, UsageError, WideningError } from "../src/format/errors.js";
import { defined } from "../src/format/given.js";
import { canonicalText, parseJson, plain } from "../src/format/json.js";
import { splitSigned, readLink, type Link } from "../src/language/links.js";
import { capabilityOf } from "../src/language/capability.js";
import * as captoken from "../src/index.js";
import { packetsOf } from "../src/writing/held.js";
import { presentedText } from "../src/writing/token.js";
import { withProof } from "../src/writing/proving.js";
import { normalize } from "../src/interop.js";
import { checkTrail, recorded } from "../src/audit.js";
import { ControlPlane } from "../src/recall.js";
import { kindOf, stepOf } from "../src/verification/codes.js";
import type { Narrowing } from "../src/writing/token.js";

export type Outcome = Record<string, unknown>;
export type Vector = any;

const latin = (text: string): Uint8Array =>
  Uint8Array.from(text, (character) => character.charCodeAt(0));

const unlatin = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

/** The code of what is raised. */
function coded(ask: () => Outcome): Outcome {
  try {
    return { code: "ok", ...ask() };
  } catch (error) {
    if (error instanceof captoken.Denied) return placed(error.decision);
    if (error instanceof WideningError) return { code: error.code, dimension: error.dimension };
    if (error instanceof CaptokenError) return { code: error.code };
    if (error instanceof UsageError) return { code: "usage" };
    throw error;
  }
}

/** The same without the dimension of what is too much. */
function bare(ask: () => Outcome): Outcome {
  const { dimension: _, ...outcome } = coded(ask);
  return outcome;
}

const camel = (name: string): string =>
  name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Keywords of Python as those of TypeScript. */
export function keywords(asked: Record<string, unknown>): Narrowing {
  const made = Object.entries(asked).map(([key, value]) => [
    key.includes(":") ? key : camel(key),
    value,
  ]);
  return Object.fromEntries(made) as Narrowing;
}

export function keyringOf({ keys, audience }: Vector, named?: string): captoken.Keyring {
  const bytes = new Map(
    Object.entries(keys as Record<string, string>).map(([id, key]) => [id, unhex(key)]),
  );
  const current = named ?? [...bytes.keys()][0]!;
  return audience === null
    ? captoken.Keyring.fromKeys(bytes, current)
    : captoken.Keyring.forOneAudience(bytes, current, audience);
}

interface Set {
  verifier: captoken.Verifier;
  uses: captoken.Use[];
  spends: captoken.Use[];
  debits: captoken.Debit[];
  marks: string[];
  /** What may change between two questions. */
  moment: { now: number; snapshot: string | null };
}

export function verifierOf(vector: Vector): Set {
  const { facts } = vector;
  const moment = { now: facts.now, snapshot: vector.overlay?.snapshot ?? null };
  const uses: captoken.Use[] = [];
  const spends: captoken.Use[] = [];
  const debits: captoken.Debit[] = [];
  const marks: string[] = [];
  const options = {
    audience: facts.audiences,
    allowUnaddressed: facts.allow_unaddressed,
    leeway: facts.leeway,
    clock: () => moment.now,
    maxAge: vector.max_age,
    vocabulary: vector.own && vocabularyOf(vector.own),
    replays: vector.replays && replaysOf(vector.replays, uses, spends),
    ledger: vector.ledger && ledgerOf(vector.ledger, debits, marks),
    ...overlayOf(vector.overlay, moment),
    context: facts.context === undefined ? undefined : () => facts.context,
  };
  const verifier = new captoken.Verifier(keyringOf(vector.keyring), defined(options) as object);
  return { verifier, uses, spends, debits, marks, moment };
}

const vocabularyOf = (own: readonly Vector[]): captoken.Vocabulary =>
  Object.fromEntries(own.map((each) => [each.key, ownOf(each)]));

/** An own caveat that does what is said. */
function ownOf({
  key,
  domain,
  asks_access: asksAccess = true,
  does,
  code,
  value: answer,
}: Vector): captoken.OwnCaveat {
  const attribute = key.slice(key.indexOf(":") + 1);
  return {
    domain,
    asksAccess,
    read: (value) => {
      if (does === "refuses_value") throw new Error("no value is one of mine");
      return value;
    },
    prohibits: (value, access) => {
      if (does === "fails") throw new Error("the check fails");
      if (does === "prohibits") return code === undefined ? "so it is" : { code, text: "so it is" };
      if (does === "attribute_in") {
        const stated = (access?.attributes as Record<string, unknown> | undefined)?.[attribute];
        return (value as unknown[]).includes(stated) ? undefined : "not one of the list";
      }
      return does === "answers" ? answer : undefined;
    },
  };
}

function reach({ down = false }: { down?: boolean }): void {
  if (down) throw new Error("it cannot be reached");
}

/** Random bytes that are given: as many as are asked for, or it is a mistake of the writer. */
const given =
  (...spelled: readonly string[]) =>
  (length: number): Uint8Array => {
    const found = spelled.map(unhex).find((each) => each.length === length);
    if (!found) throw new Error(`nobody draws ${length} bytes`);
    return found;
  };

function replaysOf(stated: Vector, uses: captoken.Use[], spends: captoken.Use[]): captoken.ReplayStore {
  const store = new captoken.MemoryReplayStore(defined({ floor: stated.floor, limit: stated.limit }));
  for (const { entry, issued_at: issuedAt } of stated.used) {
    store.add({ entry: unhex(entry), issuedAt, kid: "k1" }, issuedAt);
  }
  for (const { entry, issued_at: issuedAt } of stated.spent ?? []) {
    store.spend({ entry: unhex(entry), issuedAt, kid: "" }, issuedAt);
  }
  return {
    look: (use, now) => {
      reach(stated);
      return store.look(use, now);
    },
    add: (use, now) => {
      reach(stated);
      const answer = store.add(use, now);
      if (answer === "added") uses.push(use);
      return answer;
    },
    lookSpend: (use, now) => {
      reach(stated);
      return store.lookSpend(use, now);
    },
    spend: (use, now) => {
      reach(stated);
      const answer = store.spend(use, now);
      if (answer === "added") spends.push(use);
      return answer;
    },
  };
}

function ledgerOf(stated: Vector, debits: captoken.Debit[], marks: string[]): captoken.Ledger {
  const store = new captoken.MemoryLedger({ shared: stated.shared, floor: stated.floor });
  for (const [at, { bucket, unit, amount }] of (stated.spent as Vector[]).entries()) {
    const id = Uint8Array.of(at);
    const debit = { bucket, unit, limit: 2 ** 60, amount: Number(amount), link: 0 };
    store.reserve(
      {
        id,
        tokenId: "",
        issuedAt: stated.floor + 1,
        debits: [debit],
        keptUntil: undefined,
        leeway: 0,
        kid: "k1",
      },
      -1,
    );
  }
  const before = { id: utf8("marks"), tokenId: "", issuedAt: stated.floor + 1, debits: [], keptUntil: undefined, leeway: 0, kid: "k1" };
  const set = (stated.marks ?? []).map((bucket: string) => ({ bucket, tree: "", name: "" }));
  store.step(before, { marks: set, rules: [] }, -1);
  return {
    lookStep: (reservation, marked, now) => {
      reach(stated);
      return store.lookStep(reservation, marked, now);
    },
    step: (reservation, marked, now) => {
      reach(stated);
      const answer = store.step(reservation, marked, now);
      if (answer === "reserved") {
        debits.push(...reservation.debits);
        marks.push(...marked.marks.map(({ bucket }) => bucket));
      }
      return answer;
    },
    shared: store.shared,
    look: (reservation, now) => {
      reach(stated);
      return store.look(reservation, now);
    },
    settle: (id, taken, now) => store.settle(id, taken, now),
    reserve: (reservation, now) => {
      reach(stated);
      const answer = store.reserve(reservation, now);
      if (answer === "reserved") debits.push(...reservation.debits);
      return answer;
    },
  };
}

function overlayOf(stated: Vector, moment: Set["moment"]): captoken.VerifierOptions {
  if (!stated) return {};
  const overlay = (): captoken.Overlay | undefined => {
    reach(stated);
    if (moment.snapshot === null) return undefined;
    return captoken.openOverlay(latin(moment.snapshot), stated.operators);
  };
  return defined({ overlay, maxStaleness: stated.max_staleness, allowStaleOverlay: stated.allow_stale });
}

/** Steps beside that of the table (24.24). */
const OTHER_STEPS = new Set(["malformed 1", "malformed 3", "store_unavailable 7", "stale_overlay 8", "too_much_work 7"]);

/** The place of a refusal, as `expect` may have it. */
export function place(decision: captoken.DryRun): Outcome {
  if (decision.allowed) return {};
  const { code, step } = decision;
  if (step !== stepOf(code) && !OTHER_STEPS.has(`${code} ${step}`)) {
    throw new Error(`${code} at step ${step}`);
  }
  const [{ link, addedBy }] = decision.refusals;
  return {
    ...(link !== undefined && { link }),
    ...(addedBy !== undefined && { added_by: addedBy }),
  };
}

const placed = (decision: captoken.DryRun): Outcome => ({
  code: decision.code,
  ...place(decision),
});

function askingOf(vector: Vector): captoken.AskingText {
  return defined({
    caller: vector.caller ?? undefined,
    request: vector.request === undefined ? undefined : unhex(vector.request),
  });
}

/** The access, which a program can state: what `check` denies, the vectors call `usage` (7.7). */
function statable(access: captoken.Access | null): captoken.Access | null {
  if (access) captoken.checkAccess(access);
  return access;
}

function decide(vector: Vector): Outcome {
  const asking = askingOf(vector);
  const access = statable(vector.access);
  const { verifier, uses, spends, debits, marks } = verifierOf(vector);
  const decision = verifier.check(vector.token, access, asking);
  const dry = verifierOf(vector).verifier.explain(vector.token, access, asking);
  if (dry.code !== decision.code) return { code: `${decision.code} but explained as ${dry.code}` };
  if (!decision.allowed) return placed(decision);
  const { grant } = decision;
  return {
    code: "allowed",
    link_ids: grant.linkIds,
    chain: grant.chain.map(({ name, basis }) => [name, basis]),
    task: grant.task,
    expires_at: grant.expiresAt ?? null,
    ...(vector.ledger && {
      debits: debits.map(({ bucket, unit, limit, amount }) => ({ bucket, unit, limit, amount })),
    }),
    ...(marks.length && { marks: [...marks].sort() }),
    ...(spends.length && {
      spends: spends.map(({ entry, issuedAt }) => ({ entry: hex(entry), issued_at: issuedAt })),
    }),
    ...(grant.key !== undefined && {
      key: grant.key,
      uses: uses.map(({ entry, issuedAt }) => ({ entry: hex(entry), issued_at: issuedAt })),
      evidence: grant.evidence,
    }),
  };
}

function linkOf(json: Vector): Link {
  const counts = ["uses", "budget", "marks"].some((key) => json[key] !== undefined);
  const link = readLink(utf8(stringified({ ...json, ...(counts && { n: "AAAAAAAAAAA" }) })), {});
  if (link.kind === "bad") throw new Error(link.text);
  return link;
}

/** Canonical JSON of plain values. */
function stringified(json: Vector): string {
  if (Array.isArray(json)) return `[${json.map(stringified).join()}]`;
  if (typeof json !== "object" || json === null) return JSON.stringify(json);
  const keys = Object.keys(json).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${stringified(json[key])}`).join()}}`;
}

/** What comes of a vector: fields that JSON readers lose are carried as JSON text. */
export function answer(vector: Vector): Outcome {
  const carried = Object.entries(vector).map(([name, value]) =>
    name.endsWith("_json")
      ? [name.slice(0, -"_json".length), plain(parseJson(value as string))]
      : [name, value],
  );
  return ADAPTER[vector.kind]!(Object.fromEntries(carried));
}

const ADAPTER: Record<string, (vector: Vector) => Outcome> = {
  decision: (vector) => coded(() => decide(vector)),
  own: (vector) => coded(() => decide(vector)),
  grant: (vector) =>
    coded(() => {
      const { verifier, moment } = verifierOf(vector);
      const grant = verifier.authenticate(vector.token, askingOf(vector));
      const answers = vector.steps.map((step: Vector) => {
        moment.now = step.now;
        moment.snapshot = step.snapshot ?? moment.snapshot;
        const caller = defined({ caller: step.caller });
        statable(step.access);
        if (step.how === "recheck") return placed(grant.recheck(step.access, caller));
        return placed(
          step.how === "explain"
            ? grant.explain(step.access, caller)
            : grant.check(step.access, caller),
        );
      });
      return { answers };
    }),
  dry_run: (vector) =>
    coded(() => {
      const { verifier, uses, debits } = verifierOf(vector);
      const access = statable(vector.access);
      const [first, second] = [1, 2].map(() =>
        verifier.explain(vector.token, access, askingOf(vector)),
      );
      if (first!.code !== second!.code || uses.length || debits.length) {
        throw new Error("a dry run takes nothing");
      }
      return {
        ...placed(first!),
        then: verifier.check(vector.token, access, askingOf(vector)).code,
      };
    }),
  mint: (vector) =>
    coded(() => {
      const { keyring, current, now, subject, agent, task, asked, own = [] } = vector;
      const issuer = new captoken.Issuer(keyringOf(keyring, current), {
        clock: () => now,
        random: given(vector.token_id, vector.nonce),
        vocabulary: vocabularyOf(own),
      });
      // A task in link 0 cannot be said here: there is one keyword, and it is the root's.
      if ("task" in asked) throw new UsageError("task twice");
      const wanted = keywords(asked) as unknown as captoken.Minting;
      return { token: issuer.mint({ ...wanted, subject, agent, task }).serialize() };
    }),
  chain: ({ key, identifier, caveats, bound_to: boundTo }) => {
    const derived = derive(unhex(key));
    const raw = caveats.map(({ cid, vid }: Vector) => ({
      cid: unhex(cid),
      vid: vid ? unhex(vid) : undefined,
    }));
    const tags = tagsOf(derived, unhex(identifier), raw);
    const bound = boundTo === null ? null : hex(bind(unhex(boundTo), tags.at(-1)!));
    return { code: "ok", derived: hex(derived), tags: tags.map(hex), bound };
  },
  capability: ({ one, two }) => {
    const [mine, its] = [one, two].map((json) => capabilityOf([linkOf(json)])) as [
      captoken.Capability,
      captoken.Capability,
    ];
    const both = captoken.meet(mine, its);
    if (!captoken.sameCapability(both, captoken.meet(its, mine))) {
      throw new Error("meet is not symmetric");
    }
    const json = plain(captoken.capabilityJson(both));
    if (!captoken.sameCapability(both, capabilityOf([linkOf(json)]))) {
      throw new Error("its spelling says something else");
    }
    return {
      code: "ok",
      meet: json,
      one_covers_two: captoken.covers(mine, its),
      two_covers_one: captoken.covers(its, mine),
    };
  },
  widening: ({ token, asked, to, now, nonce, signer, own = [] }) =>
    coded(() => {
      const means = { clock: () => now, random: given(nonce), vocabulary: vocabularyOf(own) };
      const held = captoken.Token.parse(token, means);
      const by = signer === undefined ? undefined : captoken.HolderKey.fromBytes(unhex(signer));
      const terms = defined({ ...keywords(asked), signer: by }) as Narrowing;
      const made = to === null ? held.attenuate(terms) : held.delegate({ ...terms, to });
      const { body, signature } = splitSigned(packetsOf(made).packet.caveats.at(-1)!.cid)!;
      const link = plain(canonicalText(new TextDecoder().decode(body))!);
      return { link, ...(signature && { signature: b64encode(signature) }) };
    }),
  set_of: ({ tokens }) =>
    coded(() => {
      const held = (tokens as string[]).map((text) => captoken.Token.parse(text));
      return { text: captoken.TokenSet.of(...held).serialize() };
    }),
  set_read: ({ text }) =>
    coded(() => {
      const held = captoken.TokenSet.parse(text);
      const { servers } = held;
      return { servers, tokens: servers.map((server) => held.token(server).serialize()) };
    }),
  set_narrowing: ({ text, asked, to, servers, only = {}, now, nonce, signer }) => {
    let server = "";
    const came = coded(() => {
      const held = captoken.TokenSet.parse(text, { clock: () => now, random: given(nonce) });
      const each = Object.entries(only as Vector).map(([at, its]) => [at, keywords(its as Vector)]);
      const by = signer === undefined ? undefined : captoken.HolderKey.fromBytes(unhex(signer));
      const placing = { servers, only: Object.fromEntries(each), signer: by };
      const terms = { ...keywords(asked), ...defined(placing) } as Narrowing;
      try {
        const made = to === null ? held.attenuate(terms) : held.delegate({ ...terms, to });
        return { text: made.serialize() };
      } catch (error) {
        server = /^at (\S+): /.exec((error as Error).message)?.[1] ?? "";
        throw error;
      }
    });
    return "dimension" in came ? { ...came, server } : came;
  },
  interop: ({ source, form }) =>
    coded(() => ({ text: normalize(form === "text" ? source : unhex(source)) })),
  request: (vector) => coded(() => ({ digest: hex(requestOf(vector)) })),
  proof: ({ token, secret, audience, request, now, nonce }) =>
    coded(() => {
      const signer = captoken.HolderKey.fromBytes(unhex(secret));
      const means = { clock: () => now, random: given(nonce) };
      return { text: withProof(token, signer, { audience, request: unhex(request) }, means) };
    }),
  presenting: ({ token, audience, now, secret, nonce = "", request }) =>
    bare(() => {
      const held = captoken.Token.parse(token, { clock: () => now, random: given(nonce) });
      const signer = secret === undefined ? undefined : captoken.HolderKey.fromBytes(unhex(secret));
      return {
        text: held.present(
          defined({ audience, signer, request: request && unhex(request) }) as captoken.Presenting,
        ),
      };
    }),
  evidence: ({ evidence }) =>
    coded(() => ({
      code: captoken.evidenceHolds(captoken.readEvidence(evidence)) ? "ok" : "bad_proof",
    })),
  asking: ({ token, discharger, need, location, caveat_key: key, ephemeral, nonce }) =>
    coded(() => {
      const drawn = [key, ephemeral, nonce];
      const held = captoken.Token.parse(token, {
        random: (length) => given(drawn.shift()!)(length),
      });
      return {
        token: held.require(discharger, defined({ need, location: location ?? undefined })).serialize(),
      };
    }),
  discharge: ({ secret, ticket, asked, now }) =>
    coded(() => {
      const key = captoken.DischargerKey.fromBytes(unhex(secret));
      const { need } = captoken.openTicket(key, ticket);
      return {
        need,
        discharge: captoken
          .discharge(key, ticket, keywords(asked), { clock: () => now })
          .serialize(),
      };
    }),
  holding: ({ token, come = [] }) =>
    coded(() => {
      const given = captoken.Token.parse(token);
      if (given.serialize() !== token) throw new Error("another text");
      const held: captoken.Token = come.reduce(
        (before: captoken.Token, each: string) => before.withDischarge(each),
        given,
      );
      return { needs: held.needs.map(({ text }) => text), bound: presentedText(held) };
    }),
  pairwise: ({ secret, server, issuers, audience }) =>
    coded(() => {
      const key = captoken.PairwiseKey.fromBytes(unhex(secret));
      const ring =
        server === undefined
          ? key.serving({ issuers, audience })
          : key.issuing({ server, audience });
      return { keys: revealed(ring) };
    }),
  key_file: ({ purpose, content }) =>
    coded(() => {
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(latin(content));
      const again = text.endsWith("\n") ? text : `${text}\n`;
      if (purpose === "keyring") {
        const ring = captoken.Keyring.parse(text);
        if (ring.serialize() !== again) throw new Error("written otherwise than it is read");
        return { keys: revealed(ring), current: ring.current, audience: ring.audience ?? null };
      }
      const key = KEYS[purpose]!.parse(text);
      if (key.serialize() !== again) throw new Error("written otherwise than it is read");
      return { public: key.public };
    }),
  snapshot: ({ snapshot, operators, known, own = [] }) =>
    coded(() => {
      const feed = new captoken.Feed(operators, vocabularyOf(own));
      if (known !== undefined) feed.accept(latin(known));
      const overlay = feed.accept(latin(snapshot));
      return { ...seen(overlay), entries: overlay.entries.map(({ id }) => id) };
    }),
  delta: ({ known, deltas, operators, own = [] }) =>
    coded(() => {
      const vocabulary = vocabularyOf(own);
      const before = captoken.openOverlay(latin(known), operators, vocabulary);
      const bytes = deltas.map(latin);
      const behind = outcomeOf(
        () => captoken.openOverlay(joined([latin(known), ...bytes]), operators, vocabulary).hash,
      );
      const followed = outcomeOf(() => captoken.followOverlay(before, bytes, operators, vocabulary).hash);
      if (behind !== followed) throw new Error("two ways, and two answers");
      const overlay = captoken.followOverlay(before, bytes, operators, vocabulary);
      return {
        ...seen(overlay),
        entries: overlay.entries.map(({ id }) => id).sort(byCodePoint),
        hash: overlay.hash,
      };
    }),
  trail: ({ trail, servers, known, after }) =>
    coded(() => {
      const { head, signed, decisions } = checkTrail(latin(trail), servers, defined({ known, after }));
      return { head, signed, decisions };
    }),
  recorded: ({ arguments: values }) => coded(() => ({ arguments: plain(recorded(values)) })),
  recalling: ({ token, handed_on: handedOn, audience, why, now }) =>
    coded(() => {
      const [mine, its] = [token, handedOn].map((each: string) =>
        captoken.Token.parse(each, { clock: () => now }),
      );
      return { request: captoken.recall(mine!, its!, { audience, why }) };
    }),
  publishing: ({ secret, entries, seq, issued_at: issuedAt, expires_at: expiresAt, known, ...rest }) =>
    coded(() => {
      const { past, resumed } = rest;
      const key = captoken.OperatorKey.fromBytes(unhex(secret));
      const all = entries.map((each: Vector) => captoken.overlayEntry(each));
      const when = { seq, issuedAt, expiresAt };
      if (known === undefined) {
        const stated = { ...when, past, resumed };
        return { written: unlatin(captoken.signSnapshot(key, all, stated)) };
      }
      const before = captoken.openOverlay(latin(known), [key.public]);
      return { written: unlatin(captoken.signDelta(key, before, all, when)) };
    }),
  code: ({ denied }) => ({ code: "ok", step: stepOf(denied), denial_kind: kindOf(denied) }),
  counting: (vector) => coded(() => ({ codes: counted(vector) })),
  recall: (vector) => coded(() => recalled(vector)),
};

type Key = { public: string; serialize: () => string };
const KEYS: Record<string, { parse: (content: string) => Key }> = {
  holder: captoken.HolderKey,
  discharger: captoken.DischargerKey,
  pairwise: captoken.PairwiseKey,
  operator: captoken.OperatorKey,
  audit: captoken.AuditKey,
};

const revealed = (ring: captoken.Keyring): Outcome =>
  Object.fromEntries(ring.keyIds.map((id) => [id, hex(ring.reveal(id))]));

const seen = ({ seq, issuedAt, expiresAt }: captoken.Overlay): Outcome => ({
  seq,
  issued_at: issuedAt,
  expires_at: expiresAt,
});

const joined = (lines: Uint8Array[]): Uint8Array =>
  concat(...lines.flatMap((line, at) => (at ? [Uint8Array.of(10), line] : [line])));

function outcomeOf(ask: () => string): string {
  try {
    return ask();
  } catch (error) {
    return (error as CaptokenError).code;
  }
}

function requestOf(vector: Vector): Uint8Array {
  const { form, method } = vector;
  if (form === "http") {
    return captoken.httpRequest(method, vector.origin, vector.target, unhex(vector.body));
  }
  if (form === "mcp") return captoken.mcpRequest(method, vector.tool, unhex(vector.arguments));
  if (form === "message") return captoken.mcpMessageRequest(method, vector.params);
  return captoken.accessRequest(vector.access ?? undefined);
}

function counted({ keyring, audience, ledger: stated, steps }: Vector): string[] {
  const ledger = new captoken.MemoryLedger({ shared: stated.shared, floor: stated.floor });
  for (const { tree, buckets, until } of stated.kept ?? []) {
    const debits = Array.from({ length: buckets }, (_, at) => ({
      bucket: `${at}`,
      unit: "uses",
      limit: 1,
      amount: 1,
      link: 0,
    }));
    const keptUntil = until === null ? undefined : until - 3600;
    const id = utf8(`kept ${tree}`);
    ledger.reserve(
      { id, tokenId: tree, issuedAt: stated.floor + 1, debits, keptUntil, leeway: 0, kid: "k1" },
      -1,
    );
  }
  return steps.flatMap((step: Vector) => {
    let { now } = step;
    const verifier = new captoken.Verifier(keyringOf(keyring), {
      audience,
      ledger,
      clock: () => now,
      leeway: step.leeway ?? 0,
      ...(step.id !== undefined && { random: given(step.id) }),
    });
    if (step.settle === undefined && step.cancel === undefined) {
      return [verifier.check(step.token, statable(step.access)).code];
    }
    const reserved = verifier.authenticate(step.token).reserve(step.access);
    now = step.closed_at ?? now;
    const close = (said: Vector): unknown =>
      coded(() => {
        const isClosed =
          said.cancel === undefined ? reserved.settle(said.settle ?? undefined) : reserved.cancel();
        return { code: isClosed ? "closed" : "too_late" };
      })["code"];
    return ["allowed", close(step), ...(step.again === undefined ? [] : [close(step.again)])];
  });
}

function recalled(vector: Vector): Outcome {
  const verifier = new captoken.Verifier(keyringOf(vector.keyring), {
    audience: vector.audience,
    clock: () => vector.now,
    replays: new captoken.MemoryReplayStore({ floor: 0 }),
  });
  const { most, part, now } = vector;
  const plane = new ControlPlane(verifier, defined({ most, part, clock: () => now }));
  const { entry, entries } = plane.handle(vector.request, vector.standing ?? []);
  const shown = ({ select, asked, until }: Vector): Outcome => ({
    token: select.token ?? null,
    link: select.link ?? select.hop ?? null,
    asked: asked ?? null,
    until: until ?? null,
  });
  if (vector.standing === undefined) return shown(entry);
  const standing = entries.filter(({ until }) => until === undefined || vector.now < until);
  const stands = standing.map((each) => Object.values(shown(each)));
  return {
    ...shown(entry),
    stands: stands.sort((one, two) => (JSON.stringify(one) < JSON.stringify(two) ? -1 : 1)),
  };
}
