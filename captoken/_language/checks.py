"""What all links of a token ask, one check after the other, each once (spec, "Verification").

A token is often asked about many accesses. Link by link, what the chain repeats is asked as often
as it stands there. So from the second question on its checks stand in a row: the `prohibits` of
each caveat of each link, and each link's closing rule (18.3).

No two caveats meet here, and none is left out because another one covers it: only what stands in
the chain a second time, byte for byte, is asked once. So an allow is always given by the links
themselves, and a mistake in the algebra of capabilities allows nothing. What is worked out before
the question is whether the tasks lie on one path, and that by the caveats' own `prohibits`.

The row says yes or no. Why not is asked link by link, in the order of the spec (24.5, 24.12).

It depends on the token alone. What may differ at the next question is asked each time: the moment,
the age of the overlay, and the names that the server has left (16.1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from captoken._format.encoding import respelled
from captoken._language.access import Access
from captoken._language.kinds import Caveat, Situation, closed
from captoken._language.link import Link
from captoken._language.links import after

# The `prohibits` of one caveat.
Check: TypeAlias = Callable[[Any, Situation], object]


class Checks(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The checks of a token's links, and of its discharges' links, by what they look at."""

    # `exp`, `nbf` and `fresh`: the moment and the overlay.
    early: tuple[Check, ...]

    # The names of each `aud`, the root's included. One name of the server must be in all of them.
    audiences: tuple[frozenset[str], ...]

    # Do the tasks of the root and of all links lie on one path (16.3)? No question changes that.
    on_one_path: bool

    # The late ones, by the domain that they speak of, and one link for each set of domains that
    # links name: what it closes, it says itself (18.3).
    late: Mapping[str, Sequence[Check]]
    closing: Collection[Link]

    # By whether an access states a table, and whether it states a tool: what it is asked. Filled
    # when such an access comes; two threads that race fill in the same.
    shapes: dict[tuple[bool, bool], tuple[Check, ...]]

    @classmethod
    def of(
        cls,
        links: Iterable[Link],
        task: str,
        audience: str | None,
    ) -> Checks:
        """The checks of `links`, with the task and the audience of the root record.

        For links of version 1 alone: an embedder's caveats are asked link by link.
        """
        stated: dict[str, list[Caveat]] = {}
        closing: dict[frozenset[str], Link] = {}
        on_one_path = True
        so_far = Situation(0, task=task)
        for link in links:
            if link.domains:
                closing[link.domains] = link
            for caveat in (*link.early, *link.late):
                stated.setdefault(caveat.key, []).append(caveat)
                if caveat.key != "task":
                    continue
                if caveat.prohibits(None, so_far) is not None:  # type: ignore[arg-type]
                    on_one_path = False
            if link.narrows_situation:
                so_far = after(so_far, link)

        early: list[Check] = []
        audiences = [frozenset((audience,))] if audience is not None else []
        late: dict[str, list[Check]] = {"all": [], "data": [], "tool": []}
        for key, caveats in stated.items():
            for caveat in _each_once(caveats):
                if caveat.asks_access:
                    late[caveat.domain].append(caveat.prohibits)
                elif key == "aud":
                    audiences.append(frozenset(caveat.value))
                elif key != "task":
                    early.append(caveat.prohibits)

        return cls(tuple(early), tuple(audiences), on_one_path, late, closing.values(), {})

    def permit(
        self,
        access: Access | None,
        situation: Situation,
    ) -> bool:
        """Does no link prohibit `access`, or the token itself where there is none?

        `situation` has all names of the server. Not for caveats of an embedder's. Never raises: a
        check that does is no permission, and asked link by link it is a denial (15.12).
        """
        try:
            # The first pass of step 8, but for what the root record and the server say (24.5).
            left = situation.audiences
            for named in self.audiences:
                left = left & named
                if not left:
                    return False
            for check in self.early:
                if check(None, situation) is not None:
                    return False
            if access is None or not self.on_one_path:
                return self.on_one_path

            # The second pass.
            shape = access.table is not None, access.tool is not None
            asked = self.shapes.get(shape)
            if asked is None:
                asked = self.shapes[shape] = self._asked(access, *shape)
            for check in asked:
                if check(access, situation) is not None:
                    return False
        except Exception:
            return False
        return True

    def _asked(
        self,
        access: Access,
        of_data: bool,
        of_tools: bool,
    ) -> tuple[Check, ...]:
        """The late checks that an access of this shape is asked: what links close, they close for
        all of them.
        """
        if any(closed(link.domains, access) is not None for link in self.closing):
            return (_refuses,)
        asked = list(self.late["all"])
        asked += self.late["data"] if of_data else ()
        asked += self.late["tool"] if of_tools else ()
        return tuple(asked)


_CLOSED = object()  # any answer but None refuses


def _refuses(access: Any, situation: Situation) -> object:
    """The check of a shape that a link closes."""
    return _CLOSED


def _each_once(caveats: list[Caveat]) -> Iterable[Caveat]:
    """Caveats of one key, each once: by the bytes of their values, since 1 and true differ."""
    if len(caveats) == 1:
        return caveats
    return {respelled(caveat.value): caveat for caveat in caveats}.values()
