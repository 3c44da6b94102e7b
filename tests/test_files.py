"""Files of keys: their owner's alone, whole or not at all, and of one purpose."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from captoken._format.encoding import b64encode
from captoken.errors import KeyringError
from captoken.keys import HolderKey
from captoken.keys import secret as keys
from tests.test_secret import KINDS, SECRET


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
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
