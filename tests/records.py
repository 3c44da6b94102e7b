"""What is made of the records of denials: `python -m tests.records` writes it anew.

A code is written once, in `captoken/_verification/records.py`. Of it are made the steps and kinds that a verifier decides by,
the table of the specification, and the codes of the port. Of the specification's table come the schemas, the vectors and their
page: `python -m spec.generate`. docs/errors.md has the words: `python -m tests.messages --page`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "captoken/_verification/records.py"
KERNEL = ROOT / "captoken/_language/reasons.py"
SPECIFICATION = ROOT / "spec/captoken-v1.md"
PORT = ROOT / "ports/typescript/src/verification/codes.ts"
RETRY = ROOT / "ports/typescript/src/adapters/retry.ts"
MARKED = re.compile(r"(begin: codes[^\n]*\n).*?(^ *(?:#|//|<!--) end\b)", re.DOTALL | re.MULTILINE)


def written() -> tuple[Any, ...]:
    """The records as they stand in the file, also while the kernel's table is not made of them yet."""
    spec = spec_from_file_location("captoken._verification._records_written", RECORDS)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    with suppress(ImportError):  # its last line compares the two
        spec.loader.exec_module(module)
    return module.RECORDS  # type: ignore[no-any-return]


def made(records: tuple[Any, ...]) -> dict[Path, str]:
    """Each file, with the rows that the records give it."""
    rows = {
        KERNEL: [f'    "{one.code}": Denial({one.step}, "{one.kind}"),' for one in records],
        SPECIFICATION: [
            "| code | step | kind | when |",
            "| --- | --- | --- | --- |",
            *(f"| `{one.code}` | {one.step} | {one.kind} | {one.when} |" for one in records),
            "",
        ],
        PORT: list(_of_the_port(records)),
        RETRY: [
            "export const RETRY: Readonly<Record<Code, Retry>> = {",
            *(f"  {one.code}: {_quoted(one.retry)}," for one in records),
            "};",
        ],
    }
    return {path: filled(path.read_text("utf-8"), "\n".join(lines)) for path, lines in rows.items()}


def filled(text: str, rows: str) -> str:
    """A text with these rows between its two marks, which are comments of its own language."""
    found, count = MARKED.subn(lambda marks: f"{marks[1]}{rows}\n{marks[2]}", text)
    assert count == 1
    return found


def _of_the_port(records: tuple[Any, ...]) -> Iterator[str]:
    """A sentence for clients that several codes have stands once, named by the first.

    A model is told a client's sentence, since a port has to be small, and where that is of several codes the rule that was
    broken, but for proofs, of which it can do nothing about the one or the other. The port is told no access: of names that the rule would echo it says `this`.
    """
    often = Counter(one.public for one in records)
    names: dict[str, str] = {}
    for kind in dict.fromkeys(one.kind for one in records):
        yield f"const {kind.upper()} = {_quoted(kind)};"
    for one in records:
        if often[one.public] > 1 and one.public not in names:
            names[one.public] = f"AS_{one.code.upper()}"
            yield f"const {names[one.public]} = {_quoted(one.public)};"
    yield "const TABLE = {"
    # What a stranger can cause is one message to a model as well.
    stranger = next(one.model for one in records if one.code == "bad_signature")
    for one in records:
        row = [str(one.step), one.kind.upper(), names.get(one.public) or _quoted(one.public)]
        if one.public in names and one.kind != "proof" and one.model not in (stranger, one.public):
            row.append(_quoted(re.sub(r"(\w+) \{\1\}", r"this \1", one.model)))
        # Of a kind all are asked again, or none: said where one is not like its kind.
        if (one.retry != "no") != (one.kind in ("proof", "unavailable")):
            row += ["undefined"] * (4 - len(row)) + [str(one.retry != "no").lower()]
        yield f"  {one.code}: [{', '.join(row)}],"
    yield "} as const satisfies Readonly<Record<string, Row>>;"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    for path, text in made(written()).items():
        path.write_text(text, "utf-8")
