"""What went wrong, in one line, as it was typed."""


import re
from pathlib import Path

import pytest

from captoken.cli import app
from tests.cli.test_cli import ROOT, captoken, run


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_one_line(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from captoken.cli import main; main()"
    done = run("-c", code, "inspect", stdin=ROOT.serialize())
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr == b"captoken: the command line needs an extra: pip install 'captoken[cli]'\n"


@pytest.mark.parametrize("command", ["run gateway.toml", "check gateway.toml", "stdio files", "demo"])
@pytest.mark.parametrize("missing", ["h11", "uvicorn"])
def test_a_gateway_without_its_extra_is_one_line(missing, command):
    code = f"import sys; sys.modules[{missing!r}] = None; from captoken.cli import main; main()"
    done = run("-c", code, "gateway", *command.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"captoken: this needs an extra: pip install 'captoken[gateway]'\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mint"], "mint: --subject NAME is missing. The person or service that the task is for: 'user:jane'. `captoken mint --help` has an example"),
        (["end-task"], "end-task: TASK is missing. `captoken end-task --help` has an example"),
        (["mnt"], "there is no command 'mnt': did you mean mint? `captoken --help` lists all"),
        (["audit", "lg"], "audit: there is no command 'lg': did you mean log? `captoken audit --help` lists all"),
        (["verify", "--keyrin"], "verify: there is no option '--keyrin': did you mean --keyring? `captoken verify --help` lists all"),
        (["attenuate", "--expires-in", "1hour"], "attenuate: --expires-in: '1hour' is not a duration: write 90s, 10m, 2h, 1d or 1h30m, or a number of seconds"),
        (["attenuate", "--uses", "some\x1b"], "attenuate: --uses: 'some\\x1b' is no whole number from 0 on"),
        (["attenuate", "--where", "region"], """attenuate: --where: 'region' has no '='. What an attribute must satisfy: 'region={"in":["eu"]}'."""),
        (["verify", "--arguments", "{q:1}"], """verify: --arguments: not JSON: wrong from character 2 on. Its arguments: '{"q":"rates"}'."""),
        (["attenuate", "--depth"], "--depth is without its value"),
        (["inspect", "a.token"], "inspect: unexpected: a.token; a token is read from standard input, or with --token-file FILE"),
        (["discharge", "--key", "k", "a.ticket"], "discharge: unexpected: a.ticket; a ticket is read from standard input, or with --ticket-file FILE"),
        (["audit", "verify", "a", "b"], "audit verify: unexpected: b; `captoken audit verify --help` has an example"),
        (["keygen", "holder", "--out", "keyring.json"], "keygen holder: keyring.json is there already, and keys are not overwritten"),
        (["renew", "--key", "none.json", "--store", "o.db"], "renew: none.json is not there: `captoken keygen operator --out FILE` makes one"),
        (["discharge", "--key", "keyring.json"], "keyring.json holds a keyring, and no discharger key: --key takes the file that `captoken keygen discharger --out FILE` makes"),
        (["attach", "--discharge", "ticket"], "ticket: a discharge starts with cap1u_ here; perhaps this one is bound: only its server takes it"),
        (["audit", "log", "ticket"], "ticket: the last record has no line feed: it was cut off, or is still being written"),
        (["attenuate", "--tables", "a", "--expires-in", "0s"], "--expires-in must be at least one second, not 0"),
        (["attenuate"], "say what to restrict: by --tables, --expires-in or another option"),
        (["completion", "install", "tcsh"], "completion install: SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_as_it_was_typed(arguments, told, folder):
    """The file, the option and what came; what was meant to come; and what to write."""
    done = captoken(*arguments, stdin=ROOT.serialize(), cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"captoken: {told}\n")


def test_what_is_said_anew_is_what_the_library_says():
    """A sentence that the library says in other words by now would come through with its keywords."""
    from captoken.cli.problems import _SENTENCES

    package = Path(app.__file__).parents[1]
    sources = [path.read_text("utf-8") for path in package.rglob("*.py") if "cli" not in path.relative_to(package).parts]
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(sources))  # what stands on several lines
    for theirs, _ in _SENTENCES:
        assert re.sub("^(tables|operations) ", "", theirs) in said, theirs
