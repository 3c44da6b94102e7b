"""Secret keys of one purpose each: what is a key, what is refused when it is built, and the files that hold them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
from nacl import bindings
from nacl.signing import SigningKey

from captoken._format.encoding import b64encode
from captoken._format.public_keys import KEY_CHARS
from captoken._format.sealed import SealedValue
from captoken.errors import KeyringError
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


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_key_file_holds_the_key_and_its_owner_alone_reads_it(kind: type[keys.SecretKey], tmp_path: Path) -> None:
    key, path = kind.generate(), tmp_path / "agent.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"purpose": kind.purpose, "secret": b64encode(key.reveal()), "v": 1}
    again = kind.load(str(path))
    assert type(again) is kind and again.public == key.public and again.reveal() == key.reveal()
    assert os.listdir(tmp_path) == ["agent.key"], "nothing half-written is left"


@pytest.mark.parametrize("saved", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("loaded", KINDS, ids=lambda kind: kind.__name__)
def test_a_file_of_one_purpose_is_no_key_of_another(
    saved: type[keys.SecretKey], loaded: type[keys.SecretKey], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    saved.from_bytes(SECRET).save(path)
    if saved is loaded:
        assert loaded.load(path).reveal() == SECRET
    else:
        with pytest.raises(KeyringError, match=f"not hold a {loaded.purpose} key"):
            loaded.load(path)


GOOD = {"purpose": "holder", "secret": b64encode(SECRET), "v": 1}
CONTENTS: dict[str, bytes] = {
    "empty": b"", "a line feed": b"\n", "no JSON": b"holder", "an array": b"[]", "null": b"null", "cut short": json.dumps(GOOD).encode()[:-1],
    "not canonical": json.dumps(GOOD).encode(), "two lines feeds": json.dumps(GOOD, separators=(",", ":")).encode() + b"\n\n",
    **{
        name: json.dumps(stated, separators=(",", ":"), sort_keys=True).encode()
        for name, stated in {
            "another version": {**GOOD, "v": 2}, "a version in text": {**GOOD, "v": "1"}, "true for a version": {**GOOD, "v": True}, "no version": {"purpose": "holder", "secret": GOOD["secret"]},
            "one key more": {**GOOD, "key": "x"}, "no secret": {"purpose": "holder", "v": 1}, "a number for a secret": {**GOOD, "secret": 5},
            "a list for a secret": {**GOOD, "secret": ["x"]}, "a short secret": {**GOOD, "secret": b64encode(SECRET[:31])},
            "zeros": {**GOOD, "secret": b64encode(bytes(32))}, "padded": {**GOOD, "secret": b64encode(SECRET) + "="},
            "hex": {**GOOD, "secret": SECRET.hex()}, "no purpose": {"secret": GOOD["secret"], "v": 1}, "a list of purposes": {**GOOD, "purpose": ["holder"]},
            "another purpose": {**GOOD, "purpose": "root"}, "a keyring": {"current": "k1", "keys": {"k1": GOOD["secret"]}, "v": 1},
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_holds_no_key_is_one_error_and_shows_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("own.key")
    path.write_bytes(json.dumps(GOOD, separators=(",", ":")).encode() + b"\n")
    path.chmod(0o600)
    assert HolderKey.load(path).reveal() == SECRET
    path.write_bytes(CONTENTS[name])
    with pytest.raises(KeyringError) as caught:
        HolderKey.load(path)
    assert str(caught.value) == "the key file 'own.key' does not hold a holder key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o666, 0o610, 0o601])
def test_a_file_that_others_can_open_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    HolderKey.from_bytes(SECRET).save(path)
    path.chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600"):
        HolderKey.load(path)


def test_a_file_that_cannot_be_opened_is_the_same_kind_of_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(KeyringError, match="cannot be read"):
            HolderKey.load(path)
    with pytest.raises(KeyringError, match="cannot be saved: No such file"):
        HolderKey.from_bytes(SECRET).save(tmp_path / "nowhere" / "key")


@pytest.mark.parametrize(
    ("broken", "raised", "said"),
    [
        (OSError(28, "No space left on device"), KeyringError, "cannot be saved: No space left on device"),
        (OSError(), KeyringError, "cannot be saved: no reason given"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
    ids=["full disk", "no reason", "interrupted"],
)
def test_a_file_is_written_whole_or_not_at_all(
    broken: BaseException, raised: type[BaseException], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood there before stays, and nothing half-written lies beside it."""
    path, before = tmp_path / "key", HolderKey.generate()
    before.save(path)

    def fail(*_: Any) -> None:
        raise broken

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(raised, match=said):
        HolderKey.from_bytes(SECRET).save(path)
    assert os.listdir(tmp_path) == ["key"] and HolderKey.load(path).reveal() == before.reveal()


def test_a_link_to_a_key_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    HolderKey.from_bytes(SECRET).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and HolderKey.load(tmp_path / "real").reveal() == SECRET


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
