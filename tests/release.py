"""Builds a release, and says why not: `python -m tests.release --out DIR --key release.pem --tag`.

    pip install build twine -e '.[issuance]'
    openssl genpkey -algorithm ed25519 -out ../release.pem      # the owner's, kept away from here
    python -m tests.release --out ../release --key ../release.pem --tag

In the folder there are then the source archive and the wheel, `SHA256SUMS`, what the wheel is made of (`*.cdx.json`, CycloneDX 1.6),
and who built it from what (`*.intoto.json`, a statement of in-toto in an envelope of DSSE, signed by the key).

It is refused where something is not committed, where evidence is old (`python -m tests.evidence`), where the whole suite has not run on
this code, where CHANGELOG.md has no day for this version or does not say what one must do, where pyproject.toml has no addresses, where
the newest releases of others were asked for long ago (`python -m tests.dependencies`), where figures are older than what they measure
(`python -m tests.benchmarks.record`), where `twine check` finds something, where the wheel does not work in a new environment, and where two
builds of the commit differ in a byte. What is built is what is committed, and nothing else of the folder. `--trial` builds all the same, and neither
signs nor tags. `--verify DIR --public release.pub` checks what somebody else built.

Whoever runs `python -m build` on the commit gets the same bytes, with the version of hatchling that the statement names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
import venv
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from getpass import getpass
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import dependencies, evidence, licences
from tests.benchmarks import record
from tests.committed import unpack

ROOT = Path(__file__).resolve().parent.parent
VERSION: str = licences.PROJECT["version"]
KIND = "application/vnd.in-toto+json"
ADDRESSES = ("Source", "Security")  # of [project.urls]: where the sources are, and where a hole is reported


class Refused(Exception):
    """Why there is no release."""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def hindrances(
    changelog: str,
    uncommitted: str,
    runs: list[evidence.Run],
    addresses: Iterable[str],
    asked: date,
    changed: Callable[[str], str] = evidence.changed_since,
    figures: Iterable[str] = (),
) -> list[str]:
    """What keeps this commit from being a release.

    `asked`: when the newest releases of others were asked for. `figures`: what is said of old ones.
    """
    found = ["something is not committed"] if uncommitted else []
    heading = re.search(rf"^## {re.escape(VERSION)}, \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE)
    if not heading:
        found.append(f"CHANGELOG.md has no heading `## {VERSION}, YYYY-MM-DD`")
    elif not changelog[heading.end() :].lstrip().startswith("### What you must do\n"):
        found.append(f"CHANGELOG.md has no `### What you must do` first under {VERSION}")
    if missing := [name for name in ADDRESSES if name not in addresses]:
        found.append(f"pyproject.toml has no {' and no '.join(missing)} in [project.urls]")
    today = datetime.now(UTC).date()
    if (today - asked).days > evidence.DAYS:
        found.append(f"the newest releases of others were asked for {(today - asked).days} days ago")
    found += [f"suite: not run since {each}" for run in runs if run.name == "suite" and (each := changed(run.commit))]
    return [*found, *figures, *(f"{run.name}: {why}" for run in runs if (why := evidence.lacks(run, today)))]


def call(command: list[str], **more: Any) -> None:
    """Raises Refused with what a command that failed has said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise Refused(f"{' '.join(command[2:4])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def build(folder: Path) -> list[Path]:
    """The source archive, and the wheel that is built from it, with hatchling's own date: so anybody gets these bytes by `python -m build`.

    In a folder of its own, of what is committed: in this one may be files that Git was told to pass over, and hatchling would pack them.
    """
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    with tempfile.TemporaryDirectory() as name:
        unpack(Path(name), root=ROOT)
        call([sys.executable, "-m", "build", "--outdir", str(folder), name], env=environment)
    return sorted(folder.iterdir())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_twice(folder: Path) -> list[Path]:
    """What is built, if it comes out the same a second time. Raises Refused."""
    made = build(folder)
    with tempfile.TemporaryDirectory() as name:
        again = build(Path(name))
        differ = [one.name for one, two in zip(made, again, strict=True) if one.name != two.name or digest(one) != digest(two)]
    if differ:
        raise Refused(f"two builds of one commit differ: {', '.join(differ)}")
    return made


def check(made: list[Path], *, installed: bool) -> None:
    """What an index would refuse, and whether the wheel works where there is nothing else. Raises Refused."""
    call([sys.executable, "-m", "twine", "check", "--strict", *map(str, made)])
    if installed:
        (wheel,) = (path for path in made if path.suffix == ".whl")
        with tempfile.TemporaryDirectory() as name:
            venv.create(name, with_pip=True)
            call([f"{name}/bin/python", "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[cli]"])
            call([f"{name}/bin/python", "-P", "-m", "captoken", "--version"], cwd=name)


# --- what it is made of -------------------------------------------------------------------------------------------------------------


def component(name: str, version: str, licence: str, kind: str) -> dict[str, Any]:
    """A package, as CycloneDX has it."""
    purl = f"pkg:{kind}/{name.replace('@', '%40')}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "licenses": [{"expression": licence}]}


def in_pages(notice: str) -> list[dict[str, Any]]:
    """The packages of npm that parts of stand in the pages of the console, by NOTICE."""
    found = re.findall(r"^(@?[a-z0-9/-]+) (\d+\.\d+\.\d+)$", notice, re.MULTILINE)
    return [component(name, version, "ISC" if name.startswith("d3-") else "MIT", "npm") for name, version in found]


def directly(requirements: Iterable[str]) -> set[str]:
    """The names of the packages that these ask for here, without extras."""
    asked = map(Requirement, requirements)
    return {canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})}


def bill(wheel: Path, moment: str) -> dict[str, Any]:
    """The bill of materials of the wheel: what is in it, and what it asks for, as that is installed here. `moment` is the commit's."""
    asked = sorted({name for name, _ in licences.brought(licences.PROJECT["dependencies"])})
    needed = {name: component(name, metadata.version(name), licences.stated(metadata.metadata(name)), "pypi") for name in asked}
    itself = component("captoken", VERSION, licences.PROJECT["license"], "pypi") | {"hashes": [{"alg": "SHA-256", "content": digest(wheel)}]}
    inside = in_pages((ROOT / "NOTICE").read_text("utf-8"))

    def edges(one: dict[str, Any], requirements: Iterable[str], also: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
        on = [needed[name] for name in asked if name in directly(requirements)]
        return {"ref": one["bom-ref"], "dependsOn": [each["bom-ref"] for each in (*on, *also)]}

    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest(wheel))}", "version": 1,
        "metadata": {"timestamp": moment, "component": itself}, "components": [*needed.values(), *inside],
        "dependencies": [
            edges(itself, licences.PROJECT["dependencies"], inside),
            *(edges(one, metadata.distribution(name).requires or ()) for name, one in needed.items()),
        ],
    }  # fmt: skip


# --- who built it from what ---------------------------------------------------------------------------------------------------------


def builder_of(wheel: Path) -> str:
    """The package that has built a wheel, with its version, as the wheel says it: another one may write other bytes."""
    with ZipFile(wheel) as opened:
        (path,) = (name for name in opened.namelist() if name.endswith(".dist-info/WHEEL"))
        (name, version) = re.findall(r"^Generator: (\S+) (\S+)$", opened.read(path).decode(), re.MULTILINE)[0]
    return f"pkg:pypi/{name}@{version}"


def statement(files: list[Path], commit: str, builder: str) -> dict[str, Any]:
    """A statement of in-toto, with SLSA's provenance."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": digest(path)}} for path in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:captoken:release:1",
                "externalParameters": {"version": VERSION, "commit": commit},
                "resolvedDependencies": [{"uri": "git+captoken", "digest": {"gitCommit": commit}}, {"uri": builder}],
            },
            "runDetails": {"builder": {"id": "urn:captoken:tests.release"}},
        },
    }


def encoded(kind: str, body: bytes) -> bytes:
    """What is signed: the pre-authentication encoding of DSSE."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)


def signed(said: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope."""
    body = json.dumps(said, sort_keys=True).encode()
    signature = key.sign(encoded(KIND, body))
    return {"payloadType": KIND, "payload": b64encode(body).decode(), "signatures": [{"sig": b64encode(signature).decode()}]}


def verify(folder: Path, key: Ed25519PublicKey) -> list[str]:
    """The names of what the statement in a folder vouches for, all of it there as it was. Raises Refused."""
    path = next(folder.glob("*.intoto.json"), None)
    if path is None:
        raise Refused(f"{folder} has no statement: a file *.intoto.json")
    envelope = json.loads(path.read_bytes())
    body = b64decode(envelope["payload"], validate=True)
    if envelope["payloadType"] != KIND or len(envelope["signatures"]) != 1:
        raise Refused(f"{path.name} is no statement with one signature")
    try:
        key.verify(b64decode(envelope["signatures"][0]["sig"], validate=True), encoded(KIND, body))
    except InvalidSignature:
        raise Refused(f"{path.name} is not signed by this key") from None
    vouched = {each["name"]: each["digest"]["sha256"] for each in json.loads(body)["subject"]}
    for each in sorted(folder.iterdir()):
        if each != path and vouched.get(each.name) != digest(each):
            raise Refused(f"{each.name} is not what was built")
    missing = [name for name in vouched if not (folder / name).exists()]
    if missing:
        raise Refused(f"{', '.join(missing)} is missing")
    return sorted(vouched)


# --- the command --------------------------------------------------------------------------------------------------------------------


def private_key(path: Path) -> Ed25519PrivateKey:
    """The owner's key. Asks for its passphrase at the terminal, if it has one."""
    data = path.read_bytes()
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        key = load_pem_private_key(data, getpass(f"passphrase of {path}: ").encode())
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(f"{path} is no key of Ed25519")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The public half. Raises Refused, ValueError, OSError."""
    key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise Refused(f"{path} is no key of Ed25519")
    return key


def release(out: Path, key: Ed25519PrivateKey | None, *, trial: bool) -> None:
    """Build it into a new folder. Raises Refused."""
    if not trial:
        changelog, uncommitted = (ROOT / "CHANGELOG.md").read_text("utf-8"), git("status", "--porcelain")
        runs, addresses, figures = list(evidence.runs()), licences.PROJECT.get("urls", ()), record.outdated()
        if found := hindrances(changelog, uncommitted, runs, addresses, dependencies.asked_on(), figures=figures):
            raise Refused("\n".join(found))
    out.mkdir(parents=True)
    made = build_twice(out)
    check(made, installed=not trial)
    wheel = next(path for path in made if path.suffix == ".whl")
    moment = datetime.fromtimestamp(int(git("log", "-1", "--format=%ct")), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    bom = out / f"captoken-{VERSION}.cdx.json"
    bom.write_text(json.dumps(bill(wheel, moment), indent=1) + "\n", "utf-8")
    made = sorted((*made, bom))
    sums = out / "SHA256SUMS"
    sums.write_text("".join(f"{digest(path)}  {path.name}\n" for path in made), "utf-8")
    if key is not None:
        envelope = signed(statement([*made, sums], git("rev-parse", "HEAD"), builder_of(wheel)), key)
        (out / f"captoken-{VERSION}.intoto.json").write_text(json.dumps(envelope) + "\n", "utf-8")


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], prog="python -m tests.release")
    parser.add_argument("--out", type=Path, help="a new folder")
    parser.add_argument("--key", type=Path, help="the owner's Ed25519 key, as PEM")
    parser.add_argument("--tag", action="store_true", help="tag the commit")
    parser.add_argument("--trial", action="store_true", help="build without asking whether it may be released")
    parser.add_argument("--verify", type=Path, metavar="DIR")
    parser.add_argument("--public", type=Path, help="the public key, as PEM, for --verify")
    asked = parser.parse_args(given)
    try:
        if asked.verify:
            if asked.public is None:
                parser.error("--verify goes with --public")
            print(*verify(asked.verify, public_key(asked.public)), sep="\n")
            return 0
        if not asked.out or (asked.key is None) != asked.trial:
            parser.error("--out and --key make a release; --out and --trial build one to look at")
        key = None if asked.key is None else private_key(asked.key)
        release(asked.out, key, trial=asked.trial)
        if asked.tag and not asked.trial:
            git("tag", "-a", f"v{VERSION}", "-m", f"captoken {VERSION}")
    except (Refused, OSError, ValueError) as refused:
        print(f"{'not verified' if asked.verify else 'no release'}:\n{refused}", file=sys.stderr)
        return 1
    print(*sorted(path.name for path in asked.out.iterdir()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
