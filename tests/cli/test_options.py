"""Every caveat that the library writes has an option."""


import pytest

from captoken._writing.keywords import OF_THE_TOKEN, LinkCaveats, MintCaveats, PresentCaveats
from captoken.cli import app
from tests.cli.test_transcripts import every_command


def test_no_option_takes_a_secret():
    """Whatever is a key, a token, a discharge or a proof comes from a file; the keys that an option takes are public."""
    from captoken.cli.values import ID, PUBLIC

    secret = {
        "--keyring",
        "--key",
        "--signer",
        "--discharge",
        "--token-file",
        "--ticket-file",
        "--need-json",
        "--join",
    }
    # What is no option: a trail, a key's file, addresses and names. None of them is a secret.
    arguments = {
        "audit": ("trail_file", "FILE"),
        "audit tree trail_file": ("trail_file", "FILE..."),
        "audit export trail_files": ("trail_files", "FILE..."),
        "audit log trail_files": ("trail_files", "FILE..."),
        "issue": ("policy", "POLICY.toml"),
        "gateway": ("path", "GATEWAY.toml"),
        "gateway run command": ("command", "[-- COMMAND...]"),
        "gateway stdio name": ("name", "NAME"),
        "gateway stdio command": ("command", "[-- COMMAND...]"),
        "gateway tools command": ("command", "[-- COMMAND...]"),
        "gateway config client": ("client", "[claude|cursor|vscode]"),
        "gateway config name": ("name", "NAME"),
        "gateway config command": ("command", "[-- COMMAND...]"),
        "gateway explain method": ("method", "METHOD"),
        "gateway explain target": ("target", "TARGET"),
        "blast-radius": ("trail_file", "FILE"),
        "end-task": ("task", "TASK"),
        "docs": ("words", "[PAGE | WORD...]"),
        "test": ("scenario_file", "FILE..."),
        "login": ("issuer", "ISSUER"),
        "exchange": ("service", "SERVICE"),
        "completion show": ("shell", "SHELL"),
        "completion install": ("shell", "[SHELL]"),
        "keygen public": ("key_file", "FILE"),
        "keygen retire": ("key_id", "KEY_ID"),
        "keygen audience": ("name", "NAME"),
        "react": ("path", "RULES.toml"),
        "react level level": ("level", "[low|medium|high]"),
        "operate": ("resume", "[resume]"),
        "upgrade": ("paths", "[FILE.db|FOLDER]..."),
    }
    seen = set()
    for name, command in every_command():
        for parameter in command.params:
            option = parameter.opts[0]
            if parameter.param_type_name == "argument":
                group = name.partition(" ")[0] if name.startswith(("audit ", "gateway ", "issue ", "react ")) else name
                expected = arguments.get(f"{name} {option}") or arguments[group]
                assert expected == (option, parameter.metavar), name
            assert "--ticket" not in parameter.opts and ("--token" not in parameter.opts or parameter.type is ID)
            if parameter.type is PUBLIC:
                seen.add((name, option))
            elif option in secret or (name, option) in {("exchange", "--login"), ("exchange", "--actor")}:
                assert parameter.metavar == "FILE", (name, option)
    public = {
        "console": ["--operator"],
        "mint": ["--key"],
        "attenuate": ["--key"],
        "delegate": ["--key"],
        "keygen pairwise": ["--server", "--issuer"],
        "require": ["--discharger"],
        "tickets": ["--discharger"],
        "verify": ["--operator"],
        "explain": ["--operator"],
        "overlay": ["--operator"],
        "renew": ["--trusted"],
        "operate": ["--trusted"],
        "audit verify": ["--server"],
        "audit replay": ["--operator"],
        "blast-radius": ["--operator"],
    }
    assert seen == {(command, option) for command, options in public.items() for option in options}


@pytest.mark.parametrize(
    ("command", "keywords"),
    [
        ("mint", MintCaveats.__annotations__.keys()),
        ("attenuate", LinkCaveats.__annotations__.keys()),
        ("delegate", LinkCaveats.__annotations__.keys()),
        ("present", PresentCaveats.__annotations__.keys()),
        ("exchange", LinkCaveats.__annotations__.keys() - {"audience"}),
        ("discharge", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN),
        ("approve", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN - {"expires_at"}),
        ("narrow", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_caveat_that_the_library_writes_has_an_option(command, keywords):
    """Whoever adds a caveat adds an option: there is no keyword that the command line leaves out."""
    assert keywords <= {parameter.name for parameter in app.commands.commands[command].params}
