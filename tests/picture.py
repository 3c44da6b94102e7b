"""The picture in the README: `python -m tests.picture` draws docs/try.svg anew.

It is what `captoken try` writes to a terminal. No font is fetched: it is drawn with what the reader's machine has.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from html import unescape
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from tests.program import CAPTOKEN

PICTURE = Path(__file__).parent.parent / "docs/try.svg"
COMMAND = ("try", "--auto")
COLUMNS = 76  # more would be small print at 600 pixels
FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def written(**more: str) -> list[str]:
    """The lines that the picture shows."""
    env = {"PATH": os.defpath, "PYTHONUTF8": "1", "COLUMNS": str(COLUMNS), **more}
    ran = subprocess.run([CAPTOKEN, *COMMAND], capture_output=True, check=True, env=env, encoding="utf-8")
    return ran.stdout.splitlines()[1:]


def drawn() -> str:
    """The picture, as an SVG."""
    colored = "\n".join(written(FORCE_COLOR="1", TERM="xterm-256color"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(Text.from_ansi(colored))
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    own_font = re.sub(r"font-family: [^;]*;", f"font-family: {FONT};", without_fonts)
    return console.export_svg(title="captoken try", code_format=own_font, theme=DIMMED_MONOKAI, unique_id="try")


def told(svg: str) -> list[str]:
    """What stands in a picture, line by line, without its blanks."""
    lines: dict[float, str] = {}
    for attributes, text in re.findall(r'<text class="try-r\d+"([^>]*)>([^<]*)</text>', svg):
        height = float(re.search(r' y="([\d.]+)"', attributes)[1])
        lines[height] = lines.get(height, "") + "".join(unescape(text).split())
    return [line for _, line in sorted(lines.items()) if line]


if __name__ == "__main__":
    PICTURE.write_text(drawn(), "utf-8")
