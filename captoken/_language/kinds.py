"""What a kind of caveat is: one class, which says everything about it (spec, "Caveats").

A caveat is a frozen value that answers three questions:

    prohibits   why is this access prohibited, if it is? It cannot grant, and it does no I/O.
    covers      does it permit all that another one permits?
    meet        what permits exactly what both permit?

A caveat of version 1 (`BuiltIn`) says as well what writers call it, how a capability holds it, what
a new link asks for beyond it, and how people read it. So nothing else has to list the kinds.

A caveat is judged by facts, and by nothing that the token says elsewhere. So the order in which
caveats are asked changes the reason that is given, and never the decision.

    class Region(Caveat, frozen=True):
        key = "acme:region"
        def prohibits(self, access, situation):
            return None if access.attributes.get("region") in self.value else "another region"

Hooks of embedders get frozen values, and can only prohibit. How long they take is theirs to bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from captoken._language.access import Access
from captoken._language.reasons import Failing, Reason

Domain = Literal["data", "tool", "all"]


class Situation(msgspec.Struct, frozen=True, gc=False):
    """The verifier's own facts: no token and no caller can state them.

    `audiences` are those of the verifier's own names that every `aud` so far has left. `task` is
    the token's task, as far as the root record and the links before say. `overlay_age` is in
    seconds, None if there is no overlay. `now` is read once for a whole decision, so that two links
    never see two times. `leeway` is for clocks that differ between servers.
    """

    # The time, in seconds since the epoch.
    now: int

    # How much clocks may differ, in seconds.
    leeway: int = 0
    audiences: frozenset[str] = frozenset()
    task: str = ""
    overlay_age: int | None = None


class Caveat(msgspec.Struct, frozen=True):
    """One restriction, as the JSON `value` under `key`.

    Subclass it for a caveat of your own, with a namespaced `key`. A subclass checks `value` in
    `__post_init__` (raise TypeError or ValueError) and says in `prohibits` why an access is
    prohibited: a Reason, or a sentence, or None. Whatever it raises or otherwise returns prohibits.
    With a `domain` of `data` or `tool` it is asked only about accesses of that domain. `covers` and
    `meet` make narrowing checks finer.
    """

    value: Any
    key: ClassVar[str] = ""
    domain: ClassVar[Domain] = "all"

    # False for what can be judged without an access.
    asks_access: ClassVar[bool] = True

    def prohibits(self, access: Access, situation: Situation) -> Reason | str | None:
        """Why `access` is prohibited, or None.

        It cannot grant: None says that this caveat has nothing against it, and others are asked. A
        class that does not write this method prohibits everything, since nobody knows its rule.
        """
        return f"{self.key} has no rule"

    def covers(self, other: Caveat) -> bool:
        """Does this permit all that `other`, of the same key, permits?

        Equality is always a right answer. A wrong True widens nothing, as verifiers ask every link.
        It only lets a writer make a link that is then refused.
        """
        return self == other

    def meet(self, other: Caveat) -> Caveat | None:
        """One caveat that permits what both permit, or None: then both are kept.

        None is always right. For showing and for checks of writers; no verifier asks it.
        """
        return None


# --- the caveats of version 1 ---------------------------------------------------------------------


ASK_FOR_LESS = "ask for less, or pass clamp=True to take what is left"
ASK_FOR_OTHER = (
    "the token has nothing of it, so clamp=True cannot help: ask for something that the token has"
)


class Excess(msgspec.Struct, frozen=True):
    """What a new link asks for beyond what is held, and what of it is left."""

    dimension: str
    asked: Any
    held: Any
    excess: Any

    # The caveats to write instead; nothing is left if all are empty.
    left: dict[str, Any]

    # What is said where a part is left.
    hint: str = ASK_FOR_LESS

    # What `left` takes the place of, if not of `dimension` alone.
    replaces: tuple[str, ...] = ()

    # The part that is too much, by name, and what to write. Empty where it cannot be named.
    cause: str = ""

    @property
    def leaves_nothing(self) -> bool:
        """Is nothing of what was asked for held? A clamp would then write what permits nothing."""
        return all(value in ([], {}, "") for value in self.left.values())


# Gives what a token holds in the place of caveats of a key so far, or None. Asked only where it is
# needed: to work it out is most of what a writer pays for.
LookUp: TypeAlias = "Callable[[str], BuiltIn | None]"
# A constraint as a link states it, and the value of the access that it checks.
Looked: TypeAlias = tuple[Any, Any]
# From what a writer gives for a keyword to the caveat's value: what was given, the seconds since
# the epoch, asked for only where they are needed, and what is held.
Reading: TypeAlias = Callable[[Any, Callable[[], int], LookUp], Any]


class BuiltIn(Caveat, frozen=True, gc=False):
    """A caveat of version 1.

    It is *early* if it is judged without an access: it looks at the token and the server alone.
    `keywords` are the names that writers use, where that is not the key itself. A kind that
    `counts` is counted by a ledger and goes with a nonce; one that `narrows_situation` narrows the
    facts for the links after it.
    """

    keywords: ClassVar[Mapping[str, Reading]] = {}
    counts: ClassVar[bool] = False
    narrows_situation: ClassVar[bool] = False

    # The JSON type of its value, for a kind that most links are made of: these are read the shorter
    # way (see `links`). `__post_init__` checks the value either way.
    plain: ClassVar[Any] = None

    def prohibits(self, access: Any, situation: Any) -> Reason | None:
        """Why it prohibits, or None. It looks at the facts alone, and does no I/O."""
        raise NotImplementedError

    def looks(self, access: Access) -> Iterable[Looked]:
        """Each constraint and list that looks at a value of the access, with that value (24.25).

        A constraint or list as it stands in the link. For one that looks at no value, and for a
        caveat that is judged without an access, nothing.
        """
        return ()

    # The methods below are for writers and people. No verifier calls them.

    @classmethod
    def slot(cls) -> str:
        """What a capability holds it under: its domain, or its own key if it has none."""
        return cls.key if cls.domain == "all" else cls.domain

    def normalized(self) -> BuiltIn:
        """The same in normal form, as a capability holds it: equal if it permits the same."""
        return self

    def stated(self) -> dict[str, Any]:
        """The caveats of a link that say the same."""
        return {self.key: self.value}

    @property
    def is_nothing(self) -> bool:
        """Does it permit no access at all, whatever the time? As it is held.

        False may be a lack of knowledge: it is for hints, not for decisions.
        """
        return False

    def meet(self, other: Any) -> BuiltIn:
        """What permits exactly what both permit. Of two in normal form it is so again."""
        raise NotImplementedError

    def covers(self, other: Any) -> bool:
        """Covered is what meeting does not make smaller. Both are in normal form."""
        return bool(self.meet(other) == other)

    def plainly_covers(self, other: Any) -> bool:
        """Is it seen at a glance that this permits all that `other`, of the same key, permits?

        As they stand in links, with no meet made. No is always right: writers then ask `beyond`.
        """
        return False

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """What a new link asks for beyond this one, which is held.

        `asked` are the caveats of the link that are held in the same place, by key.
        """
        # Normal form first, so that two spellings of one wish are one.
        wanted = asked[self.key].normalized()
        if not self.covers(wanted):
            yield self.excess(wanted)

    def excess(self, wanted: Any) -> Excess:
        """What `wanted`, which this one does not cover, asks for too much."""
        left = self.meet(wanted).stated()
        return Excess(self.key, wanted.value, self.value, wanted.value, left)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """Lines for people. `beside` are all caveats of the link, by key."""
        yield f"{self.key} {self.value}"


# --- asking ---------------------------------------------------------------------------------------


def prohibited(
    caveats: Iterable[Caveat], access: Access | None, situation: Situation
) -> Reason | None:
    """What the first of `caveats` says that prohibits, or None.

    A caveat of a domain that `access` does not state is not asked. Without an access only those
    caveats are asked that do not ask about one (spec, "Caveats").

    An embedder's `prohibits` is a hook, and it is safe to call: it can only prohibit. One that
    raises, or returns what is no answer, prohibits with `attribute` (spec 15.12). It gets frozen
    values. What is not caught is a hook that takes long, or does not return.

    Never raises an Exception. KeyboardInterrupt and the like pass through, and nothing is decided.
    """
    caveat: Caveat | None = None
    try:
        for caveat in caveats:
            domain = caveat.domain
            if domain == "all":
                # A look at the token alone: what asks about an access is left for when there is
                # one.
                if access is None and caveat.asks_access:
                    continue
            # Spoken of one domain, and the access does not state it: there is nothing to ask about.
            elif access is None or (access.table if domain == "data" else access.tool) is None:
                continue
            said: Any = caveat.prohibits(access, situation)  # type: ignore[arg-type]
            if said is not None:
                return _reason(caveat.key, said)
    except Exception as error:
        # Fail closed, and say no more than the error's type: its text may hold anything.
        key = caveat.key if caveat is not None else "a caveat"
        return Reason("attribute", f"{key} raised an error: {type(error).__name__}")
    return None


def closed(domains: Collection[str], access: Access) -> Reason | None:
    """Why a link with caveats of these domains closes `access`, or None (spec 18.3).

    A link with `tables` is about data. Without this rule it would leave every tool open, and who
    wrote it would not see that. Called after the caveats, so that their reasons come first.
    """
    # An access of no domain passes no link that names one, be it as harmless as it may.
    if access.table is None and access.tool is None:
        why = "the token is restricted to tables or tools, and the access names neither"
        return Reason("domain", why)
    if access.table is not None and "data" not in domains:
        return Reason("domain", "the token is for tools only, not for tables")
    if access.tool is not None and "tool" not in domains:
        return Reason("domain", "the token is for tables only, not for tools")
    return None


def _reason(key: str, said: Any) -> Reason:
    """The reason in an answer that is not None: an embedder's caveat may answer anything.

    A Reason is taken as it is, a sentence as the text of `attribute`. Anything else, True and False
    among them, prohibits without a text of its own.
    """
    # Compare the exact type, because a subclass could print anything.
    if type(said) is Reason:
        told_well = said.failing is None or type(said.failing) is Failing
        return said if told_well else Reason(said.code, said.text)
    text = said if type(said) is str else f"{key} raised an error"
    return Reason("attribute", text)
