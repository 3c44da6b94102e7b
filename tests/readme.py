"""The README as a program, for type checkers: `python -m tests.readme FOLDER` writes it into an empty folder.

Its blocks stand in `readme.py`, and behind them what its prose shows of the objects in them. The examples that it links stand
beside it, and a configuration by which pyright is strict.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# What the prose shows is called last: it ends a task.
CALLS = re.findall(r"`((?:print\()?(?:office|child)\.[^`]*)`", README)
EXAMPLES = re.findall(r"\]\((examples/\w+\.py)\)", README)


def blocks() -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


def write(folder: Path) -> list[str]:
    """The names of the files that were written, all of which are to be checked."""
    (folder / "readme.py").write_text(blocks() + "\n".join(["", *CALLS, ""]), "utf-8")
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}\n', "utf-8")
    for example in EXAMPLES:
        (folder / Path(example).name).write_bytes((ROOT / example).read_bytes())
    return ["readme.py", *(Path(example).name for example in EXAMPLES)]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
