"""What is written awaited and made called: each committed text is what the generator makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import called, size

PACKAGE = called.ROOT


@pytest.mark.parametrize("path", called.made(), ids=lambda path: path.name)
def test_a_called_form_is_what_its_awaited_form_makes(path: Path) -> None:
    """`python -m tests.called` writes it anew."""
    assert path.read_text("utf-8") == called.made()[path]


def test_each_mark_of_the_package_belongs_to_a_part_of_the_list() -> None:
    """Each part is awaited once, and called once, in the files that the list says."""
    marks = sorted(
        (found[2], found[1], str(file.relative_to(PACKAGE)))
        for file in PACKAGE.rglob("*.py")
        for found in re.finditer(r"^ *# (awaited|called): ([\w.]+)(?:,.*)?$", file.read_text("utf-8"), re.MULTILINE)
    )
    listed = [(name, kind, getattr(part, kind)) for name, part in called.PARTS.items() for kind in ("awaited", "called")]
    assert marks == sorted(listed)


@pytest.mark.parametrize(
    ("awaited", "expected"),
    [
        ("async def ask(self) -> int:\n    return await self.told()\n", "def ask(self) -> int:\n    return self.told()\n"),
        ("    async with a, b as c:\n        pass\n", "    with a, b as c:\n        pass\n"),
        ("async for one in many:\n    await one\n", "for one in many:\n    one\n"),
        ("def ask() -> Pending[list[int]]:\n    return Pending(told(1))\n", "def ask() -> list[int]:\n    return told(1)\n"),
        ("it = Pending(\n    told(1)\n)\n", "it = (\n    told(1)\n)\n"),
        ("asking: Callable[[], Awaitable[int]]\n", "asking: Callable[[], int]\n"),
        ("class _AsyncA(AsyncB):\n    async def __aenter__(self): ...\n", "class _A(B):\n    def __enter__(self): ...\n"),
        ('"""As `AsyncA.aclose`:\n\n    async with await a: ...\n"""\n', '"""As `A.close`:\n\n    with a: ...\n"""\n'),
        ("asynchronous = await_it  # await it\n", "asynchronous = await_it  # it\n"),
        ('say("to await is allowed, asyncio too")\n', 'say("to is allowed, asyncio too")\n'),
    ],
)
def test_what_is_called_otherwise(awaited: str, expected: str) -> None:
    assert called.called(awaited) == expected


def test_a_part_has_names_of_its_own() -> None:
    """Whole words; and pieces of an expression as they are written."""
    text = "self._known(a, self._knowns)\n"
    assert called.called(text, (("_known", "_ask"),)) == "self._ask(a, self._knowns)\n"
    assert called.called(text, (("self._known(", "ask("),)) == "ask(a, self._knowns)\n"


def test_a_bracket_that_is_not_closed_is_no_text() -> None:
    with pytest.raises(ValueError, match="not closed"):
        called._closer([], 0)


def test_what_is_generated_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '"""A text."""\na = 1\n# called: one, by a tool\nb = 2\nc = 3\n# end: one\nd = 4\n'
    assert size.statements(text) == (4, 0)
    monkeypatch.setattr(called, "PARTS", {"one": called.Part("a.py", "b.py")})
    assert size.statements(text) == (2, 2)


def test_a_part_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(called, "PARTS", {"nothing": called.Part("stores/_shells.py", "stores/_shells.py")})
    with pytest.raises(ValueError, match=r"nothing: awaited in stores/_shells.py 0 times"):
        called.made()
