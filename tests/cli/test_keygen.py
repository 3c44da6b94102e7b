"""Keys are written for their owner, never over another file, and their public half is all that is printed."""


import os

import pytest

from tests.cli.test_cli import captoken


@pytest.mark.parametrize(
    "kind",
    [[], ["keyring"], ["holder"], ["discharger"], ["pairwise"], ["--holder"], ["--discharger"], ["--pairwise"]],
    ids=lambda kind: " ".join(kind) or "root",
)
def test_a_key_is_written_for_its_owner_alone_and_never_over_another_file(kind, tmp_path):
    target = tmp_path / "key.json"
    os.umask(os.umask(0))
    assert captoken("keygen", *kind, "--out", str(target)).returncode == 0
    assert target.stat().st_mode & 0o777 == 0o600
    before = target.read_bytes()
    assert captoken("keygen", *kind, "--out", str(target)).returncode == 2
    assert target.read_bytes() == before
    dangling = tmp_path / "link.json"
    dangling.symlink_to(tmp_path / "elsewhere.json")
    assert captoken("keygen", *kind, "--out", str(dangling)).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "link.json"]


@pytest.mark.parametrize("kind", ["holder", "discharger", "operator", "audit", "pairwise", "--holder", "--audit-key"])
def test_the_public_key_is_all_that_a_new_key_puts_on_standard_output(kind, tmp_path):
    target = tmp_path / "key.json"
    done = captoken("keygen", kind, "--out", str(target))
    public = done.stdout.decode().removesuffix("\n")
    assert len(public) == 43 and captoken("keygen", "public", str(target)).stdout == done.stdout
    secret = target.read_text().split('"secret":"')[1][:43]
    assert secret not in done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], []),
        (["--help"], ["--help"]),
        (["--out", "a.json"], ["keyring", "--out", "a.json"]),
        (["--json", "--out", "a.json"], ["keyring", "--json", "--out", "a.json"]),
        (["--holder", "--out", "a.json"], ["holder", "--out", "a.json"]),
        (["--out", "a.json", "--audit-key"], ["audit", "--out", "a.json"]),
        (["--public", "a.json"], ["public", "a.json"]),
        (["--keyring", "a.json", "--rotate"], ["rotate", "--keyring", "a.json"]),
        (["--retire", "k1", "--keyring", "a.json"], ["retire", "k1", "--keyring", "a.json"]),
        (["--retire=k1"], ["retire", "k1"]),
        (["--pairwise", "--key", "a.json", "--audience", "b"], ["pairwise", "--key", "a.json", "--audience", "b"]),
        (["--audience", "b", "--out", "a.json"], ["audience", "b", "--out", "a.json"]),
        (["operator", "--out", "a.json"], ["operator", "--out", "a.json"]),
    ],
)
def test_a_kind_of_key_may_be_said_as_before(before, now):
    """`captoken keygen --out keyring.json` makes a keyring, as ever; and what was an option still says the kind."""
    from captoken.cli.keygen import _with_kind

    assert _with_kind(before) == now
