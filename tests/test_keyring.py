"""Root keys: what is a key, what rotation and retirement mean, and how a key file is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captoken import Issuer, Keyring, Verifier
from captoken.errors import KeyringError
from tests.fixtures import KEY, KEYRING, SALES, WHO, data

OTHER = bytes(range(32, 64))


@pytest.mark.parametrize(
    ("keys", "current", "error"),
    [
        ({"k1": KEY[:31]}, "k1", ValueError),
        ({"k1": KEY + b"x"}, "k1", ValueError),
        ({"k1": b""}, "k1", ValueError),
        ({"k1": bytes(32)}, "k1", ValueError),
        ({"k1": b"a" * 32}, "k1", ValueError),
        ({"k1": "a" * 32}, "k1", ValueError),
        ({"k1": bytearray(KEY)}, "k1", ValueError),
        ({"k1": None}, "k1", ValueError),
        ({"k 1": KEY}, "k 1", ValueError),
        ({"": KEY}, "", ValueError),
        ({5: KEY}, 5, TypeError),
        ({"k1": KEY}, "k2", ValueError),
        ({"k1": KEY}, None, ValueError),
        ({}, "k1", ValueError),
        ([("k1", KEY)], "k1", TypeError),
    ],
)
def test_what_is_no_root_key_is_refused_when_built(keys: object, current: object, error: type[Exception]) -> None:
    """A root key is exactly 32 bytes, not all equal, under a name; nothing is padded, hashed or decoded into one."""
    for build in (Keyring.from_keys, Keyring):
        with pytest.raises(error):
            build(keys, current)  # type: ignore[arg-type]


def test_rotation_keeps_old_tokens_and_retirement_ends_them() -> None:
    """After `rotate` both keys verify; after `retire` the old one's tokens are of an unknown key."""
    old = Issuer(KEYRING).mint(**WHO, **SALES).serialize()
    rotated = KEYRING.rotate()
    new = Issuer(rotated).mint(**WHO, **SALES).serialize()
    assert rotated.current != KEYRING.current and set(KEYRING.key_ids) < set(rotated.key_ids)
    assert Verifier(rotated).check(old, data("sales")) and Verifier(rotated).check(new, data("sales"))
    assert Verifier(KEYRING).check(new, data("sales")).code == "unknown_key"
    retired = rotated.retire("k1")
    assert Verifier(retired).check(old, data("sales")).code == "unknown_key"
    assert Verifier(retired).check(new, data("sales"))
    assert KEYRING.key_ids == ("k1",), "a keyring is a value: what was made of it left it as it was"


def test_a_key_that_is_current_or_unknown_is_not_retired() -> None:
    with pytest.raises(ValueError, match="rotate first"):
        KEYRING.retire("k1")
    with pytest.raises(ValueError, match="no key is called"):
        KEYRING.retire("k2")
    with pytest.raises(ValueError, match="no key is called"):
        KEYRING.reveal("k2")


@pytest.mark.parametrize("current", ["k-a", "k-b", "k-c"])
def test_all_keys_of_a_file_that_leaked_are_replaced_whichever_is_current(current: str, tmp_path: Path) -> None:
    """By the steps of docs/rotation.md. A file keeps no order of keys: its last one need not be current."""
    Keyring.from_keys({name: bytes([at]) * 31 + b"!" for at, name in enumerate(("k-c", "k-a", "k-b"))}, current).save(tmp_path / "keyring.json")
    keyring = Keyring.load(tmp_path / "keyring.json")
    copied = keyring.key_ids
    keyring = keyring.rotate()
    for key_id in copied:
        keyring = keyring.retire(key_id)
    assert keyring.key_ids == (keyring.current,) and keyring.current not in copied


def test_two_issuers_never_draw_the_same_key_id() -> None:
    """The specification's rule 21.5."""
    assert len({Keyring.generate().current for _ in range(1000)}) == 1000


def test_an_audience_key_forges_for_its_audience_alone() -> None:
    """What is minted under `for_audience("sales-db")` verifies there, and nowhere else, not even beside the root keyring."""
    derived = KEYRING.for_audience("sales-db")
    token = Issuer(derived).mint(**WHO, **SALES)
    text = token.serialize()
    assert token.unverified.root.audience == "sales-db" and derived.audience == "sales-db"
    assert Verifier(derived, "sales-db").check(text, data("sales"))
    assert Verifier(KEYRING, "sales-db").check(text, data("sales")), "a whole keyring derives the key of any audience"
    assert Verifier(KEYRING, ("ledger", "sales-db")).check(text, data("sales"))
    assert Verifier(KEYRING, "ledger").check(text, data("sales")).code == "wrong_audience"
    assert Verifier(KEYRING).check(text, data("sales")).code == "wrong_audience"
    assert Verifier(KEYRING.for_audience("ledger"), "ledger").check(text, data("sales")).code == "unknown_key"
    others = Keyring.from_keys({"k2": KEY}, current="k2")
    assert Verifier(others, "sales-db").check(text, data("sales")).code == "unknown_key", "of no key that is not there"
    plain = Issuer(KEYRING).mint(**WHO, **SALES).serialize()
    assert Verifier(derived, "sales-db").check(plain, data("sales")).code == "unknown_key"


def test_an_audience_keyring_has_its_keys_and_no_others() -> None:
    """It retires, reveals and saves them; it neither rotates nor derives."""
    derived = KEYRING.rotate().for_audience("sales-db")
    assert derived.reveal("k1") != KEY
    assert derived.retire("k1").audience == "sales-db"
    with pytest.raises(ValueError, match="does not rotate"):
        derived.rotate()
    with pytest.raises(ValueError, match="does not derive"):
        derived.for_audience("ledger")


def test_a_saved_keyring_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    for keyring in (KEYRING.rotate(), KEYRING.for_audience("sales-db")):
        keyring.save(path)
        loaded = Keyring.load(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert (set(loaded.key_ids), loaded.current) == (set(keyring.key_ids), keyring.current)
        assert loaded.audience == keyring.audience
        assert all(loaded.reveal(key_id) == keyring.reveal(key_id) for key_id in keyring.key_ids)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring.json"], "nothing half-written is left behind"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601, 0o777])
def test_a_key_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keyring.json"
    KEYRING.save(path)
    path.chmod(mode)
    with pytest.raises(KeyringError, match="open to others"):
        Keyring.load(path)
    KEYRING.save(path)
    assert Keyring.load(path).key_ids == ("k1",), "saving again makes it private again"


KEY_TEXT = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"current":"k1","keys":{},"v":1}',
        b'{"current":"k1","keys":[],"v":1}',
        b'{"current":"k1","keys":{"k1":"AAAA"},"v":1}',
        b'{"current":"k1","keys":{"k1":5},"v":1}',
        b'{"current":"k2","keys":{"k1":"%s"},"v":1}' % KEY_TEXT.encode(),
        b'{"current":"k1","keys":{"k1":"%s"},"v":2}' % KEY_TEXT.encode(),
        b'{"current":"k1","keys":{"k1":"%s"},"v":true}' % KEY_TEXT.encode(),
        b'{"current":"k1","keys":{"k1":"%s"}}' % KEY_TEXT.encode(),
        b'{"aud":5,"current":"k1","keys":{"k1":"%s"},"v":1}' % KEY_TEXT.encode(),
        b'{"current":"k1","extra":1,"keys":{"k1":"%s"},"v":1}' % KEY_TEXT.encode(),
        b'{"current":"k1","keys":{"k1":"%s","k1":"%s"},"v":1}' % (KEY_TEXT.encode(), KEY_TEXT.encode()),
        b"\xff",
    ],
)
def test_a_file_that_is_no_keyring_is_refused(tmp_path: Path, content: bytes) -> None:
    """Two keys under one id among them: the JSON is canonical or it is nothing."""
    path = tmp_path / "keyring.json"
    path.write_bytes(b'{"current":"k1","keys":{"k1":"%s"},"v":1}\n' % KEY_TEXT.encode())
    path.chmod(0o600)
    assert Keyring.load(path).reveal("k1") == KEY
    path.write_bytes(content)
    with pytest.raises(KeyringError) as caught:
        Keyring.load(path)
    assert KEY_TEXT not in str(caught.value)


def test_a_key_file_that_is_not_there_is_a_keyring_error(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot be read"):
        Keyring.load(tmp_path / "missing.json")
    with pytest.raises(KeyringError, match="cannot be saved"):
        KEYRING.save(tmp_path / "missing" / "keyring.json")


def test_a_keyring_behind_a_link_is_saved_where_it_is(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    KEYRING.save(real)
    link.symlink_to(real)
    KEYRING.rotate().save(link)
    assert link.is_symlink() and len(Keyring.load(real).key_ids) == 2


def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keyring.json"
    KEYRING.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyringError, match="No space left"):
        KEYRING.rotate().save(path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["keyring.json"]
