"""Under which licences the packages stand that an extra of captoken brings: as the packages themselves say it, here.

`python -m tests.licences` prints each package with its licence, and 1 is the end if one is on no list.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# The short list: whoever keeps the notices may do anything with these, and with what is built on them.
PERMISSIVE = frozenset(("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "Unlicense"))

# Others, for these packages alone, and why they do.
OTHERS = {
    "certifi": ("MPL-2.0", "a list of certificates, which nobody changes: the licence asks for the source of changed files"),
    "hypothesis": ("MPL-2.0", "of the tests"),
    "orjson": ("MPL-2.0", "called by langsmith, and unchanged: the licence asks for the source of changed files"),
    "pathspec": ("MPL-2.0", "of the tests: mypy asks for it"),
    "psycopg": ("LGPL-3.0-only", "imported as it is, and anybody can put another version in its place"),
    "psycopg-binary": ("LGPL-3.0-only", "the same, as a library of C"),
    "psycopg-pool": ("LGPL-3.0-only", "of the tests, and imported as it is"),
    "tqdm": ("MPL-2.0", "a bar of progress, unchanged: the licence asks for the source of changed files"),
}

# What the metadata says too vaguely or does not say, and what the file of the licence says that lies beside it.
_TWO_CLAUSES = "two clauses in its LICENSE"
_THREE_CLAUSES = "three clauses in its LICENSE"
VAGUE = {
    "alabaster": ("", "BSD-3-Clause", _THREE_CLAUSES),
    "biscuit-python": ("", "Apache-2.0", "the text of its LICENSE"),
    "docutils": (
        "Public Domain AND GNU General Public License (GPL)", "BSD-2-Clause",
        "its COPYING: the public domain, but for files under BSD; GPL is a file for Emacs, which is not in the wheel",
    ),
    "jinja2": ("", "BSD-3-Clause", _THREE_CLAUSES),
    "msgspec": ("BSD", "BSD-3-Clause", f"{_THREE_CLAUSES}; newer ones say so themselves"),
    "nodeenv": ("BSD", "BSD-3-Clause", _THREE_CLAUSES),
    "pyasn1-modules": ("BSD", "BSD-2-Clause", _TWO_CLAUSES),
    "pyperclip": ("BSD", "BSD-3-Clause", _THREE_CLAUSES),
    **{
        f"sphinxcontrib-{name}": ("", "BSD-2-Clause", _TWO_CLAUSES)
        for name in ("applehelp", "devhelp", "htmlhelp", "jsmath", "qthelp", "serializinghtml")
    },
}  # fmt: skip

# Other spellings of a licence. "BSD License" is none: it could be either.
SPELLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
_TOO_VAGUE = ("BSD License", "OSI Approved")


def stated(about: metadata.PackageMetadata) -> str:
    """What a package says of its licence, as an expression of SPDX; or what it says, where that is none.

    Where it says more than one thing, all of them hold.
    """
    expression = about.get("License-Expression")
    if expression:
        return expression

    # A whole text may stand there. Its classifiers have to say then which one it is.
    field = (about.get("License") or "").strip()
    found = [field] if field and "\n" not in field else []
    for classifier in about.get_all("Classifier") or ():
        kind, _, name = classifier.rpartition(" :: ")
        if kind.startswith("License") and name not in _TOO_VAGUE:
            found.append(name)
    spelled = dict.fromkeys(SPELLED.get(one, one) for one in found)
    said = " AND ".join(f"({one})" if " OR " in one else one for one in spelled)

    # Only as long as it says the same.
    vague = VAGUE.get(canonicalize_name(about["Name"]))
    return vague[1] if vague is not None and vague[0] == said else said


def licences(expression: str, also: Iterable[str] = ()) -> set[str] | None:
    """The licences that one stands under who may choose the best of an expression; None if one is on no list.

    `also` are licences that are fine beside the short list.
    """
    words = re.findall(r"\(|\)|[^\s()]+", expression)
    if not words:
        return None

    def either() -> set[str] | None:
        choices = [both()]
        while words[:1] == ["OR"]:
            del words[0]
            choices.append(both())
        return next((one for one in choices if one is not None), None)

    def both() -> set[str] | None:
        parts = [one()]
        while words[:1] == ["AND"]:
            del words[0]
            parts.append(one())
        return None if None in parts else set().union(*(part for part in parts if part is not None))

    def one() -> set[str] | None:
        word = words.pop(0) if words else ""
        if word == "(":
            inner = either()
            return inner if words[:1] == [")"] and words.pop(0) else None
        return {word} if word in PERMISSIVE or word in also else None

    found = either()
    return None if words else found


def brought(requirements: Iterable[str], extras: Iterable[str] = ("",)) -> Iterator[tuple[str, str]]:
    """Each package that these requirements bring here, with its extra or "". Raises PackageNotFoundError."""
    seen: set[tuple[str, str]] = set()
    to_come = [(one, extra) for one in requirements for extra in extras]
    while to_come:
        text, extra = to_come.pop()
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(asked.name)
        for more in ("", *asked.extras):
            if (name, more) in seen:
                continue
            seen.add((name, more))
            if name == "captoken":
                to_come += [(one, "") for one in EXTRAS.get(more, ())]
                continue
            yield name, more
            to_come += [(one, more) for one in metadata.distribution(name).requires or ()]


def is_here(extra: str) -> bool:
    """Whether all that an extra brings is installed."""
    try:
        return bool(list(brought(EXTRAS[extra])))
    except metadata.PackageNotFoundError:
        return False


def of_extra(extra: str) -> dict[str, set[str] | str]:
    """Each package of an extra, or of captoken itself where it is "": its licences, or what it says if one is on no list."""
    asked = EXTRAS[extra] if extra else PROJECT["dependencies"]
    found: dict[str, set[str] | str] = {}
    for name in sorted({name for name, _ in brought(asked)}):
        expression = stated(metadata.metadata(name))
        known = licences(expression, also=OTHERS.get(name, ())[:1])
        found[name] = expression if known is None else known
    return found


def main() -> int:
    ending = 0
    for extra in ("", *EXTRAS):
        if extra and not is_here(extra):
            print(f"{extra}: not installed here")
            continue
        for name, known in of_extra(extra).items():
            print(f"{extra or 'captoken'}: {name}: {'NOT ON A LIST: ' + known if isinstance(known, str) else ', '.join(sorted(known))}")
            ending |= isinstance(known, str)
    return ending


if __name__ == "__main__":
    sys.exit(main())
