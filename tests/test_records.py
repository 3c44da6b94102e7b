"""One record a code: what is made of it is as it says, and no code is told, or raised, without one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captoken import Access, Issuer
from captoken._language.caveats import Caveat
from captoken._language.reasons import DENIALS, PLAN, Reason, Refusal
from captoken._verification.records import CODES, RECORDS, Code, together
from captoken.caveats import Vocabulary
from tests import records
from tests.fixtures import KEYRING, WHO, clock, tool, verifier

ROOT = Path(__file__).parent.parent
LAST = RECORDS[-1]


def test_the_file_is_read_as_it_is_imported() -> None:
    assert records.written() == RECORDS and together(RECORDS) == CODES


@pytest.mark.parametrize("path", records.made(RECORDS), ids=lambda path: path.name)
def test_what_is_made_of_the_records_is_as_they_say(path: Path) -> None:
    """`python -m tests.records` writes it anew."""
    assert path.read_text("utf-8") == records.made(RECORDS)[path]


def test_a_new_record_reaches_each_file_that_is_made() -> None:
    new = LAST._replace(code="new_code", step=8, when="a new reason", public="A new sentence.")
    for path, text in records.made((*RECORDS, new)).items():
        added = set(text.splitlines()) - set(path.read_text("utf-8").splitlines())
        assert [line for line in added if "new_code" in line], path
        assert [line for line in added if "new_code" not in line] == []


def test_the_file_is_read_before_the_kernel_knows_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing could be made of a new record."""
    monkeypatch.delitem(DENIALS, LAST.code)
    assert records.written() == RECORDS


@pytest.mark.parametrize("field", [name for name in Code._fields if isinstance(getattr(LAST, name), str)])
def test_a_record_that_leaves_something_out_is_none(field: str) -> None:
    with pytest.raises(ImportError, match=r"leaves something out|those of the kernel"):
        together((*RECORDS[:-1], LAST._replace(**{field: ""})))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": 0}, "store_unavailable has no step of the plan"),
        ({"step": len(PLAN) + 1}, "store_unavailable has no step of the plan"),
        ({"retry": "yes"}, "store_unavailable does not say whether to retry"),
        ({"model": "Ask {agent}."}, "store_unavailable echoes what a model may not be told"),
        ({"model": "Ask {tool.name}."}, "store_unavailable echoes what a model may not be told"),
        ({"model": "Ask {}."}, "store_unavailable echoes what a model may not be told"),
        ({"step": 7}, "those of the kernel are others"),
        ({"kind": "invalid"}, "those of the kernel are others"),
        ({"code": "new_code"}, "those of the kernel are others"),
    ],
)
def test_a_record_that_is_wrong_is_none(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImportError, match=said):
        together((*RECORDS[:-1], LAST._replace(**change)))


@pytest.mark.parametrize("codes", [RECORDS[:-1], (*RECORDS, LAST), (*RECORDS, LAST._replace(code="new_code")), RECORDS[::-1]])
def test_the_records_are_those_of_the_kernel_in_the_order_of_the_plan(codes: tuple[Code, ...]) -> None:
    with pytest.raises(ImportError, match="those of the kernel are others"):
        together(codes)


@pytest.mark.parametrize("made", [Reason, Refusal])
def test_a_code_without_a_record_cannot_be_raised(made: Any) -> None:
    assert made("table", "why").code == "table"
    with pytest.raises(ValueError, match=r"'new_code' is not a code of the spec: captoken.errors.CODES lists them"):
        made("new_code", "why")


def test_a_code_that_an_own_caveat_made_up_is_that_of_attributes() -> None:
    class Own(Caveat, frozen=True):
        key = "acme:own"
        domain = "all"

        def prohibits(self, access: Access, situation: Any) -> Reason:
            return Reason(self.value, "so it is")

    for code, expected in (("tool", "tool"), ("new_code", "attribute")):
        words = Vocabulary(Own)
        token = Issuer(KEYRING, vocabulary=words, clock=clock()).mint(**WHO, tools={"pay": {}}, **{"acme:own": code})
        decision = verifier(vocabulary=words).check(token.serialize(), tool("pay"))
        assert decision.code == expected


def test_whoever_only_checks_loads_no_words() -> None:
    """They are loaded by whoever asks for them, and then all are there."""
    script = """
import sys
from captoken import Access, Issuer, Keyring, Verifier

keyring = Keyring.generate()
token = Issuer(keyring).mint(subject="s", agent="a", task="t", tables=["sales"], operations=["select"])
verifier = Verifier(keyring, audience="db")
text = token.present(audience="db")
assert verifier.check(text, Access(table="sales", operation="select"))
denied = verifier.check(text, Access(table="hr", operation="select"))
assert (denied.code, denied.summary[:6]) == ("table", "table:")
words = [f"captoken._verification.{name}" for name in ("wording", "records", "catalogue")]
print([name in sys.modules for name in words])
assert "hr" in denied.for_model()
print([name in sys.modules for name in words])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n") == ["[False, False, False]", "[True, True, False]", ""]


def test_there_is_no_second_table_of_codes() -> None:
    """A table by code that is not made of the records says something wrong of the next code that comes.

    The questions of the log are for codes that a server's set-up brings about, and no other code needs one.
    """
    found = []
    for path in sorted((ROOT / "captoken").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
            words = {item.value for item in items if isinstance(item, ast.Constant)}
            if len(words & CODES.keys()) >= 6:
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["captoken/_language/reasons.py", "captoken/_verification/telling.py"]
