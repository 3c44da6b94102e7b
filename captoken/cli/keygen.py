"""`captoken keygen`: root keys, and the keys of everybody else. One kind of key is one command.

keyring, rotate, retire, audience        root keys, and those of one server
holder, approver, discharger,
operator, audit                          a key with a public half, in a file of its own
pairwise                                 the same; and root keys that two such keys derive
public                                   the public half of a key that is there
"""

from __future__ import annotations

import click

from captoken.cli import files
from captoken.cli.groups import InOrder
from captoken.cli.options import json_option, keyring_option
from captoken.cli.output import answer, say_json, tell
from captoken.cli.values import FILE, PUBLIC
from captoken.keys.keyring import Keyring
from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import SecretKey

# How the kinds were said before each was a command; of several, the first here is meant.
_FLAGS = {
    "--public": "public",
    "--holder": "holder",
    "--discharger": "discharger",
    "--operator": "operator",
    "--audit-key": "audit",
    "--pairwise": "pairwise",
    "--rotate": "rotate",
    "--retire": "retire",
    "--audience": "audience",
}


class _Kinds(InOrder):
    """The kinds of keys. Without one, a keyring is meant: `captoken keygen --out keyring.json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_kind(args))


def _with_kind(arguments: list[str]) -> list[str]:
    """The arguments with the kind in the first place.

    --out keyring.json               keyring --out keyring.json
    --holder --out agent.json        holder --out agent.json
    --retire k-1 --keyring a.json    retire k-1 --keyring a.json
    """
    if not arguments or arguments[0] in ("-h", "--help") or not arguments[0].startswith("-"):
        return arguments

    for flag, kind in _FLAGS.items():
        for place, argument in enumerate(arguments):
            name, equals, value = argument.partition("=")
            if name == flag:
                kept = [value] if equals else []
                return [kind, *arguments[:place], *kept, *arguments[place + 1 :]]
    return ["keyring", *arguments]


@click.group(cls=_Kinds)
def keygen() -> None:
    """Make keys, each in a file that only its owner can read.

    \b
    captoken keygen keyring --out keyring.json
    captoken keygen operator --out operator.json > operator.public

    Without a kind, `captoken keygen --out keyring.json` makes a keyring. No file is overwritten.

    If a key has a public half, it is written to standard output. Give it to whoever asks: it is not
    secret. But make sure that it arrives unchanged, because others rely on it.
    """


_out = click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    required=True,
    help="Write the key to FILE, which must not exist yet.",
)


# --- root keys ------------------------------------------------------------------------------------


@keygen.command()
@_out
@click.option(
    "--create",
    type=FILE,
    metavar="FILE.db",
    help="Also create FILE.db, for used proofs and for counting tokens of these keys.",
)
@json_option
def keyring(out: str, create: str | None, as_json: bool) -> None:
    """Make root keys, with which any token can be minted.

    \b
    captoken keygen keyring --out keyring.json --create used.db

    Servers use used.db, for example with `captoken verify --replays`. Create it together with the
    keys: a file that is created later must refuse whatever may have been used before. Give a server
    only the keys for its own audience: see `captoken keygen audience`.
    """
    made = Keyring.generate()
    if create is not None:
        with files.about(create):
            _make_stores(create, made)
    files.save_new(made, out)
    _tell(out, made, as_json)


def _make_stores(path: str, made: Keyring) -> None:
    """What knows that nothing of these keys was used before. Raises StoreError if it is there."""
    from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore  # here: it needs sqlite3

    SQLiteReplayStore.create(path, keys=made.key_ids).close()
    SQLiteLedger.create(path, keys=made.key_ids).close()


@keygen.command()
@keyring_option
@json_option
def rotate(keyring: str | None, as_json: bool) -> None:
    """Add a new root key, and mint with it from now on.

    Tokens of the older keys stay valid until you retire these keys. Servers with keys of their own
    need them before you mint with the new key: `captoken docs rotation` has the order.

    \b
    captoken keygen rotate --keyring keyring.json
    """
    path = files.named_keyring(keyring)
    _change(path, files.keyring(path).rotate(), as_json)


@keygen.command()
@click.argument("key_id", metavar="KEY_ID")
@keyring_option
@json_option
def retire(key_id: str, keyring: str | None, as_json: bool) -> None:
    """Remove a root key. Its tokens stop working.

    \b
    captoken keygen retire k-0c1ba7a3bd2e --keyring keyring.json
    """
    path = files.named_keyring(keyring)
    _change(path, files.keyring(path).retire(key_id), as_json)


def _change(path: str, made: Keyring, as_json: bool) -> None:
    """Write a keyring in the place of the one that it was made of."""
    made.save(path)
    _tell(path, made, as_json)


@keygen.command()
@click.argument("name", metavar="NAME")
@keyring_option
@_out
@json_option
def audience(name: str, keyring: str | None, out: str, as_json: bool) -> None:
    """Derive the root keys of one server.

    With them, the server NAME can forge tokens for itself, and for no other server.

    \b
    captoken keygen audience sales-db --keyring keyring.json --out sales-db.json
    """
    made = files.keyring(keyring).for_audience(name)
    files.save_new(made, out)
    mints = f': the issuer mints for it by Issuer(keyring.for_audience("{name}"))'
    _tell(out, made, as_json, more=mints)


# --- keys with a public half ----------------------------------------------------------------------


@keygen.command()
@_out
@json_option
def holder(out: str, as_json: bool) -> None:
    """Make a key that tokens can be bound to.

    \b
    captoken keygen holder --out agent.json > agent.public
    """
    _make("holder", out, as_json)


@keygen.command()
@_out
@json_option
def approver(out: str, as_json: bool) -> None:
    """Make a key for a person who says yes to single calls.

    \b
    captoken keygen approver --out jane.json > jane.public
    """
    _make("approver", out, as_json)


@keygen.command()
@_out
@json_option
def discharger(out: str, as_json: bool) -> None:
    """Make a key for a third party that tokens ask.

    \b
    captoken keygen discharger --out approvals.json > approvals.public
    """
    _make("discharger", out, as_json)


@keygen.command()
@_out
@json_option
def operator(out: str, as_json: bool) -> None:
    """Make a key that revokes and restricts issued tokens.

    \b
    captoken keygen operator --out operator.json > operator.public
    """
    _make("operator", out, as_json)


@keygen.command()
@_out
@json_option
def audit(out: str, as_json: bool) -> None:
    """Make a key that signs the checkpoints of a trail.

    \b
    captoken keygen audit --out audit.json > audit.public
    """
    _make("audit", out, as_json)


@keygen.command()
@_out
@click.option(
    "--key",
    type=FILE,
    metavar="FILE",
    help="Derive root keys from this pairwise key of your own.",
)
@click.option(
    "--server",
    type=PUBLIC,
    metavar="PUBLIC",
    help="For an issuer: the server's public key.",
)
@click.option(
    "--issuer",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="For a server: the public key of an issuer to trust. Repeatable.",
)
@click.option(
    "--audience",
    metavar="NAME",
    help="The server's name, for which to derive the keys.",
)
@json_option
def pairwise(
    out: str,
    key: str | None,
    server: str | None,
    issuer: tuple[str, ...],
    audience: str | None,
    as_json: bool,
) -> None:
    """Make a pairwise key: issuer and server then share no secret.

    \b
    captoken keygen pairwise --out issuer.json > issuer.public
    captoken keygen pairwise --out server.json > server.public

    With --key, derive root keys. Issuer and server derive the same ones, each from its own key and
    the other's public key:

    \b
    captoken keygen pairwise --key issuer.json --server "$(cat server.public)" \\
        --audience sales-db --out minting.json
    captoken keygen pairwise --key server.json --issuer "$(cat issuer.public)" \\
        --audience sales-db --out verifying.json
    """
    if key is None and audience is None and server is None and not issuer:
        return _make("pairwise", out, as_json)
    if server is not None and issuer:
        raise click.UsageError("an issuer says --server, and a server --issuer: not both")
    if key is None or audience is None or (server is None and not issuer):
        raise click.UsageError("to derive takes --key, --audience, and --server or --issuer")

    own = files.key(PairwiseKey, key)
    if server is not None:
        made = own.issuing(server=server, audience=audience)
    else:
        made = own.serving(issuers=issuer, audience=audience)
    files.save_new(made, out)
    return _tell(out, made, as_json, verifies=server is None)


@keygen.command()
@click.argument("key_file", type=FILE, metavar="FILE")
@json_option
def public(key_file: str, as_json: bool) -> None:
    """Show the public key of an existing key file.

    \b
    captoken keygen public agent.json
    """
    _tell_public(key_file, files.any_key(key_file), as_json)


def _make(purpose: str, out: str, as_json: bool) -> None:
    """A new key of one purpose, in a file of its own."""
    made = files.KEYS[purpose].generate()
    files.save_new(made, out)
    _tell_public(out, made, as_json)


# --- what is said of it ---------------------------------------------------------------------------


def _tell_public(path: str, made: SecretKey, as_json: bool) -> None:
    if not as_json:
        tell(f"{path}: {files.a_key(made.purpose)}; standard output has its public key")
    data = {"file": path, "purpose": made.purpose, "public": made.public}
    answer(as_json, data, made.public)


def _tell(
    path: str,
    made: Keyring,
    as_json: bool,
    *,
    verifies: bool = False,
    more: str = "",
) -> None:
    if as_json:
        data = {
            "file": path,
            "current": made.current,
            "key_ids": list(made.key_ids),
            "audience": made.audience,
        }
        return say_json(data)
    scope = more if made.audience is None else f", for {made.audience} alone{more}"
    if verifies:
        return tell(f"{path}: verifies {', '.join(made.key_ids)}{scope}")
    others = [key_id for key_id in made.key_ids if key_id != made.current]
    older = f", still verifies {', '.join(others)}" if others else ""
    return tell(f"{path}: mints with {made.current}{older}{scope}")
