"""The keywords of writers: each is typed, each is read, and one that is misspelled is told."""

from __future__ import annotations

import pytest

from captoken._language.caveats import BUILT_IN, V1
from captoken._writing.keywords import POSITION, LinkCaveats, MintCaveats, check_known


def test_a_misspelled_keyword_is_told_with_the_one_that_was_meant() -> None:
    """Where one is close to it; and all of them in any case."""
    with pytest.raises(TypeError, match=r"^there is no caveat 'tabels' \(did you mean tables\?\): write allow, audience, budget, "):
        check_known(["operations", "tabels"], V1)
    with pytest.raises(TypeError, match=r"^there is no caveat 'hue': write allow, audience, budget, .*, where, or the key of a caveat in the vocabulary$"):
        check_known(["hue"], V1)


def test_every_keyword_is_typed_and_every_typed_keyword_is_read() -> None:
    """A keyword that is typed and not known, or known and not typed, would be one too many."""
    typed = {*LinkCaveats.__annotations__, *MintCaveats.__annotations__}
    check_known(typed, V1)
    known = {keyword for kind in BUILT_IN for keyword in (kind.keywords or {kind.key: None})}
    assert typed == known | set(POSITION)
    with pytest.raises(TypeError, match="there is no caveat 'exp'"):
        check_known(["exp"], V1)
