"""`captoken keygen`: root keys (made, rotated, retired, derived for one server), and the keys of everybody else."""

from __future__ import annotations

import click
from click.core import ParameterSource

from captoken.cli import files
from captoken.cli.options import PUBLIC, json_option, keyring_option
from captoken.cli.output import say, say_json, tell
from captoken.keys.keyring import Keyring
from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import SecretKey

_DERIVING = {"--key", "--audience", "--out"}
# What can be done: the options that say it, what else it needs, and what it may have. The first that is said is meant.
_WAYS: tuple[tuple[tuple[str, ...], set[str], set[str]], ...] = (
    (("--public",), set(), set()),
    (("--holder",), {"--out"}, set()),
    (("--discharger",), {"--out"}, set()),
    (("--operator",), {"--out"}, set()),
    (("--audit-key",), {"--out"}, set()),
    (("--pairwise", "--server"), _DERIVING, set()),
    (("--pairwise", "--issuer"), _DERIVING, set()),
    (("--pairwise", "--key"), {"--server or --issuer"}, _DERIVING),
    (("--pairwise", "--audience"), {"--key", "--server or --issuer"}, _DERIVING),
    (("--pairwise",), {"--out"}, set()),
    (("--key",), {"--pairwise"}, _DERIVING),
    (("--server",), {"--pairwise"}, _DERIVING),
    (("--issuer",), {"--pairwise"}, _DERIVING),
    (("--rotate",), set(), {"--retire", "--keyring"}),
    (("--retire",), set(), {"--keyring"}),
    (("--out",), set(), {"--audience", "--keyring"}),
)


def _check(given: set[str]) -> None:
    """Raise UsageError unless the options say one thing to do, and all of it."""
    for does, needs, takes in _WAYS:
        if given.issuperset(does):
            if strange := sorted(given - {*does} - needs - takes):
                raise click.UsageError(f"{' '.join(does)} does not go with {', '.join(strange)}")
            if missing := sorted(needs - given):
                raise click.UsageError(f"{' '.join(does)} needs {', '.join(missing)}")
            return
    raise click.UsageError("name a file with --out, or say --rotate, --retire or --public")


@click.command()
@click.option(
    "--out",
    metavar="FILE",
    help="Write the new keyring or key to FILE, which must not be there yet.",
)
@click.option(
    "--rotate",
    is_flag=True,
    help="Add a fresh key to --keyring and mint with it; the older ones still verify.",
)
@click.option(
    "--retire", metavar="KEY_ID", help="Take a key out of --keyring: its tokens stop verifying."
)
@click.option("--audience", metavar="NAME", help="Derive the keys of one server into --out.")
@click.option("--holder", is_flag=True, help="A key that tokens are bound to.")
@click.option("--discharger", is_flag=True, help="A key of a third party that is asked.")
@click.option("--operator", is_flag=True, help="A key that stops and narrows tokens that are out.")
@click.option(
    "--audit-key", is_flag=True, help="A key that signs the checkpoints of a server's trail."
)
@click.option(
    "--pairwise", is_flag=True, help="A key of an issuer or a server that share no secret."
)
@click.option("--key", metavar="FILE", help="Derive a keyring from this pairwise key, one's own.")
@click.option(
    "--server",
    type=PUBLIC,
    metavar="PUBLIC",
    help="An issuer derives: for this server's public key.",
)
@click.option(
    "--issuer",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="A server derives: whom it trusts. Repeatable.",
)
@click.option("--public", metavar="FILE", help="Write the public key of a key that is there.")
@keyring_option
@json_option
@click.pass_context
def keygen(
    ctx: click.Context, out: str | None, rotate: bool, retire: str | None, audience: str | None, holder: bool,
    discharger: bool, operator: bool, audit_key: bool, pairwise: bool, key: str | None, server: str | None,
    issuer: tuple[str, ...], public: str | None, keyring: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make keys, in a file that its owner alone can read.

    \b
    captoken keygen --out keyring.json
    captoken keygen --rotate --keyring keyring.json
    captoken keygen --retire KEY_ID --keyring keyring.json
    captoken keygen --audience sales-db --keyring keyring.json --out sales-db.json

    Those are root keys: whoever has the file can mint anything. A server needs no more than the keys of its own audience:
    with them it can forge for itself and for nobody else.

    \b
    captoken keygen --holder --out agent.json > agent.public
    captoken keygen --discharger --out approvals.json > approvals.public
    captoken keygen --pairwise --out issuer.json > issuer.public
    captoken keygen --operator --out operator.json > operator.public
    captoken keygen --audit-key --out audit.json > audit.public
    captoken keygen --public agent.json

    The public key goes to standard output, and to whoever asks. It is no secret; that it arrives unchanged is what
    others rely on.

    \b
    captoken keygen --pairwise --key issuer.json --server "$(cat server.public)" \\
        --audience sales-db --out minting.json
    captoken keygen --pairwise --key server.json --issuer "$(cat issuer.public)" \\
        --audience sales-db --out verifying.json

    Issuer and server derive the same keyring, and share no secret.
    """
    given = {
        parameter.opts[0]
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    }
    _check(given - {"--json"})
    target, own_audience = out or "", audience or ""  # there where they are needed, as was checked
    if public is not None:
        _tell_public(public, files.any_key(public), as_json)
    elif rotate or retire is not None:
        changed = files.keyring(keyring)
        changed = changed.rotate() if rotate else changed
        changed = changed.retire(retire) if retire is not None else changed
        changed.save(keyring or "")
        _tell(keyring or "", changed, as_json)
    elif key is not None:
        own = PairwiseKey.load(key)
        if server is not None:
            derived = own.issuing(server=server, audience=own_audience)
        else:
            derived = own.serving(issuers=issuer, audience=own_audience)
        files.save_new(derived, target)
        _tell(target, derived, as_json, verifies=server is None)
    elif holder or discharger or operator or audit_key or pairwise:
        kinds = {
            "holder": holder,
            "discharger": discharger,
            "operator": operator,
            "audit": audit_key,
            "pairwise": pairwise,
        }
        made = files.KEYS[next(kind for kind, wanted in kinds.items() if wanted)].generate()
        files.save_new(made, target)
        _tell_public(target, made, as_json)
    else:
        fresh = (
            Keyring.generate()
            if audience is None
            else files.keyring(keyring).for_audience(audience)
        )
        files.save_new(fresh, target)
        _tell(target, fresh, as_json)


def _tell_public(path: str, made: SecretKey, as_json: bool) -> None:
    if as_json:
        say_json({"file": path, "purpose": made.purpose, "public": made.public})
    else:
        kind = f"{'an' if made.purpose[0] in 'ao' else 'a'} {made.purpose} key"
        tell(f"{path}: {kind}; standard output has its public key")
        say(made.public)


def _tell(path: str, made: Keyring, as_json: bool, *, verifies: bool = False) -> None:
    if as_json:
        say_json(
            {
                "file": path,
                "current": made.current,
                "key_ids": list(made.key_ids),
                "audience": made.audience,
            }
        )
        return
    others = ", ".join(key_id for key_id in made.key_ids if key_id != made.current)
    scope = f", for {made.audience} alone" if made.audience is not None else ""
    if verifies:
        tell(f"{path}: verifies {', '.join(made.key_ids)}{scope}")
    else:
        tell(
            f"{path}: mints with {made.current}{f', still verifies {others}' if others else ''}{scope}"
        )
