"""What a test sees raised stands on the page of errors, so that whoever is told a message finds it there.

Held wherever a test waits for an error (`pytest.raises`) that comes out of the core. `tests/test_errors.py` holds the page to the
source; this holds what is said to the page. Stores and adapters hand on what a database or a server says, in words of theirs. So
do functions of a test, and Python of a call.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import TracebackType

import captoken
from captoken import errors
from captoken.errors import Denied, LimitError, WideningError

PAGE = Path(__file__).parent.parent / "docs/errors.md"
LIBRARY = Path(captoken.__file__).parent
# Where others' words come through; `sealed.py`, which takes the place away that an error came from; and `located.py`, which puts one in front.
EDGES = {"adapters", "audit", "cli", "issuance", "stores", "sealed.py", "located.py"}

# What Python, or a library, says of a call or a file.
THEIRS = re.compile(r"Unexpected keyword argument")
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
TOLD = {*KINDS, TypeError, ValueError, RuntimeError}

# Said in front of a message, or behind it: by the constructors of these errors.
ASKED = "asked for …, it holds …"
MORE = f"…: more than the token holds; {ASKED}"
FRAMES: dict[type[BaseException], list[str]] = {
    Denied: ["…: @", "store_unavailable: …"],  # or what a store of the test says
    LimitError: ["@", "@ (…: …)"],
    WideningError: [f"{MORE}, too much is …; @", f"{MORE}; @", f"…: @; {ASKED}", f"…: @; @; {ASKED}"],
    ValueError: ["@", "'….toml': @", "'….toml': scenario …: @"],
}


# What a set of tokens says in front of an error of one of them, and behind it.
IN_A_SET = re.compile(r"at [\w.-]+: (.*?)(; servers=\[\.\.\.] or only=\{\.\.\.} says where keywords go)?", re.DOTALL)


@cache
def _patterns(kind: type[BaseException]) -> re.Pattern[str]:
    """What an error of this kind may say: any message of the page, in the frames of its constructor."""
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    said = "|".join(map(_opened, sorted({line for block in blocks for line in block.splitlines()})))
    frames = [_opened(frame).replace("@", f"(?:{said})") for frame in FRAMES.get(kind, ["@"])]
    return re.compile("|".join(frames), re.DOTALL)


def _opened(template: str) -> str:
    return ".*".join(map(re.escape, template.split("…"))).replace(r"\@", "@")


@cache
def stands_on_the_page(kind: type[BaseException], text: str) -> bool:
    of_one = IN_A_SET.fullmatch(text)
    return _patterns(kind).fullmatch(of_one[1] if of_one else text) is not None


def is_told(error: BaseException, traceback: TracebackType | None) -> bool:
    """Is it an error of captoken's own words, raised there?"""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or type(error) not in TOLD or getattr(error, "code", None) == "refused":
        return False  # a refusal is in the words of a policy
    file = Path(traceback.tb_frame.f_code.co_filename)
    is_core = file.is_relative_to(LIBRARY) and not EDGES.intersection(file.relative_to(LIBRARY).parts)
    return is_core and not THEIRS.search(str(error))
