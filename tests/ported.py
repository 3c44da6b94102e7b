"""The scripts of the stores, as the port to TypeScript has them: `python -m tests.ported` writes them anew.

Both languages run one text, and so have one rule: the Lua for Valkey and the SQL for PostgreSQL are written in
`captoken/stores`, and copied from there. Nobody edits the copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD
from captoken.stores import _valkey_lua as lua
from captoken.stores._postgres_sql import SCHEMA, SETUP
from captoken.stores._rules import MISSING, Making, consent_too_old, too_old
from captoken.stores.ports import FULL, KEPT, LEASE, MOST_BUCKETS
from captoken.stores.postgres import AsyncPostgresLedger, AsyncPostgresReplayStore
from captoken.stores.valkey import AsyncValkeyLedger, AsyncValkeyReplayStore

FOLDER = Path(__file__).parent.parent / "ports/typescript/src/remote"
HEAD = "/** {}: made of the text of Python's stores by `python -m tests.ported`, and never edited. */\n\n"
SCRIPTS = ("MAKE", "LOOK", "ADD", "SPEND", "RESERVE", "STEP", "SETTLE", "LOAD")
NOBODY = "host=nobody.invalid"  # a store that nobody has asked yet has no connection


def literal(text: str) -> str:
    """A text as JavaScript spells it on several lines."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`").replace("${", "\\${") + "`"


def of_valkey() -> str:
    """Each script with its digest. What several have in common stands there once."""
    made = [HEAD.format("The scripts of the stores on Valkey")]
    made.append("export interface Script {\n  readonly text: string;\n  readonly digest: string;\n}\n\n")
    made.append(f"const SAID = {literal(lua._SAID)};\n\nconst COMMON = SAID + {literal(lua._COMMON.removeprefix(lua._SAID))};\n")
    for name in SCRIPTS:
        text: str = getattr(lua, name)
        start = "COMMON" if text.startswith(lua._COMMON) else "SAID"
        rest = text.removeprefix(lua._COMMON if start == "COMMON" else lua._SAID)
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        made.append(f'\nexport const {name}: Script = {{\n  text: {start} + {literal(rest)},\n  digest: "{digest}",\n}};\n')
    versions = {"REPLAY_VERSION": AsyncValkeyReplayStore._version, "LEDGER_VERSION": AsyncValkeyLedger._version}
    made += [f"\nexport const {name} = {schema.version};" for name, schema in versions.items()]
    return "".join(made) + "\n"


def statements() -> Iterator[tuple[str, str]]:
    """What the stores on PostgreSQL ask, by name, on the schema `captoken`."""
    ledger, proofs = AsyncPostgresLedger(NOBODY), AsyncPostgresReplayStore(NOBODY)
    made = AsyncPostgresLedger(NOBODY, _new=Making((), None))
    yield "opening", ledger._first_question()[0].decode()
    yield "make", made._beginning()[0].decode()
    yield "meet", ledger._meeting()[0].decode()
    for name, store, one in [
        ("add", proofs, "_add"),
        ("peekAdd", proofs, "_peek"),
        ("spend", proofs, "_spend"),
        ("peekSpend", proofs, "_peek_spend"),
        ("reserve", ledger, "_reserve"),
        ("peekReserve", ledger, "_peek"),
        ("step", ledger, "_step"),
        ("peekStep", ledger, "_peek_step"),
        ("settle", ledger, "_settle"),
    ]:
        asked: Any = getattr(store, one)
        yield name, asked.decode()
    yield "load", ledger._function("load_overlay", "").decode()


def of_postgres() -> str:
    made = [HEAD.format("The statements of the stores on PostgreSQL")]
    made.append("export const ASKED = {\n")
    made += [f"  {name}: {literal(' '.join(text.split()))},\n" for name, text in statements()]
    made.append(f"}} as const;\n\nexport const VERSION = {SCHEMA.version};\n")
    made.append(f"\nexport const SETUP = {literal(SETUP)};\n")
    return "".join(made)


def of_both() -> str:
    """The figures that the stores have in common."""
    figures = {
        "PROOF_AHEAD": PROOF_AHEAD,
        "CLOCKS_DIFFER": CLOCKS_DIFFER,
        "GONE": too_old(0),
        "CONSENT_GONE": consent_too_old(0),
        "LEASE": LEASE,
        "KEPT": KEPT,
        "MOST_BUCKETS": MOST_BUCKETS,
        "FULL": FULL,
        "MISSING": MISSING,
    }
    return HEAD.format("Figures of the stores") + "".join(f"export const {name} = {figure};\n" for name, figure in figures.items())


def made() -> dict[Path, str]:
    return {FOLDER / "lua.ts": of_valkey(), FOLDER / "sql.ts": of_postgres(), FOLDER / "figures.ts": of_both()}


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, "utf-8")
