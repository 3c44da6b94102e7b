"""The hand-written pages of the reference have an entry for all that there is, with the numbers of the code."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from captoken import Issuer, Token, caveats
from captoken._format import clocks, encoding, names, text
from captoken._language import bounds, conditions, constraints, links, overlay, urls, work
from captoken._language.caveats import BUILT_IN, POSITION
from captoken._language.reasons import PLAN
from captoken._verification import memory, verifier
from captoken._writing import issuer
from captoken._writing.keywords import _KEYWORDS, _READINGS
from captoken.adapters import asgi, discharge_service, grpc, mcp
from captoken.adapters import postgres as postgres_guard
from captoken.adapters import sqlite as sqlite_guard
from captoken.adapters._issuance import allowances, logins, offers, sessions
from captoken.adapters._mcp import sessions as mcp_sessions
from captoken.adapters._mcp.gate import Challenges
from captoken.adapters._postgres import reader, walk
from captoken.adapters._sqlite import growth, lengths, permitting, remembered, watch
from captoken.adapters.issuance import IssuanceService
from captoken.audit import AuditTrail
from captoken.control import ControlPlane, Feed, Operator, _asked, _recall
from captoken.errors import CODES
from captoken.issuance import applications, certificates, documents, jose, keys, policy, signals, signed_xml
from captoken.issuance.policy import _stated
from captoken.issuance.registry import _logins, _rules
from captoken.issuance.registry import ports as registry
from captoken.keys import files
from captoken.stores import ports
from captoken.stores.levels import ThreatLevels
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.sliced import SlicedLedger
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore
from captoken.stores.trail_file import TrailFile

ROOT = Path(__file__).parent.parent
WRITERS = (Issuer.mint, Token.attenuate, Token.delegate, Token.present, Token.require)
# What they are given besides keywords: what they are methods of, and the caveats, which are looked at by themselves.
NOT_KEYWORDS = {"self", "caveats", "discharger", "need", "location"}
# What is no caveat, and of which one word is an example.
PLAIN = {"subject", "agent", "request"}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def sections(name: str, level: int) -> dict[str, str]:
    """What stands below each heading of a level, up to the next one of any level that is not deeper."""
    parts = re.split(rf"^(#{{1,{level}}}) (.*)$", page(name), flags=re.MULTILINE)
    return {
        heading: text for marks, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True) if len(marks) == level
    }


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a text, without their heads."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# --- keywords -------------------------------------------------------------------------------------


def test_every_keyword_has_an_entry_and_every_entry_is_a_keyword() -> None:
    taken = {name for writer in WRITERS for name in inspect.signature(writer).parameters}
    assert set(sections("keywords.md", 3)) == (taken | _KEYWORDS | {"require"}) - NOT_KEYWORDS


@pytest.mark.parametrize("keyword", sorted(set(sections("keywords.md", 3)) - PLAIN))
def test_every_keyword_has_an_example_that_uses_it(keyword: str) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", sections("keywords.md", 3)[keyword], re.MULTILINE | re.DOTALL)
    assert any(re.search(rf"\b{keyword}\b", example) for example in examples)


def test_every_key_of_a_caveat_is_named_where_its_keywords_stand() -> None:
    """What stands in a link under another name than writers use, too: who reads a token finds it."""
    entries = sections("keywords.md", 3)
    keys = {kind.key for kind in BUILT_IN} | set(POSITION)
    for key in keys - entries.keys():
        words = [word for word, (written, _) in _READINGS.items() if written == key] or ["to"]
        assert all(f"`{key}`" in entries[word] for word in words), key


def test_every_code_by_which_a_caveat_prohibits_is_told_at_its_keyword() -> None:
    """By the table of the specification, in which each caveat has its codes."""
    spec = (ROOT / "spec/captoken-v1.md").read_text("utf-8").partition("\n## Caveats\n")[2].partition("\n## ")[0]
    entries = sections("keywords.md", 3)
    told = 0
    for cells in rows(spec):
        if len(cells) != 4 or not cells[0].startswith("`"):
            continue
        codes = set(re.findall(r"`(\w+)`", cells[3]))
        assert codes and codes <= set(CODES)
        keys = re.findall(r"`(\w+)`", cells[0])
        text = "".join(entries[word] for key in keys for word in entries if _READINGS.get(word, (word,))[0] == key)
        # A hand-over that is broken by a key is told of where the secret key is.
        text += entries["signer"] if keys == ["key"] else entries["depth"]
        assert {code for code in codes if f"`{code}`" not in text} == set(), keys
        told += len(codes)
    assert told > 20


def test_what_a_class_of_your_own_says_is_on_its_page() -> None:
    told = page("caveats.md")
    said = {name for name in dir(caveats.Caveat) if not name.startswith("_")} | {
        *caveats.Situation.__struct_fields__,
        *caveats.__all__,
    }
    assert {name for name in said if not re.search(rf"\b{name}\b", told)} == set()


def test_every_kind_of_constraint_has_a_row_and_an_example() -> None:
    told = page("constraints.md")
    kinds = [cells[0] for cells in rows(told) if "`{" in cells[0]]
    assert len(kinds) == len(constraints._KINDS)
    for kind in constraints._KINDS:
        assert [row for row in kinds if all(f'"{key}"' in row for key in kind.keys)], kind
        assert all(f'({{"{key}":' in told for key in kind.keys if key not in ("max", "most")), kind
    assert constraints.CONSTRAINT_KEYS | {"optional"} <= set(re.findall(r'"(\w+)"', told))


# --- limits ---------------------------------------------------------------------------------------

_OF = encoding.LIMITS


def default(of: object, name: str) -> int:
    """What an argument is that is left out."""
    value: int = inspect.signature(of).parameters[name].default  # type: ignore[arg-type]
    return value


# By the beginning of its row, each limit as the code has it. All that the row says in figures is here.
NUMBERS: dict[str, list[int]] = {
    "text of a token": [_OF.token_chars],
    "text of a discharge": [_OF.token_chars],
    "token, discharges and proof": [_OF.bundle_chars],
    "text that `present` writes": [_OF.present_chars, default(Token.present, "max_chars")],
    "links of a token, or": [_OF.links],
    "discharges of a token": [_OF.discharges],
    "third parties": [_OF.discharges],
    "root record": [_OF.root_bytes],
    "ticket": [_OF.ticket_bytes],
    "one field": [_OF.field_bytes],
    "text of a proof": [text.PROOF_CHARS],
    "text of a consent": [text.CONSENT_CHARS],
    "consents that come": [_OF.consents],
    "life of a consent": [1],
    "entries of `consent`": [conditions._MOST_CONSENTS],
    "name: agent": [names.MAX_NAME],
    "free name": [names.MAX_FREE_NAME],
    "integer in a token": [encoding.MAX_INTEGER],
    "levels of lists": [encoding.MAX_DEPTH],
    "`each` in `each`": [constraints._MAX_DEPTH],
    "length of a url": [urls.MAX_CHARS],
    "urls in one list": [urls.MAX_LISTED],
    "urls that several": [urls.MAX_MET],
    "links of a token that have": [links.COUNTING_LINKS],
    "work of a decision": [work.MOST],
    "counts of a token": [links.BUCKETS],
    "counts that a": [ports.MOST_BUCKETS],
    "names in `marks`": [conditions._MOST_MARKS],
    "names in `after`": [conditions._MOST_MARKS - 1],
    "rules of": [conditions._MOST_RULES],
    "how long a ledger keeps a task's mark": [ports.KEEP_MARKS],
    "how long a reservation": [ports.LEASE],
    "how long a ledger": [ports.KEPT],
    "used proofs": [default(MemoryReplayStore, "limit"), default(SQLiteReplayStore, "limit")],
    "life of a minted": [issuer.DEFAULT_LIFE],
    "life of what `present`": [default(Token.present, "expires_in")],
    "how far an issuer's": [clocks.CLOCKS_DIFFER],
    "age of a proof": [clocks.PROOF_PAST],
    "how far the clock of who proves": [clocks.PROOF_AHEAD],
    "age of a grant": [3600],
    "age of the overlay": [60],
    "life of a snapshot": [overlay.LIFE, default(Operator, "life")],
    "snapshot, and a delta": [overlay.MAX_BYTES],
    "snapshot from which": [overlay.LARGE],
    "snapshots before it": [overlay.PAST],
    "part of a snapshot": [_asked.PART],
    "recalls of one": [_asked.MOST],
    "request for a recall": [_recall.MAX_CHARS],
    "why, in a recall": [_recall.WHY_CHARS],
    "how long the entry": [_recall.SLACK],
    "key file": [files._MAX_BYTES],
    "root key": [32],
    "statement": [permitting.MAX_BYTES, reader.MAX_BYTES],
    "rows that a statement": [default(sqlite_guard.guarded, "max_rows"), default(postgres_guard.guarded, "max_rows")],
    "pattern of": [watch.MAX_PATTERN],
    "queries of a statement": [growth.MOST_QUERIES],
    "queries that read": [growth.MOST_DEEP],
    "places of columns": [growth.MOST_PLACES],
    "value, where": [lengths.MAX_COMPARED],
    "such a string": [lengths.MAX_LOOKED_FOR],
    "how often SQLite asks": [watch.MOST_EQUAL],
    "one value": [watch.MAX_VALUE, default(sqlite_guard.guarded, "max_value")],
    "time of a statement": [default(postgres_guard.guarded, "timeout")],
    "parts of a statement": [reader._MAX_NESTING],
    "tables of a statement": [walk.MAX_TABLES],
    "queries in": [walk.MAX_CTES],
    "signs in a row": [reader._MAX_RUN],
    "statements that a connection": [remembered._MOST],
    "path and query": [bounds.TARGET_BYTES],
    "headers of a request": [bounds.HEADER_BYTES],
    "form (": [bounds.FORM_BYTES],
    "body that a guard reads": [bounds.BODY_BYTES, asgi.BODY_BYTES, default(asgi.CaptokenMiddleware, "max_body"), default(Challenges.challenging, "max_body"), default(mcp.Guard.sessions, "max_body")],
    "messages in one body": [bounds.MESSAGES],
    "arrays and objects in one body": [bounds.NESTED],
    "message of a client": [bounds.BODY_BYTES, default(grpc.Guard, "max_message"), default(grpc.AsyncGuard, "max_message")],
    "parameters of a call": [bounds.BODY_BYTES],
    "what a call states": [bounds.FACTS],
    "body of a request for a discharge": [bounds.DISCHARGE_BYTES, discharge_service.BODY_BYTES],
    "what a service answers": [bounds.ANSWER_BYTES],
    "body of a form of the console": [bounds.CONSOLE_BYTES],
    "sessions over HTTP": [mcp_sessions.MOST],
    "requests for approval": [default(discharge_service.DischargeService, "limit")],
    "how long a request for approval": [default(discharge_service.DischargeService, "keep")],
    "body of a request for a token": [bounds.ISSUANCE_BYTES],
    "assertion": [bounds.ASSERTION_CHARS],
    "`authorization_details`": [bounds.DETAILS_CHARS],
    "levels in an assertion": [jose.MAX_DEPTH],
    "RSA key": [jose.MAX_RSA],
    "certificates of a SAML": [signed_xml.MAX_KEYS],
    "certificates of a chain": [certificates.MAX_CERTIFICATES],
    "requests of one identity": [policy.PER_MINUTE],
    "age of a security event": [signals.MAX_AGE],
    "silence": [registry.SILENCE],
    "document of an application": [applications.DOCUMENT_BYTES],
    "fetch of such a document": [int(documents.PATIENCE)],
    "request of an application": [offers.MOST_QUERY],
    "used assertions of one subject": [_rules.PER_SUBJECT],
    "answer of a SAML provider": [bounds.RESPONSE_CHARS],
    "time to log in": [sessions.ATTEMPT_LIFE],
    "time to answer the page": [logins.PAGE_LIFE],
    "life of a code": [allowances.CODE_LIFE],
    "a refresh token that was used": [registry.GRACE],
    "logins of one subject": [_logins.MOST, _logins.MOST],
    "keys of a provider": [int(keys.GOOD)],
    "texts": [memory.TEXT_REMEMBERED],
    "links": [memory.LINK_BYTES_REMEMBERED],
    "hand-overs that were": [memory.STATES_REMEMBERED],
    "one text": [memory.LONGEST_REMEMBERED],
}


def limits() -> list[list[str]]:
    """The rows of the page, without heads."""
    return [cells for cells in rows(page("limits.md")) if cells[0] != "limit" and not cells[0].startswith("---")]


def test_every_limit_on_the_page_is_the_number_of_the_code() -> None:
    """Each row belongs to the longest beginning that it has, and each beginning to one row."""
    seen: list[str] = []
    for cells in limits():
        found = [begin for begin in NUMBERS if cells[0].startswith(begin)]
        assert found, cells[0]
        begin = max(found, key=len)
        first = re.search(r"\d[\d,]*", cells[1])
        assert first and {int(first[0].replace(",", ""))} == set(NUMBERS[begin]), cells[0]
        seen.append(begin)
    assert sorted(seen) == sorted(NUMBERS)


def test_every_limit_of_the_format_is_on_the_page() -> None:
    told = {number for numbers in NUMBERS.values() for number in numbers}
    assert {getattr(_OF, name) for name in _OF._fields} <= told


def test_every_rule_that_the_page_of_limits_cites_is_there() -> None:
    spec = (ROOT / "spec/captoken-v1.md").read_text("utf-8")
    cited = {rule for cells in limits() for rule in re.findall(r"\b\d+\.\d+\b", cells[2])}
    assert len(cited) > 20 and {rule for rule in cited if f"- **{rule}** " not in spec} == set()


def test_the_bounds_of_a_verifier_are_those_on_the_page() -> None:
    """They have no constant of their own: what a verifier is made with says them."""
    of = verifier._parts_of_verifier
    assert [default(of, "max_age")] == NUMBERS["age of a grant"]
    assert [default(of, "max_staleness")] == NUMBERS["age of the overlay"]
    assert [default(of, "remember")] == NUMBERS["texts"]


# --- configuration --------------------------------------------------------------------------------

# The tables of a policy, by their headings on the page.
STATED: dict[str, type[msgspec.Struct]] = {
    "The file": _stated.File,
    "service": _stated.Service,
    "service proxy": _stated.Proxy,
    "login": _stated.LoginOf,
    "resource": _stated.Resource,
    "grant": _stated.StatedGrant,
    "grant tasks": _stated.Tasks,
    "grant approval": _stated.Approval,
    "discharger": _stated.DischargerOf,
    "client": _stated.Client,
    "test": _stated.Test,
}
PROVIDERS: tuple[type[msgspec.Struct], ...] = get_args(_stated.Provider)
MADE: dict[str, list[object]] = {
    "Verifier and AsyncVerifier": [verifier._parts_of_verifier],
    "Feed": [Feed],
    "Operator": [Operator],
    "ControlPlane": [ControlPlane],
    "AuditTrail": [AuditTrail],
    "SlicedLedger": [SlicedLedger],
    "ThreatLevels": [ThreatLevels],
    "TrailFile": [TrailFile],
    "SQLiteReplayStore and MemoryReplayStore": [SQLiteReplayStore, MemoryReplayStore],
    "SQLiteLedger and MemoryLedger": [SQLiteLedger, MemoryLedger],
    "guarded, for SQLite": [sqlite_guard.guarded],
    "guarded, for PostgreSQL": [postgres_guard.guarded],
    "CaptokenMiddleware": [asgi.CaptokenMiddleware],
    "DischargeService": [discharge_service.DischargeService],
    "IssuanceService": [IssuanceService],
}
# What the page says of all of them together.
TOLD_ELSEWHERE = {"clock", "random", "vocabulary", "timeout", "floor", "readonly"}


def table(heading: str) -> list[list[str]]:
    below = sections("configuration.md", 3)[heading]
    return [cells for cells in rows(below) if cells[0].startswith("`")]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """As the page has it: as TOML writes it, or a word."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT or value == ():
        return "empty"
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "none"
    if value == _stated.Tasks():
        return "`live = 1000`"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize("heading", STATED)
def test_every_key_of_a_policy_is_on_the_page_with_its_default(heading: str) -> None:
    fields = {field.encode_name: default_of(field) for field in msgspec.structs.fields(STATED[heading])}
    if heading == "The file":
        fields["version"] = "required"
    assert {cells[0].strip("`"): cells[2] for cells in table(heading)} == fields


@pytest.mark.parametrize("kind", PROVIDERS, ids=lambda kind: kind.__struct_config__.tag)
def test_every_key_of_a_provider_is_on_the_page_with_its_default(kind: type[msgspec.Struct]) -> None:
    tag = kind.__struct_config__.tag
    told: dict[str, str] = {}
    for key, of_kinds, _, said, _ in table("provider"):
        named = set(re.findall(r"`([\w-]+)`", of_kinds))
        if (tag in named) != of_kinds.startswith("all"):
            assert key not in told
            told[key.strip("`")] = said
    wanted = {field.encode_name: default_of(field) for field in msgspec.structs.fields(kind)}
    assert told == wanted
    assert f"`{tag}`" in sections("configuration.md", 3)["provider"].splitlines()[2]


def test_every_table_of_a_policy_is_on_the_page() -> None:
    """A new one would be a class beside those here."""
    known = {*STATED.values(), *PROVIDERS}
    found = {
        kind
        for name, kind in vars(_stated).items()
        if isinstance(kind, type) and issubclass(kind, _stated._Stated) and not name.startswith("_")
    }
    assert found == known


@pytest.mark.parametrize("heading", MADE)
def test_every_argument_that_may_be_left_out_is_on_the_page_with_its_default(heading: str) -> None:
    told = {cells[0].strip("`"): cells[1].strip("`") for cells in table(heading)}
    for made in MADE[heading]:
        parameters = inspect.signature(made).parameters.values()  # type: ignore[arg-type]
        defaults = {one.name: repr(one.default) for one in parameters if one.default is not one.empty}
        if "audience" in told:
            defaults["audience"] = "None"
        left_out = TOLD_ELSEWHERE - told.keys()
        assert told == {name: value for name, value in defaults.items() if name not in left_out}, made


def test_every_variable_of_the_environment_that_is_read_is_on_the_page() -> None:
    """Found where they are read: by the ways that the code has of reading one."""
    reads = re.compile(
        r"""(?:environ(?:\.get\(|\[)|given\.get\(|_variable\(given,\s|_has\(|_folder\(|envvar=|^VARIABLE\s=\s|^COMPLETING\s=\s)"""
        r"""((?:\s*["'][A-Z_]+["'],?)+)""",
        re.MULTILINE,
    )
    found = {
        name
        for path in (ROOT / "captoken").rglob("*.py")
        for names_there in reads.findall(path.read_text("utf-8"))
        for name in re.findall(r"[A-Z_]{3,}", names_there)
    }
    told = {name for cells in rows(page("configuration.md")) for name in re.findall(r"`([A-Z_]{4,})`", cells[0])}
    assert found == told


# --- how guards judge -----------------------------------------------------------------------------


def test_the_steps_on_the_page_are_those_of_the_plan_with_their_codes() -> None:
    steps = [cells for cells in rows(page("how-guards-judge.md")) if re.match(r"\d", cells[0])]
    assert [cells[0] for cells in steps] == [f"{number} {name}" for number, name in enumerate(PLAN, 1)]
    for number, cells in enumerate(steps, 1):
        told = set(re.findall(r"`(\w+)`", cells[2]))
        assert number == 8 or {code for code, meant in CODES.items() if meant.step == number} <= told


# --- costs, and who attacks -----------------------------------------------------------------------


def microseconds(row: str) -> float:
    """Of captoken, in the first row of that name among the figures that were kept."""
    for cells in rows(page("benchmarks.md")):
        if cells[0] == row:
            return float(cells[1].removesuffix(" µs"))
    raise AssertionError(f"no such row: {row}")


def test_the_page_of_costs_names_rows_that_there_are_from_the_cheapest_to_the_dearest() -> None:
    glance = page("costs.md").partition("## At a glance")[2].partition("\n## ")[0]
    named = [cells[1].strip("`") for cells in rows(glance) if cells[1].startswith("`")]
    times = [microseconds(row) for row in named]
    assert len(times) == 6 and times == sorted(times)


def test_what_the_threat_model_says_stops_an_attack_is_a_code() -> None:
    told = {code for cells in rows(page("threat-model.md")) for code in re.findall(r"`([a-z_]+)`", cells[-1])}
    assert len(told) > 8 and told - CODES.keys() == set()
