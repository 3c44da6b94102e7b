"""Commands that write a token: it goes to standard output, and nothing else does."""


import pytest

from captoken import Token
from tests.cli.test_cli import DISCHARGER, HOLDER, NOW, ROOT, captoken


@pytest.mark.parametrize(
    "arguments",
    [
        ["attenuate", "--operations", "select"],
        ["attenuate", "--key", HOLDER.public],
        ["delegate", "--to", "b"],
        ["require", "--discharger", DISCHARGER.public, "--need", "a=1"],
        ["present", "--audience", "db"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_only_the_token_goes_to_standard_output(arguments):
    done = captoken(*arguments, "--now", str(NOW), stdin=ROOT.serialize())
    assert done.returncode == 0 and done.stderr == b""
    Token.parse(done.stdout.decode().removesuffix("\n"))
