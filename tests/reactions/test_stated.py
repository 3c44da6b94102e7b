"""A file of rules is read whole, or refused with its line: nobody finds out at night that a rule was none."""

from __future__ import annotations

from pathlib import Path

import pytest

from captoken.cli.reactions.stated import read

GOOD = '''version = 1

[react]
most = 5
stalls = "10m"
alert = ["page"]

[alert.page]
command = ["/bin/cat"]

[alert.soc]
webhook = "https://soc.example/hook"
secret = "env:SOC_SECRET"

[rule.probing]
when = { codes = ["table", "tool"] }
count = 5
within = "1m"
by = "link"
then = "revoke"
for = "1h"
why = "five refusals of rights in a minute"
alert = ["soc"]

[rule.flood]
when = { codes = ["allowed"], tables = ["sales.*"] }
count = { usual = 10 }
by = "task"
then = { operations = ["select"] }
hours = "22:30-06"
zone = "Europe/Berlin"
level = "medium"
why = "a flood"
'''


def write(folder: Path, text: str) -> str:
    path = folder / "rules.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_file_says_rules_and_whom_to_tell(tmp_path: Path) -> None:
    found = read(write(tmp_path, GOOD))
    probing, flood = found.rules
    assert (probing.count, probing.within, probing.lasts, probing.then) == (5, 60, 3600, "revoke")
    assert (flood.usual, flood.then, dict(flood.caveats), flood.lasts) == (10, "narrow", {"operations": ["select"]}, None)
    assert (found.most, found.stalls, found.alert, sorted(found.told)) == (5, 600, ("page",), ["page", "soc"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[react]", "[recat]", "line 3: it has an unknown key 'recat': did you mean react?"),
        ("most = 5", "most = 0", "line 4: react.most must be from 1 to 1000 acts an hour"),
        ("most = 5", 'most = "5"', "line 4: react.most must be an int, not str"),
        ('stalls = "10m"', 'stalls = "ten"', "line 5: react.stalls: 'ten' is not a duration"),
        ('alert = ["page"]', 'alert = ["pager"]', "line 6: react.alert: there is no [alert.pager]"),
        ('command = ["/bin/cat"]', "command = []", "line 9: alert.page.command is empty"),
        ('command = ["/bin/cat"]', 'opentelemetry = false', "line 8: alert.page must have one of command, webhook and opentelemetry"),
        ("https://soc", "http://soc", "line 12: alert.soc.webhook: 'http://soc.example/hook' is no https address"),
        ('secret = "env:SOC_SECRET"', "", "line 12: alert.soc: webhook and secret go together"),
        ("env:SOC_SECRET", "hunter2", "line 13: alert.soc.secret must be env:NAME or file:PATH"),
        ('"table", "tool"', '"table", "tol"', "line 16: rule.probing.when.codes: 'tol' is no code of a decision"),
        ('{ codes = ["table", "tool"] }', "{}", "line 16: rule.probing.when is empty"),
        ('codes = ["table", "tool"]', 'code = ["table"]', "line 16: rule.probing.when has an unknown key 'code': did you mean codes?"),
        ('tables = ["sales.*"]', 'tables = ["sales*"]', "line 26: rule.flood.when: pattern"),
        ('codes = ["table", "tool"]', 'mark = "a b"', "line 16: rule.probing.when.mark: mark"),
        ("count = 5", "count = 0", "line 17: rule.probing.count must be from 1 to 1000"),
        ("{ usual = 10 }", "{ usual = 0 }", "line 27: rule.flood.count must be from 1 to 1000"),
        ('within = "1m"', 'within = "2d"', "line 18: rule.probing.within must be from 1s to 1d"),
        ('by = "link"', 'by = "name"', "line 19: rule.probing.by must be one of agent, link, subject, task, not 'name'"),
        ('then = "revoke"', 'then = "stop"', 'line 20: rule.probing.then must be "revoke", "end", "alert", or caveats'),
        ('then = "revoke"', 'then = "end"', "line 20: rule.probing.then: \"end\" ends a task"),
        ('then = "revoke"', "then = {}", "line 20: rule.probing.then is empty"),
        ('then = "revoke"', "then = { uses = 5 }", "line 20: rule.probing.then: uses is not a caveat of an overlay"),
        ('then = "revoke"', 'then = { tabels = ["a"] }', "line 20: rule.probing.then:"),
        ('for = "1h"', "for = 0", "line 21: rule.probing.for must be at least 1s"),
        ('why = "a flood"', 'why = " "', "line 33: rule.flood.why is empty"),
        ('alert = ["soc"]', 'alert = ["sok"]', "line 23: rule.probing.alert: there is no [alert.sok]"),
        ('hours = "22:30-06"', 'hours = "at night"', "line 30: rule.flood.hours must be like"),
        ('hours = "22:30-06"', 'hours = "22-25"', "line 30: rule.flood.hours are no hours of a day"),
        ('hours = "22:30-06"', 'hours = "22:75-06"', "line 30: rule.flood.hours are no hours of a day"),
        ('hours = "22:30-06"\n', "", "rule.flood.zone goes with hours"),
        ("Europe/Berlin", "Europe/Bonn", "line 31: rule.flood.zone: 'Europe/Bonn' is no time zone here"),
        ('level = "medium"', 'level = "red"', "line 32: rule.flood.level must be one of low, medium, high"),
        ("[rule.flood]", '[rule."a flood"]', "rule.a flood: a rule has a name of 1 to 64 letters"),
        ("version = 1", "version = 2", "line 1: version must be one of 1, not 2"),
        ("version = 1", "version = ", "this is not TOML: look at line 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, GOOD)
    assert read(path)
    assert old in GOOD
    with pytest.raises(ValueError) as error:
        read(write(tmp_path, GOOD.replace(old, new)))
    text = str(error.value)
    assert said in text and text.startswith(path), text


def test_a_file_without_a_rule_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the file has no rule"):
        read(write(tmp_path, "version = 1\n[rule]\n"))
