"""How a task is handed to a sub-agent, in all agent frameworks: with a narrowed token, alone.

See docs/agents.md, "What all have in common".
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from captoken import current
from captoken._format.text import consent_text
from captoken._writing.keywords import LinkCaveats, Strings
from captoken._writing.token import Token
from captoken._writing.token_set import OnlyAt
from captoken.current import Held
from captoken.proof import Signer


class Narrowing(LinkCaveats, total=False):
    """What a sub-agent is handed: the keywords of `Held.delegate`, all but `to`.

    Whom it goes to is said by the agent's name, and not by whoever writes the caveats.
    """

    key: Signer | None
    """The key that the token of the sub-agent is bound to."""
    keep: Strings
    """Keywords of what is held that go on as they are."""
    clamp: bool
    """True: takes what there is of what is asked for, and does not raise."""
    only: OnlyAt
    """Of a set of tokens: keywords by server, beside those that go to all."""
    servers: Iterable[str]
    """Of a set of tokens: the servers at which the keywords hold."""


def handed_on(mine: Held, to: str, narrowing: Narrowing) -> Held:
    """What the agent `to` gets of what is held, narrowed: for an agent of this process.

    Consents go along: each is to one call, whoever makes it. What `narrowing` asks consents for
    stands in a link above the hand-over. A hand-over is another link each time, and a consent is to
    one link: else no consent would be good once the sub-agent's run was begun anew.

    Raises what `Held.delegate` raises.
    """
    given: dict[str, Any] = dict(narrowing)
    if "consent" in given and isinstance(mine.token, Token):
        asking = mine.token.attenuate(consent=given.pop("consent"))
        mine = Held(asking, mine.signer, mine.consents)
    child = mine.delegate(to=to, **given)
    return child.with_consents(map(consent_text, mine.consents))


@contextmanager
def only(held: Held) -> Generator[Held, None, None]:
    """In this block `held` is all there is: nothing of what is held or granted around it.

    A sub-agent is an agent of its own. What its caller was granted would let its tools do what its
    own token does not permit.

    First nothing, then what is held: the trace alone goes on.
    """
    with current.nothing(), current.use(held):
        yield held


def tool_name(verb: str, agent: object) -> str:
    """The name of a tool that hands on to `agent`: the verb, and the agent's name as a word.

    The frameworks, and the models behind them, take letters, digits and underscores. It is the name
    that the caller's own token has to permit.
    """
    word = "".join(char if char.isalnum() else "_" for char in str(agent))
    return f"{verb}_{word}"


def tool_description(agent: object) -> str:
    """What the orchestrator's model is told of such a tool.

    It says nothing of what the agent may do: a token can be narrowed later than the tool is made.
    """
    return f"Hand a task to the agent {agent}."
