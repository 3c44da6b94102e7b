// The playground: caveats are typed, links handed on, and an access tried, all in the page.
import { Component, render } from "preact";
import type { JSX } from "preact";
import { Trying } from "../trying";
import { STORIES } from "./stories";
import { fromAddress, play, toAddress } from "./story";
import type { Step, Story } from "./story";

const [FIRST] = Object.values(STORIES) as [Story];

class App extends Component<object, { story: Story }> {
  override state = { story: fromAddress(location.hash) ?? FIRST };

  override componentDidMount(): void {
    addEventListener("hashchange", this.follow);
  }

  override componentWillUnmount(): void {
    removeEventListener("hashchange", this.follow);
  }

  private readonly follow = (): void => {
    const story = fromAddress(location.hash);
    if (story) this.setState({ story });
  };

  // The address is that of what is shown: to share it is to copy it.
  private readonly tell = (change: Partial<Story>): void => {
    const story = { ...this.state.story, ...change };
    this.setState({ story });
    history.replaceState(null, "", toAddress(story) || location.pathname);
  };

  private readonly change = (at: number, change: Partial<Step>): void =>
    this.tell({
      links: this.state.story.links.map((link, other) =>
        other === at ? { ...link, ...change } : link,
      ),
    });

  private readonly handOn = (): void => {
    const { links } = this.state.story;
    this.tell({ links: [...links, { to: `agent-${links.length}`, caveats: "{}" }] });
  };

  private readonly takeBack = (): void =>
    this.tell({ links: this.state.story.links.slice(0, -1) });

  override render(): JSX.Element {
    const { story } = this.state;
    const { troubles, tried } = play(story);
    return (
      <>
        <header>
          <h1>
            captoken <span>playground</span>
          </h1>
          <p class="hint">
            Change a rule, hand on, and try a call. Nothing leaves this page. Its address has the
            rules and no token: copy it to share them.
          </p>
          <nav aria-label="Stories">
            {Object.entries(STORIES).map(([name, chosen]) => (
              <button key={name} type="button" class="small" onClick={() => this.tell(chosen)}>
                {name}
              </button>
            ))}
          </nav>
        </header>
        <main>
          <section class="panel" aria-labelledby="links-title">
            <h2 id="links-title">The links of the token: all must allow</h2>
            <ol class="links">
              {story.links.map((link, at) => (
                <Link
                  key={at}
                  at={at}
                  link={link}
                  addedBy={story.links[at - 1]?.to ?? "the issuer"}
                  trouble={troubles[at] ?? ""}
                  onChange={this.change}
                />
              ))}
            </ol>
            <div class="acts">
              <button type="button" onClick={this.handOn}>
                Hand on to a sub-agent
              </button>
              {story.links.length > 1 && (
                <button type="button" onClick={this.takeBack}>
                  Remove the last link
                </button>
              )}
            </div>
          </section>
          <Trying
            typed={story.access}
            tried={tried}
            onType={(access) => this.tell({ access })}
          />
        </main>
      </>
    );
  }
}

function Link(props: {
  at: number;
  link: Step;
  addedBy: string;
  trouble: string;
  onChange: (at: number, change: Partial<Step>) => void;
}): JSX.Element {
  const { at, link, trouble } = props;
  return (
    <li class={trouble ? "link is-bad" : "link"}>
      <h3>
        link {at}, added by <span class="name">{props.addedBy}</span>
      </h3>
      <label for={`to-${at}`}>{at ? "Handed to" : "Minted for"}</label>
      <input
        id={`to-${at}`}
        value={link.to}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => props.onChange(at, { to: event.currentTarget.value })}
      />
      <label for={`caveats-${at}`}>Caveats, as JSON</label>
      <textarea
        id={`caveats-${at}`}
        rows={4}
        value={link.caveats}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => props.onChange(at, { caveats: event.currentTarget.value })}
      />
      {trouble && <p class="problem">{trouble}</p>}
    </li>
  );
}

render(<App />, document.getElementById("app")!);
