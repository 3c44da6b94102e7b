"""All that one machine needs before there are servers, in one folder (docs/local.md).

    office = Office.open("state/")
    token = office.mint(subject="user:jane", agent="clerk", task="invoices", tools={"pay": {}})
    grant = office.verifier.authorize(token, Access(tool="pay", arguments={}))
    office.end_task("invoices")

Nothing is in here that is not somewhere else: an Office makes the parts, and puts them together.

    keyring.json                       mints and verifies: Keyring
    operator.json, operator.json.seen  signs the overlay, and the number of its last: Operator
    overlay.db                         the overlay: SQLiteSnapshots
    office.db                          used proofs and counts: captoken.stores.sqlite
    audit.json, trail.jsonl            signs the trail, and the trail: AuditTrail, TrailFile
    trail.jsonl.seen                   the last record that was seen there
    office.json                        which files there have to be
    lock, .gitignore                   one process at a time; nothing goes into a repository

The rules of this file:

- The files are made together, once. One that is missing later is not made anew: what was revoked
  or spent would be forgotten in silence.
- The folder and its files are their owner's alone, and no links.
- Whoever has the folder has everything. So the trail proves nothing against whoever has it.

POSIX only, since it locks with `flock`. Not for network file systems.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from time import time
from types import TracebackType
from typing import Any, Self, Unpack

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER, Clock, Moment, read_clock
from captoken._format.encoding import EncodingError, decode_json, encode_json
from captoken._format.errors import AuditError, CaptokenError, OverlayError, StoreError
from captoken._format.spelling import named_all, shown, shown_file
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import Entry, Select, SelectorFacts
from captoken._language.overlay import Overlay
from captoken._verification.verifier import Verifier
from captoken._writing.issuer import Issuer
from captoken._writing.keywords import MintCaveats
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
_SEEN = "operator.json.seen"  # the commands of an operator keep theirs there too
_OVERLAY = "overlay.db"
_STORES = "office.db"
_AUDIT = "audit.json"
_TRAIL = "trail.jsonl"
_TRAIL_SEEN = "trail.jsonl.seen"
_FILES_OF_1 = (_KEYRING, _OPERATOR, _SEEN, _STORES, _AUDIT, _TRAIL)
_FILES = (*_FILES_OF_1, _OVERLAY, _TRAIL_SEEN)

# Of the list of files.
_MOVED = SchemaChange(f"moves the overlay to {_OVERLAY}, and adds {_TRAIL_SEEN}")
_VERSION = Schema("office", (_MOVED,))

_LIST = "office.json"
_LOCK = "lock"
_IGNORE = ".gitignore"

# Seconds. A snapshot that is older is signed anew by whoever asks for it: a twelfth of what
# verifiers bear.
_RENEWED = 5

# Seconds that a snapshot of ours is good for, to operators: the office may be closed for long, and
# that it has not gone back its number says. Verifiers have a bound of their own.
_LIFE = 366 * 86_400


class Office:
    """Keyring, operator, overlay, counts, used proofs and trail in one folder of one process.

        with Office.open("state/") as office:
            token = office.mint(subject=…, agent=…, task=…, tables=["sales"], operations=["select"])
            office.verifier.authorize(token, Access(table="sales", operation="select"))

    The parts are there by name, for whatever has no method here:

    - `keyring` and `issuer`, which mints by it.
    - `verifier`: all of the parts behind one face. `verifier.awaited` is for coroutines.
    - `verifier_for(name)`: the same for one of several servers, with the keys of that one alone.
    - `operator` for `narrow` and `lift`; what it says counts at the next access.
    - `overlay`, `ledger`, `replays` and `trail`, to make another verifier of them.
    - `audit_key`, by whose public key `captoken audit verify` checks the trail.

    Threads share an office. A forked child is denied: the trail is its parent's. What
    `close` leaves cannot be used any more, and the folder is free for another process.
    """

    def __init__(self, folder: str, closing: ExitStack) -> None:
        """Not for users: `open` makes one, and fills in the parts."""
        self._closing = closing
        self._is_open = True
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
        """The office in a folder; made there, if the folder is empty or is not there yet.

        - `audience` is the verifier's name. Tokens that are bound to a key need one. With it, only
          what is presented to that name is taken.
        - `servers` are the names of servers that have keys of their own: `verifier_for` gives the
          verifier of each, and `mint_set` a token for each.
        - `by` is who revokes, for the record.
        - `values=True` records the values of arguments and attributes. They may be secrets.
        - `vocabulary` says which caveats of your own are known.
        - `clock` is for tests.

        Raises StoreError for a folder that others can enter, that is a symbolic link or that
        another process has opened. Also for one that holds something else, or in which a file is
        missing, and where this process has not the rights. Raises KeyringError, OverlayError and
        AuditError for a file that is not as it was left.
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
        # Many programs never close it. What was seen of the trail is noted at their end, too.
        atexit.register(office._close_at_exit, os.getpid())
        return office

    @staticmethod
    def upgrade(folder: str | os.PathLike[str], *, apply: bool = False) -> list[Upgrade]:
        """What brings an office to the version of this code; with `apply`, it is done.

        Whoever is killed meanwhile leaves the old one, or the new one. Raises StoreError, also for
        a folder that another process has opened.
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

        # One process has them, and so nobody else counts what is counted here.
        self.ledger = SQLiteLedger(stores, shared=True)
        self._closing.callback(self.ledger.close)
        self.replays = SQLiteReplayStore(stores)
        self._closing.callback(self.replays.close)
        snapshots = SQLiteSnapshots(self._file(_OVERLAY))
        self._closing.callback(snapshots.close)

        key = OperatorKey.load(self._file(_OPERATOR))
        feed = Feed(snapshots, [key.public], every=1, vocabulary=vocabulary, clock=clock)

        def operator(last: str) -> Operator:
            """One that goes on from what was seen. Who signs here keeps that in one file, so that
            one which has run out is still the newest.
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
        """The operator of the moment: ask for it each time.

        What it goes on from is signed anew first, if need be. Raises as `overlay` does.
        """
        self._check_open()
        self.overlay()
        return self.overlay.operator

    def verifier_for(self, name: str) -> Verifier:
        """The verifier of one of the `servers` that were opened: it has the keys of that one alone.

        Trail, counts, used proofs and overlay are the office's. Raises ValueError for another name.
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

        It is `issuer.mint`, with its keywords and what it raises. No record is made of a mint: the
        trail describes a token at its first decision.

        Raises OverlayError for what is revoked as it is minted: for a task that has ended, say.
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
        self._check_not_revoked(token, subject, agent, task)
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
        """A root token for each of these servers, under the keys of that server alone.

        It is `issuer.mint_set`, with its keywords and what it raises. Raises ValueError for a
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
        for token in made.secret_tokens.values():
            self._check_not_revoked(token, subject, agent, task)
        return made

    def _check_not_revoked(self, token: Token, subject: str, agent: str, task: str) -> None:
        """Raise OverlayError, with what to do, where an entry is on the token that revokes it."""
        overlay = self.overlay()
        facts = SelectorFacts(token.unverified.root, (), task, (agent,))
        for entry in overlay.on(facts, read_clock(self._clock)):
            if overlay.link(entry) is not None:
                continue
            what = f"subject {subject}, agent {agent}, task {task}"
            if entry.select.task is not None:
                what = f"task {entry.select.task}"
            raise OverlayError(
                f"tokens for {what} are revoked ({shown(entry.why)}), new ones too: take another "
                f"name, or give the rights back with office.operator.lift({entry.id!r})"
            )

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """The tokens that are selected stop working, at their next access.

        It is `operator.revoke`, with its keywords and what it raises: `token=`, `link=`, `agent=`,
        `subject=`, `task=`. `operator.lift(entry.id)` takes it off again.
        """
        entry = self.operator.revoke(why=why, until=until, **select)
        self.overlay.note()
        return entry

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """All tokens of a task, and of the tasks below it, stop working, for good.

        Those that are minted for it later stop too. Raises as `revoke` does.
        """
        entry = self.operator.end_task(task, why=why)
        self.overlay.note()
        return entry

    def audit(self) -> analysis.History:
        """Who did what, by the trail: what `captoken.audit.analysis` asks.

            for hop in office.audit().hops():
                print(" > ".join(hop.holders), hop.allowed, hop.denied)

        Signs a checkpoint, and checks the whole trail first. Raises AuditError if it is not whole.
        It is in memory as long as the answer is. Whoever has the folder can write another trail:
        keep `trail.checkpoint()` elsewhere, against that.
        """
        self._check_open()
        head = self.trail.checkpoint()
        self._keep_head()
        path = self._file(_TRAIL)
        check(_whole_lines(path), [self.audit_key.public], known=[head])
        return analysis.gather(read(_whole_lines(path)), vocabulary=self.issuer.vocabulary)

    def close(self) -> None:
        """Let go of the folder. Again, it does nothing. Accesses are denied from then on."""
        self._is_open = False
        atexit.unregister(self._close_at_exit)
        self._closing.close()

    def _close_at_exit(self, process: int) -> None:
        """Close it, but in a child of the process that has it. There is nobody left to tell."""
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
        """The path of one of its files."""
        return os.path.join(self.folder, name)

    def _check_trail(self) -> None:
        """Raise AuditError for a trail that is not as it was left: emptied, cut, changed, replaced.

        By the last record that was seen there, and by the records, which follow on each other.
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
        """Write down the last record of the trail: by that, one that was cut is known."""
        head = self.trail.head
        if head.seq:
            text = encode_json({"hash": head.hash, "seq": head.seq})
            write_private(self._file(_TRAIL_SEEN), text + b"\n")

    def _check_open(self) -> None:
        """Raise StoreError where it was closed: another process may have the folder by now."""
        if not self._is_open:
            raise StoreError(f"the office {shown_file(self.folder)} was closed: open it again")


# --- the overlay ----------------------------------------------------------------------------------


class Renewed:
    """The newest overlay, signed anew in time: one process is operator and verifier here.

    Made by an Office, and asked by its verifier. No thread runs: whoever asks for a snapshot of
    more than five seconds signs the next. So a token that asks for `fresh` of less may be denied.

    - What the operator of this process has said counts at once, or nothing does.
    - What another process has published, as the commands do, counts within a second or two.
    - Where it cannot be signed anew, the one that is known grows old. Verifiers then deny.

    Threads share one.
    """

    def __init__(
        self,
        feed: Feed,
        make: Callable[[str], Operator],
        seen: str,
        clock: Clock,
        also: Callable[[], None],
    ) -> None:
        """`make` gives an operator that goes on from what was seen (`Operator.seen`).

        `seen` is the file that keeps that. `also` is called whenever it is written. Raises
        OverlayError where the store has lost what it had, and what it raises itself.
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
                # Whoever had the lock before may have signed it.
                if self._is_due(known):
                    known = self._renewed(known)
        return known

    def _known(self) -> Overlay:
        """What the store has, as new as what was said here."""
        known = self._feed()
        if known is None or known.seq < self.operator.last:
            return self._feed.refresh()
        return known

    def _is_due(self, known: Overlay) -> bool:
        """Is it to be signed anew? Also one that was dated by a clock that was far ahead."""
        age = read_clock(self._clock) - known.issued_at
        return age >= _RENEWED or age < -CLOCKS_DIFFER

    def _renewed(self, known: Overlay) -> Overlay:
        """The next one, signed; the one that is known, where that fails."""
        try:
            self.operator.renew()
            self.note()
        except CaptokenError as error:
            _log.warning("the overlay was not signed anew: %s", type(error).__name__)
        return self._known()

    def note(self) -> None:
        """Keep which snapshot was the last: by that, a store that went back is known.

        Raises KeyringError where it cannot be written.
        """
        if self.operator.last > self._noted.seq:
            keep_seen(self._seen, self.operator.seen)
            self._noted = LastSeen.read(self.operator.seen)
            self._also()


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
    """One process has the folder, until this is closed. Waits for nobody. Raises StoreError."""

    def __init__(self, folder: str) -> None:
        self._fd = -1
        # Closed in a child: it would keep the folder when its parent has ended.
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
                "another process, or another part of this one, has opened it: close that one",
            ) from None

    def close(self) -> None:
        """Let go of it. Again, it does nothing."""
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


def _problem(folder: str, text: str) -> StoreError:
    """What is raised: which office it is, and what is wrong with it."""
    return StoreError(f"the office {shown_file(folder)}: {text}")


@contextmanager
def _told_by_folder(folder: str) -> Generator[None]:
    """Whatever the system refuses in the block becomes a StoreError, with the file."""
    try:
        yield
    except OSError as error:
        what = error.strerror or "no reason given"
        raise _problem(folder, f"{shown_file(str(error.filename))}: {what}") from None


def _check_folder(folder: str) -> None:
    """Make the folder, if it is not there. Raises StoreError for one that is not ours alone."""
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
    """Why it is not one that we alone can change; None if it is. A link is not followed."""
    if not is_kind:
        return f"is not {kind}, or is a link to one"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others than its owner: {remedy} it"
    return None


def _make(folder: str, by: str, clock: Clock) -> None:
    """Make all files, the list of them last. Raises StoreError where something else is there."""
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

    # In the act in which the keys are made: so nothing can have been used before, and counted
    # tokens are taken at once.
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
    """What there is in an office: the last thing that is written when one is made."""
    # No record of the trail was seen yet.
    write_private(os.path.join(folder, _TRAIL_SEEN), b"")
    stated = {"files": sorted(_FILES), "v": _VERSION.version}
    write_private(os.path.join(folder, _LIST), encode_json(stated) + b"\n")


def _check_files(folder: str) -> None:
    """Raise StoreError where a file is missing, or is not ours alone, or of another version."""
    version = _listed(folder)
    if version == 1 and _has_moved(folder):
        _write_list(folder)  # who was to do that was cut off
        version = _VERSION.version
    _VERSION.check(f"the office {shown_file(folder)}", version, shown_file(folder))
    _check_there(folder, _FILES)


def _check_there(folder: str, files: Iterable[str]) -> None:
    """Raise StoreError where one of these is missing, or is not ours alone."""
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
    """The version of the list of files. Raises StoreError for a list that is none of ours."""
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
        return version  # a newer one, whatever files it has
    raise _problem(folder, f"{_LIST} is no list of the files of an office")


def _has_moved(folder: str) -> bool:
    """Does the overlay of an office of version 1 lie in a file of its own, as it is to?"""
    try:
        SQLiteSnapshots(os.path.join(folder, _OVERLAY)).close()
    except StoreError:
        return False
    return True


def _upgraded(folder: str, apply: bool) -> list[Upgrade]:
    """What is to be done with the office, and with each of its stores. Raises StoreError."""
    version = _listed(folder)
    found = [upgrade_of(_VERSION, f"the office {shown_file(folder)}", version)]
    stores, overlay = os.path.join(folder, _STORES), os.path.join(folder, _OVERLAY)
    if version > 1 or _has_moved(folder):
        for path in (stores, overlay):
            found += sqlite.upgrade(path, apply=apply)
    else:
        _check_there(folder, _FILES_OF_1)
        found += sqlite.upgrade(stores, apply=apply, overlay=overlay)
    # With the list it is a new one. From when the overlay has moved, `open` would write that, too.
    if apply and version == 1:
        _write_list(folder)
    return found


def _whole_lines(path: str) -> Iterator[bytes]:
    """The lines of a trail that is being written to, without one that is not whole yet."""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line
