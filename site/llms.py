"""What language models read of the site: `llms.txt` lists the pages, `llms-full.txt` has them.

The form is that of llmstxt.org: a title, a sentence in a quotation, and lists of links.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from sources import ROOT, Group, first_sentence, listed, title_of


def write(sources: Path, built: Path, parts: list[Group]) -> None:
    """Write both files into the built site, from the pages as the builder read them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = ["# captoken", "", f"> {project['description']}."]
    whole: list[str] = []
    for part in parts:
        lines += ["", f"## {part.name}", ""]
        for path in dict.fromkeys(listed([part])):
            text = (sources / path).read_text("utf-8")
            said = first_sentence(text)
            link = f"- [{title_of(text)}]({path.removesuffix('.md')}.html)"
            lines.append(f"{link}: {said}" if said else link)
            if path.startswith("docs/"):
                whole.append(text.strip())
    (built / "llms.txt").write_text("\n".join([*lines, ""]), "utf-8")
    (built / "llms-full.txt").write_text("\n\n".join(dict.fromkeys(whole)) + "\n", "utf-8")
