"""`captoken console`: what agents are doing now, on a page of this machine."""

from __future__ import annotations

import glob
import os
import socket
import sqlite3
import tempfile
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import click

from captoken._format.errors import StoreError
from captoken.cli import files, serving
from captoken.cli.operate import MAKES_STORE, operators
from captoken.cli.options import json_option
from captoken.cli.output import say, say_json, tell
from captoken.cli.values import FILE, PUBLIC
from captoken.keys.secret import OperatorKey

if TYPE_CHECKING:
    import uvicorn

    from captoken.adapters._http.exchange import ASGIApp
    from captoken.cli.console.app import Console

_DAY = 86_400
_ALERTS = 10  # that are shown


@click.command()
@click.option(
    "--trail",
    "trails",
    type=FILE,
    metavar="FILE",
    multiple=True,
    required=True,
    help="A server's trail, a folder of trails, or a pattern in quotes. Repeatable.",
)
@click.option(
    "--overlay",
    type=FILE,
    metavar="FILE.db",
    help="The SQLite file of the overlay.",
)
@click.option(
    "--key", type=FILE, metavar="FILE", help="The operator's key, to make changes. Needs --overlay."
)
@click.option(
    "--operator",
    "publics",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="The public key of an operator to trust. Repeatable.",
)
@click.option(
    "--by",
    metavar="NAME",
    default="operator",
    show_default=True,
    help="Who makes changes, for the record.",
)
@click.option(
    "--ledger", type=FILE, metavar="FILE.db", help="The SQLite file in which a server counts."
)
@click.option(
    "--reactions",
    type=FILE,
    metavar="FILE",
    help="The file in which `captoken react` keeps its state, to show its alerts.",
)
@click.option(
    "--index",
    "index_file",
    type=FILE,
    metavar="FILE",
    help="A file that keeps what was read of the trails, for the next start.",
)
@click.option(
    "--port",
    type=int,
    default=0,
    metavar="NUMBER",
    help="The port. The default is any free one.",
)
@click.option("--open/--no-open", "opens", default=True, help="Whether to open a browser.")
@json_option
def console(
    trails: tuple[str, ...],
    overlay: str | None,
    key: str | None,
    publics: tuple[str, ...],
    by: str,
    ledger: str | None,
    reactions: str | None,
    index_file: str | None,
    port: int,
    opens: bool,
    as_json: bool,
) -> None:
    """Show what agents are doing, and act on it, in a browser.

    It follows the trails, the overlay and the ledger, and accepts connections only from this
    machine. The address that it prints works once. With an operator's key you can restrict tokens,
    end tasks and revoke there. The key stays in this process. It runs until Ctrl-C. With --json, it
    writes one object when it starts.

    \b
    captoken console --trail trail.jsonl --overlay overlay.db --key operator.json
    """
    must_have_server("console")
    from captoken.cli.console.acts import Control
    from captoken.cli.console.app import Console
    from captoken.cli.console.index import Index
    from captoken.stores.sqlite import SQLiteLedger, SQLiteSnapshots

    _check(trails, overlay, key, publics, [ledger, reactions])
    with ExitStack() as stack:
        if index_file is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="captoken-console-"))
            index_file = str(Path(folder, "index.db"))
        index = Index(index_file, trails)
        stack.callback(index.close)

        operator = None
        trusted: list[Any] = list(publics)
        if key is not None and overlay is not None:
            operator = stack.enter_context(operators(key, overlay, None, by=by)).newest
            trusted.append(files.key(OperatorKey, key).public)
        store = None if overlay is None else SQLiteSnapshots(overlay, readonly=True)
        counted = None if ledger is None else SQLiteLedger(ledger)

        def spent(bucket: bytes, unit: str) -> int | None:
            try:
                return None if counted is None else counted.spent(bucket, unit)
            except StoreError:
                return None

        listening, address = listen(port)
        app = Console(
            index,
            Control(store, operator, trusted, by, time),
            address=address,
            spent=spent,
            alerts=lambda now: [] if reactions is None else _alerts(reactions, now),
        )
        announce(app, stack, opens=opens, as_json=as_json)
        tell("that address opens the console once: Ctrl-C ends it")
        serving.run(server_of(app), [listening])


def _alerts(path: str, now: int) -> list[dict[str, Any]]:
    """What reactions have told of in the last day, as `needs` has it."""
    from captoken.cli.console.needs import need
    from captoken.cli.reactions.acting import line_of
    from captoken.cli.reactions.watching import recent_alerts

    try:
        found = recent_alerts(path, now - _DAY, _ALERTS)
    except StoreError as error:
        return [need("alert", f"The alerts of reactions cannot be read: {error}")]
    except sqlite3.Error:
        return [need("alert", f"The alerts of reactions cannot be read from {path}")]
    return [
        need(
            "alert",
            line_of(one.cause),
            more="It is to be acted on, and was not yet." if one.state == "due" else "",
            at=one.cause.at,
            task=one.cause.task or None,
        )
        for one in found
    ]


# --- what the demo does, too ----------------------------------------------------------------------


def must_have_server(name: str) -> None:
    """Raise ClickException where the extra is not installed that `name` needs."""
    if find_spec("uvicorn") is None:
        raise click.ClickException(f"{name} needs uvicorn: pip install uvicorn")


def listen(port: int) -> tuple[socket.socket, str]:
    """A socket of this machine alone, and its address. 0 is any port that is free."""
    listening = socket.create_server(("127.0.0.1", port))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening, f"127.0.0.1:{listening.getsockname()[1]}"


def announce(app: Console, stack: ExitStack, *, opens: bool, as_json: bool = False) -> None:
    """Say where it is opened, and open it where there is a screen, once it is served.

    All users of a machine can read what a command is started with. So the browser is given a file
    that leads to the address, and that no other user can read. It is there until `stack` ends.
    """
    from captoken.cli.console.app import leading_to

    if as_json:
        say_json({"address": app.first_address}, indent=None)
    else:
        say(app.first_address)
    if not opens or not os.environ.get("DISPLAY"):
        return
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="captoken-console-"))
    page = Path(folder, "open.html")
    page.touch(0o600)
    page.write_bytes(leading_to(app.first_address))

    def open_it() -> None:
        app.served.wait()
        webbrowser.open(page.as_uri())

    # Beside the server: some browsers hold whoever opens them.
    threading.Thread(target=open_it, daemon=True).start()


def server_of(app: ASGIApp) -> uvicorn.Server:
    """What serves it."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def _check(
    trails: tuple[str, ...],
    overlay: str | None,
    key: str | None,
    publics: tuple[str, ...],
    kept: Sequence[str | None],
) -> None:
    """Raise UsageError for what does not go together, or is not there."""
    if (key is not None or publics) and overlay is None:
        raise click.UsageError("--key and --operator go with --overlay")
    if overlay is not None and key is None and not publics:
        raise click.UsageError("--overlay needs --key, to act, or --operator, to look")

    for path in (*trails, *(path for path in kept if path is not None)):
        if not os.path.lexists(path) and not glob.has_magic(path):
            raise click.UsageError(f"{path} is not there: the server that keeps it makes it")
    if overlay is not None:
        files.must_be_there(overlay, MAKES_STORE)
