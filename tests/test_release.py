"""A release rests on evidence of lately, says what it is made of and who built it, and shows when a byte of it was changed."""

from __future__ import annotations

import json
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from captoken.keys import AuditKey

from . import evidence, licences, release, versions
from .evidence import Run

ROOT = Path(__file__).resolve().parent.parent
TODAY = date(2026, 11, 30)
KEY = Ed25519PrivateKey.generate()
FRESH = Run("suite", TODAY, "abc", "passed", "CPython 3.11.7")


@pytest.mark.parametrize(
    ("run", "after", "why"),
    [
        (FRESH, 0, ""),
        (FRESH._replace(day=TODAY - timedelta(30)), 200, ""),
        (FRESH._replace(day=TODAY - timedelta(31)), 0, "31 days old"),
        (FRESH._replace(used=""), 0, "nobody knows with which versions"),
        (FRESH._replace(commit="abc-dirty"), 0, "of a tree that nobody has: something was not committed"),
        (FRESH, 201, "201 commits old"),
        (FRESH, None, "of commit abc, which is not known here"),
        (Run("suite"), 0, "never run"),
        (Run("suite", TODAY, "abc", "FAILED"), 0, "FAILED"),
        (Run("core-3.13", TODAY, "abc", "absent"), 0, "absent"),
        (Run("core-3.99", TODAY, "abc", "absent"), 0, ""),
        (Run("benchmarks: peers", TODAY, "abc", "measured", "CPython 3.11.7"), 0, ""),
    ],
)
def test_what_is_old_or_failed_is_no_evidence(run: Run, after: int | None, why: str) -> None:
    assert evidence.lacks(run, TODAY, lambda commit: after) == why


def test_each_session_is_among_the_runs_and_the_page_has_them() -> None:
    found = list(evidence.runs())
    names = {run.name for run in found}
    every = evidence.sessions((ROOT / "noxfile.py").read_text("utf-8"))
    assert len(every) > 15 and all(any(name == one or name.startswith((f"{one}(", f"{one}-")) for name in names) for one in every)
    assert any(name.startswith("benchmarks: ") for name in names)
    text = evidence.PAGE.read_text("utf-8")
    assert evidence.page(text, found) == text, "python -m tests.evidence --page"


def test_an_environment_says_what_is_in_it() -> None:
    """The core apart from the rest. One without captoken says what stands by itself."""
    core, others = versions.found()
    assert core[0].endswith(f" {platform.python_version()}") and core[1] == f"SQLite {sqlite3.sqlite_version}"
    assert core[2:] == [f"{name} {metadata.version(name)}" for name in ("msgspec", "pynacl")]
    assert f"pytest {metadata.version('pytest')}" in others and not any(each.startswith("captoken ") for each in others)
    bare = subprocess.run([sys.executable, "-S", versions.__file__], capture_output=True, text=True, check=True)
    assert bare.stdout == f"with: {', '.join(core[:2])}\nbeside: \n"


def _git(folder: Path) -> list[str]:
    """A new repository there, and how a command for it begins: what a user has set is left out."""
    own = ("user.name=a", "user.email=a@example.com", "commit.gpgsign=false", "core.hooksPath=none")
    git = ["git", "-C", str(folder), *(word for each in own for word in ("-c", each))]
    subprocess.run([*git, "init", "--quiet"], check=True)
    return git


def test_a_commit_is_so_many_commits_old(tmp_path: Path) -> None:
    """In a repository of its own: the sources may be those of an archive, or belong to another user."""
    git = _git(tmp_path)
    for number in range(3):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", str(number)], check=True)
    assert [evidence.since(commit, tmp_path) for commit in ("HEAD", "HEAD~2", "0" * 40)] == [0, 2, None]
    for name in ("CHANGELOG.md", "code.py"):
        assert evidence.changed_since("HEAD", tmp_path) == ""
        (tmp_path / name).touch()
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", name], check=True)
        assert evidence.changed_since("HEAD~1", tmp_path) == ("" if name == "CHANGELOG.md" else "code.py")
    assert "not known" in evidence.changed_since("0" * 40, tmp_path)


def test_a_release_is_refused_for_each_thing_that_it_lacks() -> None:
    heading = f"# Changelog\n\n## {release.VERSION}, 2026-12-01\n"
    dated = f"{heading}\n### What you must do\n\nNothing.\n"
    both = {"Source": "https://example.com", "Security": "https://example.com/report"}
    today = datetime.now(UTC).date()

    def lacks(changelog: str = dated, changed: str = "", runs: Sequence[Run] = (), addresses: Iterable[str] = both, asked: date = today) -> list[str]:
        return release.hindrances(changelog, changed, list(runs), addresses, asked, lambda commit: "captoken/token.py" if commit == "old" else "")

    assert lacks() == []
    assert lacks(changed=" M README.md") == ["something is not committed"]
    assert lacks(f"## {release.VERSION}\n") == [f"CHANGELOG.md has no heading `## {release.VERSION}, YYYY-MM-DD`"]
    assert lacks(heading) == [f"CHANGELOG.md has no `### What you must do` first under {release.VERSION}"]
    assert lacks(runs=[Run("gate")]) == ["gate: never run"]
    assert lacks(addresses=["Source"]) == ["pyproject.toml has no Security in [project.urls]"]
    assert lacks(addresses=()) == ["pyproject.toml has no Source and no Security in [project.urls]"]
    assert lacks(asked=today - timedelta(days=31)) == ["the newest releases of others were asked for 31 days ago"]
    ran = [Run(name, today, commit, "passed", "Python") for name, commit in (("suite", "old"), ("gate", "old"))]
    assert [each for each in lacks(runs=ran) if "not run since" in each] == ["suite: not run since captoken/token.py"]


def test_what_is_built_is_what_is_committed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And no file that Git was told to pass over: hatchling would pack it."""
    git = _git(tmp_path)
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / ".git/info/exclude").write_text("secret.txt\n")
    (tmp_path / "secret.txt").write_text("secret")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "one"], check=True)
    packed: list[str] = []
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "call", lambda command, **more: packed.extend(path.name for path in Path(command[-1]).iterdir()))
    release.build(tmp_path)
    assert packed == ["kept.txt"]


def test_what_is_built_the_same_twice_is_a_release_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a builder of the test's own. `.ci/run` builds the project itself twice."""
    builds = iter([b"one", b"one", b"one", b"two"])

    def build(folder: Path) -> list[Path]:
        made = [folder / "captoken.tar.gz", folder / "captoken.whl"]
        made[0].write_bytes(b"sources")
        made[1].write_bytes(next(builds))
        return made

    monkeypatch.setattr(release, "build", build)
    assert [path.name for path in release.build_twice(tmp_path)] == ["captoken.tar.gz", "captoken.whl"]
    with pytest.raises(release.Refused, match=r"two builds of one commit differ: captoken\.whl$"):
        release.build_twice(tmp_path)


def test_the_statement_names_the_commit_and_what_built_it(tmp_path: Path) -> None:
    wheel = tmp_path / "captoken.whl"
    with ZipFile(wheel, "w") as opened:
        opened.writestr("captoken-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: hatchling 1.33.0\nRoot-Is-Purelib: true\n")
    said = release.statement([wheel], "abc", release.builder_of(wheel))
    from_what = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert from_what == [{"uri": "git+captoken", "digest": {"gitCommit": "abc"}}, {"uri": "pkg:pypi/hatchling@1.33.0"}]


def test_the_bill_names_what_is_needed_and_what_is_inside(tmp_path: Path) -> None:
    wheel = tmp_path / "captoken.whl"
    wheel.write_bytes(b"PK")
    bill = release.bill(wheel, "2026-11-30T10:00:00Z")
    named = {each["name"]: each for each in bill["components"]}
    assert {"msgspec", "pynacl", "preact", "@noble/hashes", "d3-hierarchy"} <= named.keys()
    assert named["msgspec"]["licenses"] == [{"expression": "BSD-3-Clause"}] and named["d3-hierarchy"]["licenses"] == [{"expression": "ISC"}]
    assert named["@noble/hashes"]["purl"].startswith("pkg:npm/%40noble/hashes@")
    assert all(licences.licences(each["licenses"][0]["expression"]) for each in bill["components"])
    on = {each["ref"].split("@")[0]: [ref.rsplit("@", 1)[0] for ref in each["dependsOn"]] for each in bill["dependencies"]}
    assert on["pkg:pypi/captoken"][:2] == ["pkg:pypi/msgspec", "pkg:pypi/pynacl"] and "pkg:npm/preact" in on["pkg:pypi/captoken"]
    assert (on["pkg:pypi/pynacl"], on["pkg:pypi/cffi"], on["pkg:pypi/msgspec"]) == (["pkg:pypi/cffi"], ["pkg:pypi/pycparser"], [])
    assert release.bill(wheel, "2026-11-30T10:00:00Z") == bill


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as a release leaves it."""
    folder = tmp_path / "release"
    folder.mkdir()
    files = [folder / "captoken.whl", folder / "SHA256SUMS"]
    for path in files:
        path.write_bytes(path.name.encode())
    said = release.signed(release.statement(files, "abc", "pkg:pypi/hatchling@1"), KEY)
    (folder / "captoken.intoto.json").write_text(json.dumps(said), "utf-8")
    return folder


def test_what_was_built_is_vouched_for(built: Path) -> None:
    assert release.verify(built, KEY.public_key()) == ["SHA256SUMS", "captoken.whl"]


def of(built: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((built / "captoken.intoto.json").read_bytes())
    return said


@pytest.mark.parametrize("fault", ["another byte", "one more", "one less", "another key", "another type", "another payload", "two signatures"])
def test_what_was_changed_is_refused(built: Path, fault: str) -> None:
    key, said = KEY.public_key(), of(built)
    match fault:
        case "another byte":
            (built / "captoken.whl").write_bytes(b"captoken.whl ")
        case "one more":
            (built / "more.whl").write_bytes(b"")
        case "one less":
            (built / "captoken.whl").unlink()
        case "another key":
            key = Ed25519PrivateKey.generate().public_key()
        case "another type":
            said["payloadType"] = "text/plain"
        case "another payload":
            said["payload"] = release.signed({"subject": []}, KEY)["payload"]
        case "two signatures":
            said["signatures"] *= 2
    (built / "captoken.intoto.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises(release.Refused):
        release.verify(built, key)


def test_the_encoding_is_that_of_dsse() -> None:
    """The example of its specification."""
    assert release.encoded("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def pem(path: Path, key: Any, passphrase: bytes = b"") -> Path:
    """A private key in a file."""
    closed = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed))
    return path


def test_a_release_is_signed_by_a_key_of_ed25519_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AuditKey.generate().save(tmp_path / "audit.json")
    of_rsa = pem(tmp_path / "rsa.pem", generate_private_key(65537, 2048))
    for key, why in ((tmp_path / "audit.json", "PEM"), (of_rsa, "is no key of Ed25519"), (tmp_path / "none.pem", "No such file")):
        assert release.main(["--out", str(tmp_path / "out"), "--key", str(key)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("no release:\n") and why in said and not (tmp_path / "out").exists()


def test_the_passphrase_of_a_key_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "getpass", lambda asked: "secret")
    found = release.private_key(pem(tmp_path / "release.pem", KEY, b"secret"))
    assert found.public_key() == KEY.public_key()


def test_a_folder_is_verified_by_a_command(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = tmp_path / "release.pub"
    public.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    asked = ["--verify", str(built), "--public", str(public)]
    assert release.main(asked) == 0 and capsys.readouterr().out.split() == ["SHA256SUMS", "captoken.whl"]
    (built / "captoken.intoto.json").unlink()
    assert release.main(asked) == 1 and "has no statement" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        release.main(asked[:2])
