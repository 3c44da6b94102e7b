"""What a stranger may hand in at once: one place has the numbers, every adapter takes them from there, and no byte is visited twice."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from captoken import Access
from captoken._language import bounds
from captoken._language.work import MOST, at_most, size_of
from captoken.adapters._http.credentials import refuse_stray
from captoken.adapters._http.exchange import RequestError
from captoken.tools import ToolGuard, access_or_refusal, access_to
from tests.fixtures import verifier

ROOT = Path(__file__).parent.parent / "captoken"
ROOM = bounds.FACTS - 2 - 16 - 3 - 2  # of a text that is the one argument, `q`


# --- facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length, large", [(ROOM, False), (ROOM + 1, True)])
def test_arguments_have_their_room_and_not_a_byte_more(length: int, large: bool) -> None:
    arguments = {"q": "x" * length}
    assert size_of(arguments) == bounds.FACTS + large and bounds.too_large(arguments) is large
    assert access_or_refusal("search", arguments, "no call") == (bounds.TOO_LARGE if large else Access(tool="search", arguments=arguments))
    assert (access_to("search", arguments) is None) is large
    assert bounds.is_bounded(Access(tool="search", arguments=arguments, attributes={})) is True or large


def test_all_that_is_stated_counts_together() -> None:
    half = "x" * (bounds.FACTS // 2)
    assert bounds.is_bounded(Access(tool="search", arguments={"q": half}))
    assert bounds.is_bounded(Access(tool="search", attributes={"q": half}))
    assert not bounds.is_bounded(Access(tool="search", arguments={"q": half}, attributes={"q": half}))
    assert access_to("search", {"q": half}, attributes={"q": half}) is None
    assert bounds.is_bounded(Access(table="sales", operation="select"))
    assert not bounds.is_bounded(Access(table="sales", operation="select", columns=[f"c{n}" for n in range(20_000)]))


@pytest.mark.parametrize("value", ["\U0001f511" * 10, [1] * 9, ("é",) * 9, {"a": {"b": [None, "x"]}}, 1.5, True, None, ""])
def test_what_is_counted_sooner_is_never_less(value: Any) -> None:
    for facts in ({"q": value}, {"q": value, "r": value}, {}, value, [value]):
        assert at_most(facts) >= size_of(facts)
    assert bounds.too_large({"q": (0,) * bounds.FACTS})


def test_more_than_the_bound_is_not_gone_through() -> None:
    assert size_of([[0] * 1000] * 1000, 100) < 100 + 16 * 1000 + 1000 < size_of([[0] * 1000] * 1000) and size_of(["x"] * 9) < MOST
    # What UTF-8 cannot spell, and what is no JSON, is for the copy to refuse.
    assert not bounds.too_large({"q": "\ud800" * bounds.FACTS}) and not bounds.too_large({"q": object()})


@pytest.mark.parametrize("given", [-1, True, 1.0, "1", None])
def test_a_bound_is_a_number_of_bytes(given: Any) -> None:
    assert bounds.read_bytes(0, "max_body") == 0
    with pytest.raises(ValueError, match="must be a number of bytes, as int, not"):
        bounds.read_bytes(given, "max_body")


def test_a_guard_of_tools_denies_what_is_too_large_and_says_so() -> None:
    from captoken import current
    from tests.fixtures import mint

    with current.use(mint(tools={"*": {}})):
        allowed, large = (ToolGuard(verifier()).check("search", {"q": "x" * (ROOM + more)}) for more in (0, 1))
        assert allowed and large.code == "too_much_work" and "too large" in large.for_model()
        stated = ToolGuard(verifier(), attributes=lambda tool, arguments: {"q": "x" * ROOM})
        assert stated.check("search", {}) and stated.check("search", {"q": "x" * 100}).code == "too_much_work"
        wrong = ToolGuard(verifier(), attributes=lambda tool, arguments: {"q": object()})
        assert wrong.check("search", {}).code == "tool"


# --- scans ----------------------------------------------------------------------------------------

HOSTILE = [b"%", b"%%4", b"%4", b"%41", b"%41x", b"%63ap1_", b"%63%61%70%31%5F", b"cap1_a", b"cap1_", b"access_token", b"a=&", b"%zz", b"\xff", b"a"]


def steps(scan: Any, data: bytes) -> int:
    """How many calls, of Python's and of the library's, a scan makes, and how many lines it runs."""
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "c_call"

    before = sys.gettrace(), sys.getprofile()  # coverage, for one
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        scan(data)
    except RequestError:
        pass
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return count


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_scan_takes_no_step_of_python_s_for_what_is_no_escape(unit: bytes) -> None:
    """And one at most for an escape. The standard library takes two for each percent sign."""
    short, long = ((unit * length)[: 3 * length] for length in (300, 3000))
    escapes = len(re.findall(rb"%[0-9A-Fa-f]{2}", long))
    refuse_stray_steps = steps(refuse_stray, long)
    assert refuse_stray_steps <= escapes + 40
    if not escapes:
        assert refuse_stray_steps <= steps(refuse_stray, short) + 2


# --- one rule for all -----------------------------------------------------------------------------

# Who decides about accesses that no stranger's data is in: names of tables and columns, out of a statement that has a bound of its own.
OF_SQL = re.compile(r"adapters/(_sqlite|_postgres|_sqlalchemy)/|adapters/(sqlite|postgres|sqlalchemy|_costed_grant|_rows|_usage_meter)\.py")
ASKS = {"check", "authorize", "check_async"}


def doors() -> list[tuple[str, ast.Module]]:
    files = [*ROOT.glob("adapters/**/*.py"), *ROOT.glob("cli/console/*.py"), ROOT / "tools.py"]
    return [(str(file.relative_to(ROOT)), ast.parse(file.read_text("utf-8"))) for file in sorted(files)]


def calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imports_bounds(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "captoken._language.bounds" for node in ast.walk(tree))


def asks_a_verifier(call: ast.Call) -> bool:
    """A question with an access to a face of a verifier or a grant. `_guard.check(…)` goes through `tools`."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in ASKS:
        return False
    return ast.unparse(function.value) in ("face", "verifier", "grant", "self._grant", "self._verifier", "self._blocking")


def test_whoever_asks_a_verifier_about_a_stranger_s_access_has_bounded_it() -> None:
    asking = [name for name, tree in doors() if not OF_SQL.search(name) and any(map(asks_a_verifier, calls(tree)))]
    assert {"adapters/asgi.py", "adapters/a2a.py", "adapters/_grpc/calls.py", "adapters/_mcp/gate.py", "tools.py"} <= set(asking)
    unbounded = [name for name, tree in doors() if name in asking and not imports_bounds(tree)]
    assert unbounded == []


def test_whoever_reads_a_body_has_its_bound_from_the_one_place() -> None:
    bodies = [(name, ast.unparse(call.args[1]), imports_bounds(tree)) for name, tree in doors() for call in calls(tree) if ast.unparse(call.func) == "Body"]
    assert len(bodies) == 9
    # The gateway hands its own bound to the door for MCP.
    handed = ("adapters/_gateway/mcp_door.py", "self._max_body", False)
    assert [body for body in bodies if (body != handed and not body[2]) or not re.fullmatch(r"self\._max_body|most|[A-Z]+_BYTES", body[1])] == []


def test_no_adapter_has_a_number_of_bytes_of_its_own() -> None:
    """Nor an unescaping of its own: the standard library's takes a step for each percent sign."""
    for name, tree in doors():
        if OF_SQL.search(name):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "urllib.parse":
                taken = {alias.name for alias in node.names}
                assert taken.isdisjoint({"unquote", "unquote_to_bytes", "parse_qs"}), name
                assert "parse_qsl" not in taken or name == "cli/console/app.py", name
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and re.search(r"BYTES|CHARS", node.targets[0].id):
                # What is worked out of another bound is one; and two are of what a server tells a client of ours.
                names = [one for one in ast.walk(node.value) if isinstance(one, ast.Name | ast.Attribute)]
                assert names or node.targets[0].id in ("_TEXT_CHARS", "_SAID_CHARS"), (name, ast.unparse(node))
