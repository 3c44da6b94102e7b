"""Secret keys of one purpose each: what is a key, what is refused when it is built, and the files that hold them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from nacl import bindings
from nacl.signing import SigningKey

from captoken._format.encoding import b64encode
from captoken._format.public_keys import KEY_CHARS
from captoken.keys import DischargerKey, HolderKey, PairwiseKey
from captoken.keys import secret as keys

KINDS: list[type[keys.SecretKey]] = [HolderKey, DischargerKey, PairwiseKey]
SECRET = bytes(range(1, 33))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[keys.SecretKey]:
    found: type[keys.SecretKey] = request.param
    return found


def test_a_key_says_its_public_half_and_not_the_other(kind: type[keys.SecretKey]) -> None:
    """43 characters that libsodium agrees with; the secret comes out by `reveal` alone."""
    key = kind.from_bytes(SECRET)
    expected = bytes(SigningKey(SECRET).verify_key) if kind is HolderKey else bindings.crypto_scalarmult_base(SECRET)
    assert key.public == b64encode(expected) and len(key.public) == KEY_CHARS
    assert key.reveal() == SECRET
    assert repr(key) == str(key) == f"{key}" == f"<{kind.__name__} {key.public}>"


def test_each_purpose_has_a_name_and_a_class_of_its_own() -> None:
    assert [kind.purpose for kind in KINDS] == ["holder", "discharger", "pairwise"]
    assert not any(issubclass(a, b) for a in KINDS for b in KINDS if a is not b)
    assert HolderKey.from_bytes(SECRET).public != DischargerKey.from_bytes(SECRET).public


def test_fresh_keys_are_all_different(kind: type[keys.SecretKey]) -> None:
    made = [kind.generate() for _ in range(200)]
    assert len({key.public for key in made}) == len({key.reveal() for key in made}) == 200
    assert type(made[0]) is kind


UNFIT: dict[str, Any] = {
    "nothing": None, "text": "k" * 32, "a number": 32, "a bytearray": bytearray(SECRET), "a list": list(SECRET),
    "empty": b"", "31 bytes": SECRET[:31], "33 bytes": SECRET + b"x", "64 bytes": SECRET * 2,
    "zeros": bytes(32), "ones": b"\xff" * 32, "one letter": b"k" * 32,
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_secret_is_refused_when_built(kind: type[keys.SecretKey], name: str) -> None:
    """TypeError for what is not bytes, ValueError for the wrong length and for bytes that are all equal."""
    unfit = UNFIT[name]
    with pytest.raises(ValueError if type(unfit) is bytes else TypeError) as caught:
        kind.from_bytes(unfit)
    assert str(unfit) not in str(caught.value) or unfit in (None, b"", 32)


def test_keys_stay_in_their_process(kind: type[keys.SecretKey]) -> None:
    """Not pickled, not changed; a copy is the key itself."""
    key = kind.from_bytes(SECRET)
    assert copy.copy(key) is key is copy.deepcopy(key)
    with pytest.raises(TypeError, match=r"cannot be pickled: key\.save"):
        pickle.dumps(key)
    for change in (lambda: setattr(key, "public", "x"), lambda: setattr(key, "other", 1), lambda: delattr(key, "public")):
        with pytest.raises(AttributeError, match="immutable"):
            change()
