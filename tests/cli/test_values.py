"""What stands behind an option: a key or a token that is misplaced is not repeated."""


import pytest

from captoken import Token
from captoken._format.encoding import b64encode
from captoken.keys import HolderKey
from tests.cli.test_cli import HOLDER, NOW, ROOT, captoken


def test_what_is_no_public_key_is_not_repeated():
    """It may be a secret, in a form of its own or in ours."""
    for given in ("hunter2", b64encode(bytes(range(33))), HOLDER.public + "="):
        done = captoken("attenuate", "--key", given, stdin=ROOT.serialize())
        assert done.returncode == 2 and given.encode() not in done.stderr


def test_a_public_key_may_start_with_a_hyphen(tmp_path):
    keys = (HolderKey.from_bytes(bytes([number + 1, *range(31)])) for number in range(255))
    public = next(key.public for key in keys if key.public[0] == "-")
    done = captoken("attenuate", "--key", public, "--now", str(NOW), stdin=ROOT.serialize())
    assert Token.parse(done.stdout.decode().strip()).unverified.key == public


MISPLACED = [
    ["inspect", "{}"],
    ["{}"],
    ["inspect", "--token-file", "{}"],
    ["inspect", "--now", "{}"],
    ["verify", "--{}"],
    ["keygen", "--out", "no/{}"],
    ["mint", "--keyring", "keyring.json", "--subject", "user:jane", "--agent", "{}", "--task", "t", "--unrestricted"],
    ["verify", "--keyring", "keyring.json", "--table", "{}.", "--operation", "select"],
]


@pytest.mark.parametrize("arguments", MISPLACED, ids=" ".join)
def test_a_token_that_is_misplaced_is_not_repeated(arguments, folder):
    text = ROOT.serialize()
    done = captoken(*(part.format(text) for part in arguments), stdin=text, cwd=folder)
    assert done.returncode == 2 and b"cap1_..." in done.stderr
    assert text[5:40].encode() not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--token-only", "--keyring", "{}"],
        ["present", "--audience", "db", "--token-only", "--signer", "{}"],
        ["discharge", "--key", "{}"],
        ["renew", "--store", "overlay.db", "--key", "{}"],
        ["inspect", "--token-file", "{}"],
        ["{}"],
        ["keygen", "public", "{}"],
    ],
    ids=" ".join,
)
def test_nor_is_a_secret_key(arguments, folder):
    """Whoever takes the key itself for what an option wants sees it in no log."""
    secret = b64encode(bytes(range(1, 33)))
    done = captoken(*(part.format(secret) for part in arguments), stdin=ROOT.serialize(), cwd=folder)
    assert done.returncode == 2 and b"..." in done.stderr and secret[:4].encode() not in done.stderr


@pytest.mark.parametrize("kind", ["cap1_", "cap1u_", "cap1d_", "cap1p_"])
def test_nor_are_a_discharge_and_a_proof(kind, folder):
    text = kind + "A" * 40
    for arguments in (
        ["attach", "--discharge", text],
        ["verify", "--keyring", "keyring.json", "--token-only", "--token-file", text],
    ):
        done = captoken(*arguments, stdin=ROOT.serialize(), cwd=folder)
        assert done.returncode == 2 and f"{kind}...".encode() in done.stderr and b"AAAA" not in done.stderr
