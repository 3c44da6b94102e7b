"""What holds a secret shows its kind alone, and is pickled by nobody."""

from __future__ import annotations

import copy
import pickle

import pytest

from captoken._format.sealed import SealedValue
from captoken.keys import HolderKey


def test_what_holds_a_secret_shows_its_kind_alone() -> None:
    class Held(SealedValue, frozen=True, eq=False):
        value: str

    held = Held("s3cret")
    assert repr(held) == str(held) == "<Held>" and copy.copy(held) is held and copy.deepcopy([held])[0] is held
    assert held != Held("s3cret") and (held != held) is False
    with pytest.raises(TypeError, match="a Held cannot be pickled: it holds secrets"):
        pickle.dumps(held)


def test_who_pickles_a_secret_is_told_which_it_is() -> None:
    with pytest.raises(TypeError, match="a HolderKey cannot be pickled"):
        pickle.dumps(HolderKey.generate())
