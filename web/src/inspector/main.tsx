// The inspector: a token is pasted and taken apart, in the page, and nothing leaves it.
//
// What is pasted stands in the state of one component, and nowhere else: no storage, no address,
// no title. When the page is left it is gone, also from the memory in which browsers keep pages.
import { Component, render } from "preact";
import type { JSX } from "preact";
import { BytesPanel } from "./bytes";
import type { Mark } from "./bytes";
import { sectionsOf } from "./layout";
import type { Section } from "./layout";
import { Narrow } from "./narrow";
import { sample } from "./sample";
import { Links, Says, Summary } from "./says";
import { bare, read, undressed } from "./read";
import type { Read } from "./read";
import { publicIn, verify } from "./verify";
import type { Keys, Verdict } from "./verify";
import { Trying } from "../trying";

const EVERY = 5000; // milliseconds between two looks at the clock

const secondsNow = (): number => Math.floor(Date.now() / 1000);

interface Pasted extends Keys {
  readonly token: string;
  // An access that is tried, as it was typed.
  readonly access: string;
  // Of one that was narrowed here: the token that was pasted.
  readonly before?: string | undefined;
  // Is the key that of the sample? It opens nothing else.
  readonly isSample: boolean;
  readonly now: number;
}

const ALIKE = 40; // characters that a token keeps while it is played with

const blank = (): Pasted => ({
  token: "",
  access: "",
  secret: "",
  open: "",
  server: "",
  isSample: false,
  now: secondsNow(),
});

interface Shown {
  readonly pasted: Pasted;
  // How often all was cleared.
  readonly round: number;
  readonly mark: Mark;
  readonly seen: Read | null;
  readonly sections: readonly Section[];
  readonly verdict: Verdict | null;
}

const UNMARKED: Mark = { chosen: null, over: null };

// What is made of what was pasted.
function taken(pasted: Pasted): Pick<Shown, "pasted" | "seen" | "verdict"> {
  const seen = read(undressed(pasted.token), pasted.now);
  const verdict = seen?.kind === "token" ? verify(seen, pasted, pasted.now) : null;
  return { pasted, seen, verdict };
}

class App extends Component<object, Shown> {
  override state: Shown = { ...taken(blank()), round: 0, mark: UNMARKED, sections: [] };
  private timer = 0;

  override componentDidMount(): void {
    this.timer = setInterval(() => this.say({}), EVERY) as unknown as number;
  }

  override componentWillUnmount(): void {
    clearInterval(this.timer);
  }

  // Of what stood before this change, also where another one has just come.
  private readonly say = (change: Partial<Pasted>): void =>
    this.setState(({ pasted }) => {
      const isOther = change.token !== undefined && change.token !== pasted.token;
      return {
        ...taken({ ...pasted, ...change, now: secondsNow() }),
        ...(isOther && { mark: UNMARKED, sections: sectionsOf(undressed(change.token ?? "")) }),
      };
    });

  private readonly clear = (): void => {
    // New fields, which cannot be undone to what stood in the old ones.
    this.setState(({ round }) => ({ round: round + 1 }));
    this.say(blank());
    document.getElementById("main")?.focus();
  };

  private readonly choose = (chosen: string | null): void =>
    this.setState({ mark: { chosen, over: null } });

  private readonly hover = (over: string | null): void =>
    this.setState(({ mark }) => (mark.over === over ? null : { mark: { ...mark, over } }));

  override render(): JSX.Element {
    const { pasted, round, mark, seen, sections, verdict } = this.state;
    const aboutKey = seen?.kind === "token" ? publicIn(seen, pasted.open) : "";
    return (
      <>
        <Head />
        <Banner seen={seen} verdict={verdict} isSample={pasted.isSample} />
        <main id="main" tabIndex={-1}>
          <Paste
            key={round}
            pasted={pasted}
            aboutKey={aboutKey}
            onSay={this.say}
            onClear={this.clear}
          />
          {seen ? <div class="said">{this.saying(seen)}</div> : <Empty onSay={this.say} />}
          {seen && !isJson(seen) && (
            <BytesPanel
              sections={sections}
              mark={mark}
              onHover={this.hover}
              onChoose={this.choose}
            />
          )}
        </main>
      </>
    );
  }

  private saying(seen: Read): JSX.Element {
    const { mark, pasted, sections, verdict } = this.state;
    if (seen.kind !== "token") return <Says seen={seen} isGood={false} />;
    return (
      <>
        <Says seen={seen} isGood={verdict?.state === "good"} />
        <Summary seen={seen} verdict={verdict} />
        {verdict?.state === "good" && (
          <Trying
            typed={pasted.access}
            tried={pasted.access.trim() === "" ? null : verdict.tried(pasted.access)}
            onType={(access) => this.say({ access })}
          />
        )}
        <Narrow
          // One that is looked at begins with an empty form.
          key={`narrow-${this.state.round} ${pasted.before === undefined ? "" : pasted.token}`}
          held={undressed(pasted.token)}
          now={pasted.now}
          onLook={(token) => this.say({ token, before: pasted.before ?? pasted.token })}
          onBack={
            pasted.before === undefined
              ? undefined
              : () => this.say({ token: pasted.before ?? "", before: undefined })
          }
        />
        <Links
          seen={seen}
          parts={sections[0]?.parts ?? []}
          mark={mark}
          onHover={this.hover}
          onChoose={this.choose}
        />
      </>
    );
  }
}

// These are text themselves, or several texts.
const isJson = (seen: Read): boolean => ["ticket", "link", "set", "jwt"].includes(seen.kind);

// --- what is above -------------------------------------------------------------------------------

function Head(): JSX.Element {
  const policy =
    document
      .querySelector("meta[http-equiv]")
      ?.getAttribute("content")
      ?.replace(/'sha256-[^']*'/g, "'sha256-…'") ?? "";
  return (
    <header>
      <h1>
        captoken <span>inspector</span>
      </h1>
      <details class="private">
        <summary>
          Nothing leaves this page: its policy forbids every connection. <u>How to check</u>
        </summary>
        <ul>
          <li>
            Show the source of the page. Its fifth line is the policy, which browsers enforce:
            <code class="policy">{policy}</code>
          </li>
          <li>Open the developer tools of the browser: under Network nothing appears.</li>
          <li>It is one file. Save it, go offline, and open it: all of it works.</li>
          <li>
            It keeps nothing: no storage, nothing in the address, and all is gone when you leave.
            Extensions of your browser are beyond it: a private window has none.
          </li>
        </ul>
      </details>
    </header>
  );
}

interface Said {
  readonly kind: "empty" | "unverified" | "bad" | "good" | "late";
  readonly head: string;
  readonly text: string;
}

function bannerOf(seen: Read | null, verdict: Verdict | null, isSample: boolean): Said {
  if (seen === null) {
    return { kind: "empty", head: "Paste a token to begin", text: "Nothing is pasted yet." };
  }
  if (seen.kind === "none") {
    const text = seen.isCut
      ? "this token is not whole: its end is missing, or it was changed on its way."
      : "this is no token.";
    return { kind: "bad", head: "Not verified", text: `${seen.problem.code}: ${text}` };
  }
  if (verdict === null) {
    return {
      kind: "unverified",
      head: "Not verified",
      text:
        seen.kind === "jwt"
          ? "Its issuer’s key would have to be asked, and the page asks nobody."
          : seen.kind === "set"
          ? "A server is sent its own token, and never the set."
          : "Alone it cannot be: a verifier looks at it together with its token.",
    };
  }
  if (verdict.trouble) return { kind: "bad", head: "Not verified", text: verdict.trouble };
  if (verdict.state === "none") {
    return {
      kind: "unverified",
      head: "Not verified",
      text: "Anybody can write this. Paste the root key, and it is verified here.",
    };
  }
  if (verdict.state === "bad") {
    const [first] = verdict.refused;
    const held = verdict.isChained ? " The chain of signatures holds." : "";
    const place = first?.place ? ` (${first.place})` : "";
    return {
      kind: "bad",
      head: "Not verified",
      text: `${first?.code}: ${first?.text}${place}.${held}`,
    };
  }
  const sample = isSample ? "A sample, with a key that this page has made. " : "";
  const under = `${sample}Every signature holds, under key ${verdict.keyId}.`;
  const late = verdict.now.length ? " A server would not take it now: see below." : "";
  return { kind: late ? "late" : "good", head: "Verified", text: under + late };
}

const SIGNS = { empty: "", unverified: "!", bad: "\u2715", good: "\u2713", late: "!" } as const;

function Banner(props: { seen: Read | null; verdict: Verdict | null; isSample: boolean }): JSX.Element {
  const { kind, head, text } = bannerOf(props.seen, props.verdict, props.isSample);
  return (
    <div class={`banner is-${kind}`} role="status">
      <span class="sign" aria-hidden="true">
        {SIGNS[kind]}
      </span>
      <strong>{head}</strong>
      <span class="why">{text}</span>
    </div>
  );
}

// --- what is pasted ------------------------------------------------------------------------------

// No browser, password manager or checker of spelling keeps it, or sends it anywhere.
const ALONE = {
  autocomplete: "off",
  autocorrect: "off",
  autocapitalize: "off",
  spellcheck: false,
  "data-gramm": "false",
  "data-lpignore": "true",
  "data-1p-ignore": "true",
} as const;

function Paste(props: {
  pasted: Pasted;
  aboutKey: string;
  onSay: (change: Partial<Pasted>) => void;
  onClear: () => void;
}): JSX.Element {
  const { pasted, aboutKey, onSay } = props;
  return (
    <section class="panel paste" aria-labelledby="paste-title">
      <div class="panel-head">
        <h2 id="paste-title">Paste</h2>
        <button type="button" class="small" onClick={props.onClear}>
          Clear all
        </button>
      </div>
      <label for="token">A token</label>
      <textarea
        id="token"
        rows={7}
        placeholder="cap1_…"
        aria-describedby="token-hint"
        value={pasted.token}
        onInput={(event) => {
          const token = event.currentTarget.value;
          const isOther = pasted.isSample && !token.startsWith(pasted.token.slice(0, ALIKE));
          onSay(isOther ? { ...blank(), token } : { token, before: undefined });
        }}
        {...ALONE}
      />
      <p class="hint" id="token-hint">
        {undressed(pasted.token) === bare(pasted.token)
          ? "As it is held, or as it is sent. "
          : "It is read without the header, the text and the line ends that it came in: a server takes none of these. "}
        A discharge, a ticket or a link alone is read as well.
      </p>
      <label for="secret">The root key</label>
      <textarea
        id="secret"
        class="masked"
        rows={3}
        aria-describedby="secret-hint"
        value={pasted.secret}
        onInput={(event) => onSay({ secret: event.currentTarget.value })}
        {...ALONE}
      />
      <p class="hint" id="secret-hint">
        A key file, or a key alone. Whoever has it mints any token: paste it only on a machine that
        may have the file.
      </p>
      <label for="server">The server’s own names</label>
      <input
        id="server"
        aria-describedby="server-hint"
        value={pasted.server}
        onInput={(event) => onSay({ server: event.currentTarget.value })}
        {...ALONE}
      />
      <p class="hint" id="server-hint">
        With a comma between two. Left empty: the servers that the token is addressed to.
      </p>
      <label for="open">A public key</label>
      <input
        id="open"
        aria-describedby="open-hint"
        value={pasted.open}
        onInput={(event) => onSay({ open: event.currentTarget.value })}
        {...ALONE}
      />
      <p class={aboutKey ? "hint told" : "hint"} id="open-hint" aria-live="polite">
        {aboutKey || "Whose is it? The holder’s, that the token is bound to, or a third party’s."}
      </p>
    </section>
  );
}

function Empty(props: { onSay: (change: Partial<Pasted>) => void }): JSX.Element {
  return (
    <section class="panel empty" aria-labelledby="empty-title">
      <h2 id="empty-title">What you will see</h2>
      <ul>
        <li>Who started what, and what the token permits, in words.</li>
        <li>Each link: who added it, what it takes away, and what is wrong with it.</li>
        <li>Its bytes, and what each of them is.</li>
        <li>With the root key: whether it is genuine, and whether a server would take it now.</li>
        <li>How to narrow it, and what would be more than it has.</li>
      </ul>
      <p>
        <button
          type="button"
          onClick={() => {
            props.onSay(sample());
            document.getElementById("main")?.focus();
            scrollTo(0, 0);
          }}
        >
          Show me a sample
        </button>
      </p>
      <p class="hint">The page makes it, with a key of this moment that opens nothing.</p>
    </section>
  );
}

// --- the page ------------------------------------------------------------------------------------

const root = document.getElementById("app")!;
const show = (): void => render(<App />, root);
show();

// Left, and maybe kept by the browser to come back to: nothing of it stays.
addEventListener("pagehide", () => render(null, root));
addEventListener("pageshow", (event) => {
  if (event.persisted) show();
});

// What is dropped beside a field would be opened as an address.
for (const name of ["dragover", "drop"] as const) {
  addEventListener(name, (event) => {
    const isField = event.target instanceof Element && event.target.closest("textarea, input");
    if (!isField) event.preventDefault();
  });
}
