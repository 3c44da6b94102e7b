"""The rules of docs/reactions.md do on a day of a warehouse what the page says that they do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from captoken.cli.reactions.command import react

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reactions.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(toml|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RULES = [text for kind, text in BLOCKS if kind == "toml"]
REPLAYS = [(BLOCKS[at][1], text) for at, text in ((at - 1, text) for at, (kind, text) in enumerate(BLOCKS) if kind == "text")]


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("day") / "trail.jsonl"
    made = subprocess.run([sys.executable, ROOT / "tests/cli/keep_day.py"], capture_output=True, check=True)
    path.write_bytes(made.stdout)
    return path


def test_there_are_three_rules_with_a_replay_each() -> None:
    assert len(REPLAYS) == 3 and len(RULES) == 4


@pytest.mark.parametrize("text", RULES)
def test_each_rule_of_the_page_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text, "utf-8")
    found = CliRunner().invoke(react, ["check", str(tmp_path / "rules.toml")])
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(("rules", "said"), REPLAYS)
def test_each_replay_is_what_the_command_says(rules: str, said: str, trail: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(rules, "utf-8")
    found = CliRunner().invoke(react, ["run", str(tmp_path / "rules.toml"), "--trail", str(trail), "--replay"])
    assert found.exit_code == 0 and found.output == said
