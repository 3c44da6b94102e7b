"""`captoken keygen`: root keys, and the keys of everybody else.

Root keys are made, rotated, retired, and derived for one server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import click
from click.core import ParameterSource

from captoken.cli import files
from captoken.cli.options import json_option, keyring_option
from captoken.cli.output import say, say_json, tell
from captoken.cli.values import PUBLIC
from captoken.keys.keyring import Keyring
from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import SecretKey

Given: TypeAlias = Mapping[str, Any]  # what the options say, by the name that Python has for each


# --- what is done ---------------------------------------------------------------------------------


def _show_public(given: Given) -> None:
    _tell_public(given["public"], files.any_key(given["public"]), given["as_json"])


def _new_key(purpose: str) -> Callable[[Given], None]:
    """A new key of one purpose, in a file of its own."""

    def make(given: Given) -> None:
        made = files.KEYS[purpose].generate()
        files.save_new(made, given["out"])
        _tell_public(given["out"], made, given["as_json"])

    return make


def _derive_issuing(given: Given) -> None:
    own = PairwiseKey.load(given["key"])
    derived = own.issuing(server=given["server"], audience=given["audience"])
    files.save_new(derived, given["out"])
    _tell(given["out"], derived, given["as_json"])


def _derive_serving(given: Given) -> None:
    own = PairwiseKey.load(given["key"])
    derived = own.serving(issuers=given["issuer"], audience=given["audience"])
    files.save_new(derived, given["out"])
    _tell(
        given["out"],
        derived,
        given["as_json"],
        verifies=True,
    )


def _change(given: Given) -> None:
    """Rotate a keyring, retire a key of it, or both."""
    changed = files.keyring(given["keyring"])
    if given["rotate"]:
        changed = changed.rotate()
    if given["retire"] is not None:
        changed = changed.retire(given["retire"])
    changed.save(given["keyring"])
    _tell(given["keyring"], changed, given["as_json"])


def _new_keyring(given: Given) -> None:
    """New root keys; or with --audience those of one server, derived from --keyring."""
    audience = given["audience"]
    if audience is None:
        made = Keyring.generate()
        if given["create"] is not None:
            _make_stores(given["create"], made)
    elif given["create"] is not None:
        # These keys are derived of some that are there, and may have been used.
        raise click.UsageError("--create goes with new keys, and not with derived ones")
    else:
        made = files.keyring(given["keyring"]).for_audience(audience)
    files.save_new(made, given["out"])
    _tell(given["out"], made, given["as_json"])


def _make_stores(path: str, keyring: Keyring) -> None:
    """What knows that nothing of these keys was used before. Raises StoreError if it is there."""
    from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore  # here: it needs sqlite3

    SQLiteReplayStore.create(path, keys=keyring.key_ids).close()
    SQLiteLedger.create(path, keys=keyring.key_ids).close()


# --- which of it ----------------------------------------------------------------------------------


class Way(NamedTuple):
    """One thing to do: the options that say it, what it needs besides, and what it may have."""

    says: tuple[str, ...]
    does: Callable[[Given], None] | None  # None: something is always missing
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


_OUT = frozenset(("--out",))
_PAIRWISE = frozenset(("--pairwise",))
_DERIVING = frozenset(("--key", "--audience", "--out"))
_PARTNER = "--server or --issuer"
_CHANGING = frozenset(("--retire", "--keyring"))
# The first that is said is meant.
_WAYS = (
    Way(("--public",), _show_public),
    Way(("--holder",), _new_key("holder"), needs=_OUT),
    Way(("--discharger",), _new_key("discharger"), needs=_OUT),
    Way(("--operator",), _new_key("operator"), needs=_OUT),
    Way(("--audit-key",), _new_key("audit"), needs=_OUT),
    Way(("--pairwise", "--server"), _derive_issuing, needs=_DERIVING),
    Way(("--pairwise", "--issuer"), _derive_serving, needs=_DERIVING),
    Way(
        ("--pairwise", "--key"),
        None,
        needs=frozenset((_PARTNER,)),
        takes=_DERIVING,
    ),
    Way(
        ("--pairwise", "--audience"),
        None,
        frozenset(("--key", _PARTNER)),
        _DERIVING,
    ),
    Way(("--pairwise",), _new_key("pairwise"), needs=_OUT),
    Way(
        ("--key",),
        None,
        needs=_PAIRWISE,
        takes=_DERIVING,
    ),
    Way(
        ("--server",),
        None,
        needs=_PAIRWISE,
        takes=_DERIVING,
    ),
    Way(
        ("--issuer",),
        None,
        needs=_PAIRWISE,
        takes=_DERIVING,
    ),
    Way(("--rotate",), _change, takes=_CHANGING),
    Way(("--retire",), _change, takes=frozenset(("--keyring",))),
    Way(("--out",), _new_keyring, takes=frozenset(("--audience", "--keyring", "--create"))),
)


def _meant(said: frozenset[str]) -> Callable[[Given], None]:
    """What is to be done. Raises UsageError unless the options say one thing, and all of it."""
    for way in _WAYS:
        if said.issuperset(way.says):
            break
    else:
        raise click.UsageError("name a file with --out, or say --rotate, --retire or --public")

    named = " ".join(way.says)
    strange = sorted(said.difference(way.says, way.needs, way.takes))
    if strange:
        raise click.UsageError(f"{named} does not go with {', '.join(strange)}")
    missing = sorted(way.needs - said)
    if missing or way.does is None:
        raise click.UsageError(f"{named} needs {', '.join(missing)}")
    return way.does


@click.command()
@click.option(
    "--out",
    metavar="FILE",
    help="Write the new keyring or key to FILE, which must not be there yet.",
)
@click.option(
    "--create",
    metavar="FILE.db",
    help="Also make FILE.db, for used proofs and counts of tokens of these keys.",
)
@click.option(
    "--rotate",
    is_flag=True,
    help="Add a fresh key to --keyring and mint with it; the older ones still verify.",
)
@click.option(
    "--retire",
    metavar="KEY_ID",
    help="Take a key out of --keyring: its tokens stop verifying.",
)
@click.option(
    "--audience",
    metavar="NAME",
    help="Derive the keys of one server into --out.",
)
@click.option(
    "--holder",
    is_flag=True,
    help="A key that tokens are bound to.",
)
@click.option(
    "--discharger",
    is_flag=True,
    help="A key of a third party that is asked.",
)
@click.option(
    "--operator",
    is_flag=True,
    help="A key that stops and narrows tokens that are out.",
)
@click.option(
    "--audit-key",
    is_flag=True,
    help="A key that signs the checkpoints of a server's trail.",
)
@click.option(
    "--pairwise",
    is_flag=True,
    help="A key of an issuer or a server that share no secret.",
)
@click.option(
    "--key",
    metavar="FILE",
    help="Derive a keyring from this pairwise key, one's own.",
)
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
@click.option(
    "--public",
    metavar="FILE",
    help="Write the public key of a key that is there.",
)
@keyring_option
@json_option
@click.pass_context
def keygen(ctx: click.Context, /, **given: Any) -> None:
    """Make keys, in a file that its owner alone can read.

    \b
    captoken keygen --out keyring.json --create used.db
    captoken keygen --rotate --keyring keyring.json
    captoken keygen --retire KEY_ID --keyring keyring.json
    captoken keygen --audience sales-db --keyring keyring.json --out sales-db.json

    Those are root keys: whoever has the file can mint anything. A server needs no more than the
    keys of its own audience: with them it can forge for itself and for nobody else. Servers open
    used.db, as `captoken verify --replays`: one that is made later has to refuse what it cannot
    know to be unused.

    \b
    captoken keygen --holder --out agent.json > agent.public
    captoken keygen --discharger --out approvals.json > approvals.public
    captoken keygen --pairwise --out issuer.json > issuer.public
    captoken keygen --operator --out operator.json > operator.public
    captoken keygen --audit-key --out audit.json > audit.public
    captoken keygen --public agent.json

    The public key goes to standard output, and to whoever asks. It is no secret; that it arrives
    unchanged is what others rely on.

    \b
    captoken keygen --pairwise --key issuer.json --server "$(cat server.public)" \\
        --audience sales-db --out minting.json
    captoken keygen --pairwise --key server.json --issuer "$(cat issuer.public)" \\
        --audience sales-db --out verifying.json

    Issuer and server derive the same keyring, and share no secret.
    """
    said = frozenset(
        parameter.opts[0]
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    )
    _meant(said - {"--json"})(given)


# --- what is said of it ---------------------------------------------------------------------------


def _tell_public(path: str, made: SecretKey, as_json: bool) -> None:
    if as_json:
        say_json({"file": path, "purpose": made.purpose, "public": made.public})
        return
    article = "an" if made.purpose[0] in "ao" else "a"
    tell(f"{path}: {article} {made.purpose} key; standard output has its public key")
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
    scope = f", for {made.audience} alone" if made.audience is not None else ""
    if verifies:
        tell(f"{path}: verifies {', '.join(made.key_ids)}{scope}")
        return
    others = [key_id for key_id in made.key_ids if key_id != made.current]
    older = f", still verifies {', '.join(others)}" if others else ""
    tell(f"{path}: mints with {made.current}{older}{scope}")
