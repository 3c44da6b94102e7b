"""Everything that one machine needs before there are servers, in one folder (docs/local.md).

    office = Office.open("state/")
    token = office.mint(subject="user:jane", agent="clerk", task="invoices", tools={"pay": {}})
    grant = office.verifier.authorize(token, Access(tool="pay", arguments={}))
    office.end_task("invoices")

An Office only creates and connects parts that you could also create yourself:

    keyring.json                       mints and verifies: Keyring
    operator.json, operator.json.seen  signs the overlay; the last snapshot that was seen: Operator
    overlay.db                         the overlay: SQLiteSnapshots
    office.db                          used proofs and counts: captoken.stores.sqlite
    audit.json, trail.jsonl            signs the trail; the trail: AuditTrail, TrailFile
    trail.jsonl.seen                   the last record that was seen in the trail
    office.json                        the list of files that must be there
    lock, .gitignore                   allow one process at a time; keep the files out of git

The rules of this file:

- All files are created together, once. If one is missing later, it is not created again, because
  that would silently forget what was revoked or spent.
- Only the owner can access the folder and its files. None of them is a symbolic link.
- Whoever has the folder can do everything. So the trail proves nothing against its owner.

POSIX only, because it locks with `flock`. Do not use it on a network file system.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from time import time
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER, Clock, Moment, read_clock
from captoken._format.encoding import EncodingError, decode_json, encode_json
from captoken._format.errors import AuditError, CaptokenError, OverlayError, StoreError
from captoken._format.names import at_or_below
from captoken._format.spelling import named_all, shown, shown_file, spelled_time
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import Entry, Select, SelectorFacts
from captoken._language.overlay import Overlay
from captoken._verification.telling import quietly
from captoken._verification.verifier import Verifier
from captoken._writing.issuer import Issuer
from captoken._writing.keywords import MintCaveats, unnamed_tables
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.audit import analysis
from captoken.audit._check import check, read
from captoken.audit.trail import AuditTrail
from captoken.control._lock import ForkSafeLock
from captoken.control._seen import LastSeen, keep_seen, kept_seen
from captoken.control.feed import Feed
from captoken.control.operator import Operator
from captoken.keys.files import write_private
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey, OperatorKey
from captoken.stores import sqlite
from captoken.stores._schema import Schema, SchemaChange, Upgrade, upgrade_of
from captoken.stores.own_process import tell_of_forks, unforked
from captoken.stores.ports import Head
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile

__all__ = ["Office"]

_log = logging.getLogger("captoken")

_KEYRING = "keyring.json"
_OPERATOR = "operator.json"
_SEEN = "operator.json.seen"  # the commands for operators use this name too
_OVERLAY = "overlay.db"
_STORES = "office.db"
_AUDIT = "audit.json"
_TRAIL = "trail.jsonl"
_TRAIL_SEEN = "trail.jsonl.seen"
_FILES_OF_1 = (_KEYRING, _OPERATOR, _SEEN, _STORES, _AUDIT, _TRAIL)
_FILES = (*_FILES_OF_1, _OVERLAY, _TRAIL_SEEN)

# The version of the list of files.
_MOVED = SchemaChange(f"moves the overlay to {_OVERLAY}, and adds {_TRAIL_SEEN}")
_VERSION = Schema("office", (_MOVED,))

_LIST = "office.json"
_LOCK = "lock"
_IGNORE = ".gitignore"

# A snapshot older than this many seconds is signed anew when somebody asks for it. Verifiers
# accept one that is twelve times as old.
_RENEWED = 5

# Seconds that our snapshots stay valid for operators. The office may be closed for a long time, and
# the number of the snapshot reveals a store that went back. Verifiers have their own limit.
_LIFE = 366 * 86_400

_LATELY = 3_000  # names of tokens that were minted, and may have no record yet


class Office:
    """Keyring, operator, overlay, counts, used proofs and trail, in one folder of one process.

        with Office.open("state/") as office:
            token = office.mint(subject=…, agent=…, task=…, tables=["sales"], operations=["select"])
            office.verifier.authorize(token, Access(table="sales", operation="select"))

    For everything that has no method here, use the parts:

    - `keyring`, and `issuer`, which mints with it.
    - `verifier` uses all of the parts. `verifier.awaited` is for coroutines.
    - `verifier_for(name)` is the same for one of several servers, with that server's own keys.
    - `operator` has `narrow` and `lift`. Its changes apply to the next access.
    - `overlay`, `ledger`, `replays` and `trail` let you make another verifier.
    - `captoken audit verify` checks the trail with the public key of `audit_key`.

    Threads may share an office. A forked child is denied, because the trail belongs to its parent.
    After `close`, the parts cannot be used any more, and another process can open the folder.
    """

    def __init__(self, folder: str, closing: ExitStack) -> None:
        """Not for users: `open` makes an office and fills in the parts."""
        self._closing = closing
        self._is_open = True
        self._minted: deque[str] = deque(maxlen=_LATELY)  # names, which the trail may not have yet
        self._clock: Clock
        self.folder = folder
        self.keyring: Keyring
        self.issuer: Issuer
        self.overlay: Renewed
        self.ledger: SQLiteLedger
        self.replays: SQLiteReplayStore
        self.trail: AuditTrail
        self.audit_key: AuditKey
        self.verifier: Verifier
        self._verifiers: dict[str, Verifier]

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        audience: str | Iterable[str] | None = None,
        servers: Iterable[str] = (),
        by: str = "office",
        values: bool = False,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
    ) -> Self:
        """Open the office in a folder. If the folder is empty or missing, create the office there.

        - `audience` is the verifier's name. Tokens that are bound to a key need one. With it, the
          verifier accepts only tokens that were presented to that name.
        - `servers` names servers with keys of their own. `verifier_for` returns the verifier of
          each, and `mint_set` mints a token for each.
        - `by` names who revokes, for the record.
        - `values=True` records the values of arguments and attributes. They may be secrets.
        - `vocabulary` says which caveats of your own are known.
        - `clock` is for tests.

        Raises StoreError if others can enter the folder, if it is a symbolic link, or if another
        process has opened it. It also raises StoreError if the folder holds something else, if a
        file is missing, or if this process lacks the permissions. Raises KeyringError, OverlayError
        and AuditError for a file that was changed by somebody else.
        """
        path = os.path.abspath(os.fspath(folder))
        _check_folder(path)
        with _told_by_folder(path), ExitStack() as closing:
            closing.callback(_Lock(path).close)
            if not os.path.lexists(os.path.join(path, _LIST)):
                _make(path, by, clock)
            _check_files(path)

            office = cls(path, closing)
            office._take(audience, servers, by, values, vocabulary, clock)
            office._closing = closing.pop_all()
        # Many programs never close it. Note the last record of the trail at their exit too.
        atexit.register(office._close_at_exit, os.getpid())
        return office

    @staticmethod
    def upgrade(folder: str | os.PathLike[str], *, apply: bool = False) -> list[Upgrade]:
        """The steps that upgrade an office to the version of this code; `apply` carries them out.

        If the process is killed meanwhile, the office has either the old or the new version. Raises
        StoreError, also for a folder that another process has opened.
        """
        path = os.fspath(folder)
        if not os.path.lexists(os.path.join(path, _LIST)):
            raise _problem(path, f"there is no {_LIST} in it: it is no office")
        _check_folder(path)
        with _told_by_folder(path), closing(_Lock(path)):
            return _upgraded(path, apply)

    def _take(
        self,
        audience: str | Iterable[str] | None,
        servers: Iterable[str],
        by: str,
        values: bool,
        vocabulary: Vocabulary,
        clock: Clock,
    ) -> None:
        """Open all parts. Raises what one of them raises."""
        stores = self._file(_STORES)
        self._clock = clock
        self.keyring = Keyring.load(self._file(_KEYRING))
        self.issuer = Issuer(self.keyring, vocabulary=vocabulary, clock=clock)

        # Only one process has the stores, so no other process counts the same uses.
        self.ledger = SQLiteLedger(stores, shared=True)
        self._closing.callback(self.ledger.close)
        self.replays = SQLiteReplayStore(stores)
        self._closing.callback(self.replays.close)
        snapshots = SQLiteSnapshots(self._file(_OVERLAY))
        self._closing.callback(snapshots.close)

        key = OperatorKey.load(self._file(_OPERATOR))
        feed = Feed(snapshots, [key.public], every=1, vocabulary=vocabulary, clock=clock)

        def operator(last: str) -> Operator:
            """An operator that continues from the snapshot that was seen.

            Every signer here keeps that in one file, so an expired snapshot is still the newest
            one.
            """
            return Operator(
                key,
                snapshots,
                by=by,
                last=last,
                alone=True,
                life=_LIFE,
                vocabulary=vocabulary,
                clock=clock,
            )

        self.overlay = Renewed(feed, operator, self._file(_SEEN), clock, self._keep_head)
        self._closing.callback(self.overlay.note)

        self.audit_key = AuditKey.load(self._file(_AUDIT))
        file = TrailFile(self._file(_TRAIL))
        self._closing.callback(file.close)
        self._check_trail()
        self.trail = AuditTrail(
            file.write,
            head=file.head,
            key=self.audit_key,
            values=values,
            clock=clock,
        )
        self._closing.callback(self._keep_head)

        def verifier(keyring: Keyring, named: str | Iterable[str] | None) -> Verifier:
            with quietly():  # an office mints, too: all keys are here
                return Verifier(
                    keyring,
                    named,
                    replays=self.replays,
                    ledger=self.ledger,
                    audit=self.trail,
                    overlay=self.overlay,
                    vocabulary=vocabulary,
                    clock=clock,
                )

        self.verifier = verifier(self.keyring, audience)
        names = [servers] if isinstance(servers, str) else servers
        self._verifiers = {name: verifier(self.keyring.for_audience(name), name) for name in names}

    @property
    def operator(self) -> Operator:
        """The current operator. Get it again for each use.

        It first signs the snapshot anew if necessary. Raises what `overlay` raises.
        """
        self._check_open()
        self.overlay()
        return self.overlay.operator

    def verifier_for(self, name: str) -> Verifier:
        """The verifier of one of the `servers`, with that server's own keys.

        It shares the office's trail, counts, used proofs and overlay. Raises ValueError for another
        name.
        """
        self._check_servers([name])
        return self._verifiers[name]

    def _check_servers(self, names: Iterable[str]) -> None:
        """Raise ValueError for a server that was not named when the office was opened."""
        for name in names:
            if name not in self._verifiers:
                raise ValueError(
                    f"no server {shown(name)} here: Office.open(..., servers=[...]) names them; "
                    f"it has {named_all(self._verifiers) or 'none'}"
                )

    def mint(
        self,
        *,
        subject: str,
        agent: str,
        task: str,
        key: bytes | str | None = None,
        ext: Mapping[str, str | int] | None = None,
        unrestricted: bool = False,
        **caveats: Unpack[MintCaveats],
    ) -> Token:
        """Mint a root token: `agent` works on `task` for `subject`, within the caveats.

        It calls `issuer.mint`, with the same keywords and exceptions: `tables`, `operations`,
        `allow`, `columns`, `rows`, `tools`, `where`, `expires_in`, `uses`, `budget`, and the others
        of `captoken docs keywords`. It writes no record: the trail describes a token at its first
        decision.

        Raises ValueError as well if `columns` or `rows` is for a table that is not named here: the
        misspelt entry would restrict nothing. Raises OverlayError if the new token is already
        revoked, for example because its task has ended.
        """
        self._check_open()
        token = self.issuer.mint(
            subject=subject,
            agent=agent,
            task=task,
            key=key,
            ext=ext,
            unrestricted=unrestricted,
            **caveats,
        )
        _check_named(caveats)
        self._check_not_revoked(token, subject, agent, task)
        self._minted.extend((subject, agent, task))
        return token

    def mint_set(
        self,
        *,
        subject: str,
        agent: str,
        task: str,
        servers: Mapping[str, Mapping[str, Any]],
        control: str | None = None,
        key: bytes | str | None = None,
        ext: Mapping[str, str | int] | None = None,
        **caveats: Unpack[MintCaveats],
    ) -> TokenSet:
        """Mint a root token for each of these servers, with that server's own keys.

        It calls `issuer.mint_set`, with the same keywords and exceptions. Raises ValueError for a
        server that was not named when the office was opened, and OverlayError as `mint` does.
        """
        self._check_open()
        self._check_servers(servers)
        made = self.issuer.mint_set(
            subject=subject,
            agent=agent,
            task=task,
            servers=servers,
            control=control,
            key=key,
            ext=ext,
            **caveats,
        )
        for its in servers.values():
            _check_named({**caveats, **its})
        for token in made.secret_tokens.values():
            self._check_not_revoked(token, subject, agent, task)
        self._minted.extend((subject, agent, task))
        return made

    def _check_not_revoked(self, token: Token, subject: str, agent: str, task: str) -> None:
        """Raise OverlayError, with what to do, if an entry already revokes the token."""
        overlay = self.overlay()
        facts = SelectorFacts(token.unverified.root, (), task, (agent,))
        for entry in overlay.on(facts, read_clock(self._clock)):
            if overlay.link(entry) is not None:
                continue
            what = f"subject {subject}, agent {agent}, task {task}"
            instead = "take another name"
            if entry.select.issued_before is not None:  # all of that time, whatever their names
                what += f", minted before {spelled_time(entry.select.issued_before)},"
                instead = "wait until then"
            elif entry.select.task is not None:
                what = f"task {entry.select.task}"
            raise OverlayError(
                f"tokens for {what} are revoked ({shown(entry.why)}), new ones too: {instead}, "
                f"or give the rights back with office.operator.lift({entry.id!r})"
            )

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """Revoke the selected tokens. It takes effect at their next access.

        It calls `operator.revoke`, with the same keywords and exceptions: `token=`, `link=`,
        `agent=`, `subject=`, `task=`. To undo it, call `operator.lift(entry.id)`.

        Logs a warning for a name that this office knows no token of. It is revoked all the same.
        """
        entry = self.operator.revoke(why=why, until=until, **select)
        self.overlay.note()
        self._warn_of_unknown(entry)
        return entry

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """Revoke all tokens of a task and of the tasks below it, for good.

        Tokens that are minted for it later are revoked too. Raises what `revoke` raises, and logs
        what it logs.
        """
        entry = self.operator.end_task(task, why=why)
        self.overlay.note()
        self._warn_of_unknown(entry)
        return entry

    def _warn_of_unknown(self, entry: Entry) -> None:
        """Log a name of an entry that no token had so far: one that is misspelt stops nobody.

        Asked of the trail, and of what was minted here lately. A task is known by one below it.
        """
        select = entry.select
        for what, name in (("agent", select.agent), ("subject", select.subject)):
            if name is not None and name not in self._minted and not self._recorded(name):
                self._warn(what, name, entry.id)
        task = select.task
        if task is None or any(at_or_below(name, task) for name in self._minted):
            return
        if not self._recorded(task) and not self._recorded(task, below=True):
            self._warn("task", task, entry.id)

    def _recorded(self, name: str, *, below: bool = False) -> bool:
        """Does a record of the trail have that name, as a whole text; or a task below it?"""
        text = encode_json(name)
        text = text[:-1] + b"/" if below else text
        return any(text in line for line in _whole_lines(self._file(_TRAIL)))

    def _warn(self, what: str, name: str, entry_id: str) -> None:
        _log.warning(
            "revoked, but no token of %s %s was minted or used here so far: is the name right? "
            "office.operator.lift(%r) takes it off again",
            what,
            shown(name),
            entry_id,
        )

    def audit(self) -> analysis.History:
        """Answers about who did what, from the trail: see `captoken.audit.analysis`.

            for hop in office.audit().hops():
                print(" > ".join(hop.holders), hop.allowed, hop.denied)

        Signs a checkpoint and first checks the whole trail. Raises AuditError if the trail is
        damaged. The answer is held in memory. Whoever has the folder can write another trail; to
        detect that, keep `trail.checkpoint()` elsewhere.
        """
        self._check_open()
        head = self.trail.checkpoint()
        self._keep_head()
        path = self._file(_TRAIL)
        check(_whole_lines(path), [self.audit_key.public], known=[head])
        return analysis.gather(read(_whole_lines(path)), vocabulary=self.issuer.vocabulary)

    def close(self) -> None:
        """Release the folder. From then on, every access is denied. Calling it twice is fine."""
        self._is_open = False
        atexit.unregister(self._close_at_exit)
        self._closing.close()

    def _close_at_exit(self, process: int) -> None:
        """Close it at exit, but not in a forked child. Nobody is left to report errors to."""
        if os.getpid() == process:
            with suppress(CaptokenError, OSError):
                self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Office {shown_file(self.folder)}>"

    def _file(self, name: str) -> str:
        """The path of one of the office's files."""
        return os.path.join(self.folder, name)

    def _check_trail(self) -> None:
        """Raise AuditError if the trail was emptied, cut, changed or replaced.

        It compares the last record that was seen, and checks that the records follow each other.
        """
        seen = _seen_head(self._file(_TRAIL_SEEN))
        path = self._file(_TRAIL)
        try:
            check(_whole_lines(path), [self.audit_key.public], known=seen)
        except AuditError as error:
            raise AuditError(
                f"{shown_file(path)} is not as the office has left it: {error}. Put it back from a "
                "copy. To begin a new one, keep it, and put empty files in the place of it and of "
                f"{_TRAIL_SEEN}"
            ) from None

    def _keep_head(self) -> None:
        """Write down the last record of the trail, which reveals a trail that was cut."""
        head = self.trail.head
        if head.seq:
            text = encode_json({"hash": head.hash, "seq": head.seq})
            write_private(self._file(_TRAIL_SEEN), text + b"\n")

    def _check_open(self) -> None:
        """Raise StoreError if the office is closed: another process may have the folder by now."""
        if not self._is_open:
            raise StoreError(f"the office {shown_file(self.folder)} was closed: open it again")


# --- the overlay ----------------------------------------------------------------------------------


class Renewed:
    """The newest overlay, signed anew in time by the same process that verifies.

    An Office makes it, and its verifier asks it. It runs no thread: whoever asks when the snapshot
    is older than five seconds signs the next one. So a token with a `fresh` below that may be
    denied.

    - A change by this process's operator takes effect at once, or not at all.
    - A change that another process has published, such as a command, takes effect within two
      seconds.
    - If a snapshot cannot be signed, the known one becomes too old, and verifiers deny.

    Threads may share it.
    """

    def __init__(
        self,
        feed: Feed,
        make: Callable[[str], Operator],
        seen: str,
        clock: Clock,
        also: Callable[[], None],
    ) -> None:
        """`make` makes an operator that continues from what was seen (`Operator.seen`).

        `seen` is the file that keeps it. `also` is called whenever that file is written. Raises
        OverlayError if the store has lost data, and what `make` raises.
        """
        self._feed = feed
        self._seen = seen
        self._clock = clock
        self._also = also
        self._lock = ForkSafeLock()

        self._noted = kept_seen(seen)
        found = feed.refresh()
        self._noted.check(found)
        self.operator = make(str(LastSeen.of(found)))

    def __call__(self) -> Overlay:
        """The newest overlay. Raises what the store raises, and OverlayError."""
        known = self._known()
        if self._is_due(known):
            with self._lock.held():
                known = self._known()
                # The thread that had the lock before may have signed it.
                if self._is_due(known):
                    known = self._renewed(known)
        return known

    def _known(self) -> Overlay:
        """The overlay in the store, which includes every change by this process."""
        known = self._feed()
        if known is None or known.seq < self.operator.last:
            return self._feed.refresh()
        return known

    def _is_due(self, known: Overlay) -> bool:
        """True if a new snapshot must be signed; also if the last one is dated far ahead."""
        age = read_clock(self._clock) - known.issued_at
        return age >= _RENEWED or age < -CLOCKS_DIFFER

    def _renewed(self, known: Overlay) -> Overlay:
        """The next overlay, newly signed; or the known one, if that fails."""
        try:
            self.operator.renew()
            self.note()
        except CaptokenError as error:
            _log.warning("the overlay was not signed anew: %s", type(error).__name__)
        return self._known()

    def note(self) -> None:
        """Write down which snapshot was the last, which reveals a store that went back.

        Raises KeyringError if it cannot be written.
        """
        if self.operator.last > self._noted.seq:
            keep_seen(self._seen, self.operator.seen)
            self._noted = LastSeen.read(self.operator.seen)
            self._also()


def _check_named(caveats: Mapping[str, Any]) -> None:
    """Raise ValueError for columns or rows of a table that was not named, in written caveats."""
    for keyword, pattern in unnamed_tables(caveats):
        raise ValueError(f"{keyword} is for {shown(pattern)}, and no table of that name is named")


def _seen_head(path: str) -> list[Head]:
    """The last record of the trail that was seen, if any. Raises AuditError."""
    with open(path, "rb") as file:
        text = file.read(1 << 10)
    if not text:
        return []
    try:
        head = msgspec.convert(decode_json(text.removesuffix(b"\n")), Head)
    except (EncodingError, msgspec.ValidationError):
        head = Head()
    if head.seq < 1:
        raise AuditError(
            f"{shown_file(path)} has to have the last record that was seen: it cannot be read"
        )
    return [head]


# --- the folder -----------------------------------------------------------------------------------


class _Lock:
    """Reserves the folder for one process until it is closed. Never waits. Raises StoreError."""

    def __init__(self, folder: str) -> None:
        self._fd = -1
        # Close it in a forked child, which would otherwise hold the folder after its parent's end.
        tell_of_forks(self, in_child=_Lock.close)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with unforked():
                self._fd = os.open(os.path.join(folder, _LOCK), flags, 0o600)
        except OSError as error:
            raise _problem(folder, f"{_LOCK} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise _problem(
                folder,
                "another process, or another part of this one, has opened it: close that one. An "
                "office is for one process; how several workers verify, `captoken docs workers` "
                "finds",
            ) from None

    def close(self) -> None:
        """Release the folder. Calling it twice is fine."""
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


def _problem(folder: str, text: str) -> StoreError:
    """The error to raise, with the folder and the problem."""
    return StoreError(f"the office {shown_file(folder)}: {text}")


@contextmanager
def _told_by_folder(folder: str) -> Generator[None]:
    """Turn any OSError in the block into a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        what = error.strerror or "no reason given"
        raise _problem(folder, f"{shown_file(str(error.filename))}: {what}") from None


def _check_folder(folder: str) -> None:
    """Create the folder if it is missing. Raises StoreError if others can access it."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise _problem(folder, f"cannot be made: {error.strerror}") from None
    wrong = _wrong_with(found, stat.S_ISDIR(found.st_mode), "a folder", "chmod 700")
    if wrong:
        raise _problem(folder, wrong)


def _wrong_with(
    found: os.stat_result,
    is_kind: bool,
    kind: str,
    remedy: str,
) -> str | None:
    """The reason why others could change it, or None. A symbolic link is not followed."""
    if not is_kind:
        return f"is not {kind}, or is a link to one"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others than its owner: {remedy} it"
    return None


def _make(folder: str, by: str, clock: Clock) -> None:
    """Create all files, and the list of them last. Raises StoreError if something else is there."""
    there = sorted(set(os.listdir(folder)) - {_LOCK})
    if there:
        raise _problem(
            folder,
            f"has {shown_file(there[0])} in it, and no {_LIST}: it is no office, or was not made "
            "to its end; an office is made in an empty folder",
        )

    def path(name: str) -> str:
        return os.path.join(folder, name)

    write_private(path(_IGNORE), b"*\n")
    keyring = Keyring.generate()
    keyring.save(path(_KEYRING))
    operator_key = OperatorKey.generate()
    operator_key.save(path(_OPERATOR))
    AuditKey.generate().save(path(_AUDIT))

    # The stores are created together with the keys. So nothing can have been used before, and
    # counted tokens are accepted at once.
    stores = path(_STORES)
    SQLiteReplayStore.create(stores, keys=keyring.key_ids, clock=clock).close()
    SQLiteLedger.create(stores, keys=keyring.key_ids, clock=clock).close()
    snapshots = SQLiteSnapshots.create(path(_OVERLAY))
    operator = Operator(operator_key, snapshots, by=by, life=_LIFE, clock=clock)
    operator.renew()
    snapshots.close()
    keep_seen(path(_SEEN), operator.seen)
    TrailFile(path(_TRAIL)).close()
    _write_list(folder)


def _write_list(folder: str) -> None:
    """Write the list of an office's files, which completes its creation."""
    # No record of the trail has been seen yet.
    write_private(os.path.join(folder, _TRAIL_SEEN), b"")
    stated = {"files": sorted(_FILES), "v": _VERSION.version}
    write_private(os.path.join(folder, _LIST), encode_json(stated) + b"\n")


def _check_files(folder: str) -> None:
    """Raise StoreError if a file is missing, accessible to others, or of another version."""
    version = _listed(folder)
    if version == 1 and _has_moved(folder):
        _write_list(folder)  # the upgrade was interrupted before it wrote the list
        version = _VERSION.version
    _VERSION.check(f"the office {shown_file(folder)}", version, shown_file(folder))
    _check_there(folder, _FILES)


def _check_there(folder: str, files: Iterable[str]) -> None:
    """Raise StoreError if one of these files is missing or accessible to others."""
    for name in (_LIST, *files):
        try:
            found = os.lstat(os.path.join(folder, name))
        except FileNotFoundError:
            raise _problem(
                folder,
                f"{name} is missing, and is not made anew alone: put it back, "
                "or begin with an empty folder",
            ) from None
        wrong = _wrong_with(found, stat.S_ISREG(found.st_mode), "a file", "chmod 600")
        if wrong:
            raise _problem(folder, f"{name} {wrong}")


def _listed(folder: str) -> int:
    """The version of the list of files. Raises StoreError if it is not an office's list."""
    with open(os.path.join(folder, _LIST), "rb") as file:
        text = file.read(1 << 16)
    try:
        stated = decode_json(text.removesuffix(b"\n"))
    except EncodingError:
        stated = {}
    for known, files in enumerate((_FILES_OF_1, _FILES), start=1):
        if stated == {"files": sorted(files), "v": known}:
            return known
    version = stated.get("v")
    if type(version) is int and version > _VERSION.version:
        return version  # a newer version, whatever files it has
    raise _problem(folder, f"{_LIST} is no list of the files of an office")


def _has_moved(folder: str) -> bool:
    """True if the overlay of a version 1 office is already in its own file."""
    try:
        SQLiteSnapshots(os.path.join(folder, _OVERLAY)).close()
    except StoreError:
        return False
    return True


def _upgraded(folder: str, apply: bool) -> list[Upgrade]:
    """The upgrade steps of the office and each of its stores. Raises StoreError."""
    version = _listed(folder)
    found = [upgrade_of(_VERSION, f"the office {shown_file(folder)}", version)]
    stores, overlay = os.path.join(folder, _STORES), os.path.join(folder, _OVERLAY)
    if version > 1 or _has_moved(folder):
        for path in (stores, overlay):
            found += sqlite.upgrade_file(path, apply=apply)
    else:
        _check_there(folder, _FILES_OF_1)
        found += sqlite.upgrade_file(stores, apply=apply, overlay=overlay)
    # The list completes the new version. After the overlay has moved, `open` would write it too.
    if apply and version == 1:
        _write_list(folder)
    return found


def _whole_lines(path: str) -> Iterator[bytes]:
    """The complete lines of a trail that may be written to meanwhile."""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line
