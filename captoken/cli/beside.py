"""Warnings from the files in the folder of a key: the trail and the overlay, where they are there.

    note_unknown    no record of the trail has a name that was revoked, so it may be misspelt
    note_revoked    the overlay already revokes a token that was minted just now

An office keeps its files in one folder, under these names, as the pages of the documentation do.
A warning is all that comes of it: no command fails because such a file cannot be read.
"""

from __future__ import annotations

import os

from captoken._format.encoding import encode_json
from captoken._format.errors import CaptokenError
from captoken._format.spelling import shown
from captoken._language.entries import Entry, SelectorFacts
from captoken._language.overlay import Overlay
from captoken._writing.token import Token
from captoken.cli.output import tell
from captoken.keys.secret import OperatorKey

_TRAIL = "trail.jsonl"
_OVERLAY = "overlay.db"
_OPERATOR = "operator.json"


def note_unknown(key: str, entry: Entry) -> None:
    """Warn of each name of an entry that the trail beside the operator's key does not have.

    A task is known by a task below it. It says nothing where there is no trail.
    """
    select = entry.select
    wanted = {"task": select.task, "agent": select.agent, "subject": select.subject}
    names = {what: name for what, name in wanted.items() if name is not None}
    path = os.path.join(os.path.dirname(key), _TRAIL)
    if not names or not os.path.isfile(path):
        return
    for what in _unknown(path, names):
        tell(
            f"note: no record of {path} has the {what} {shown(names[what])}: is the name right? "
            f"`captoken lift --entry {entry.id}` takes the entry off again"
        )


def _unknown(path: str, names: dict[str, str]) -> list[str]:
    """Which of these names stand in no line of a trail. It checks nothing of the lines."""
    texts = {what: encode_json(name) for what, name in names.items()}
    try:
        with open(path, "rb") as trail:
            for line in trail:
                for what, text in list(texts.items()):
                    below = what == "task" and text[:-1] + b"/" in line
                    if below or text in line:
                        del texts[what]
    except OSError:
        return []
    return list(texts)


def note_revoked(keyring: str, token: Token, now: int) -> None:
    """Warn that the overlay beside the keyring revokes a token that was minted just now."""
    folder = os.path.dirname(keyring)
    store, operator = os.path.join(folder, _OVERLAY), os.path.join(folder, _OPERATOR)
    if not (os.path.isfile(store) and os.path.isfile(operator)):
        return
    try:
        entry = _revoking(_overlay(store, operator), token, now)
    except (CaptokenError, OSError):
        return
    if entry is not None:
        tell(
            f"note: {store} already revokes this token ({shown(entry.why)}), so verifiers that "
            f"read it deny it: choose another name, or `captoken lift --entry {entry.id}`"
        )


def _overlay(store: str, operator: str) -> Overlay | None:
    """The newest overlay in a file, signed by that operator. Raises CaptokenError, OSError."""
    from captoken.stores.sqlite import SQLiteSnapshots  # here, since it needs sqlite3

    snapshots = SQLiteSnapshots(store, readonly=True)
    try:
        data = snapshots.load()
    finally:
        snapshots.close()
    public = OperatorKey.load(operator).public
    return None if data is None else Overlay.open(data, [public])


def _revoking(overlay: Overlay | None, token: Token, now: int) -> Entry | None:
    """An entry that revokes a token without hand-overs, if there is one."""
    if overlay is None:
        return None
    root = token.unverified.root
    on = overlay.on(SelectorFacts(root, (), root.task, (root.agent,)), now)
    return next((entry for entry in on if overlay.link(entry) is None), None)
