"""An office: keyring, operator, overlay, counts, used proofs and trail of one folder."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from time import time
from typing import Any, Self, Unpack

from captoken._format.clocks import Clock, Moment
from captoken._format.errors import CaptokenError, StoreError
from captoken._format.spelling import shown_file
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import Entry, Select
from captoken._verification.verifier import Verifier, VerifierOptions
from captoken._writing.issuer import Issuer
from captoken._writing.keywords import MintCaveats, restricts_nothing
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.audit import analysis
from captoken.audit.trail import AuditTrail
from captoken.control.operator import Operator
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey, OperatorKey
from captoken.local._folder import (
    AUDIT,
    KEYRING,
    OPERATOR,
    OVERLAY,
    SEEN,
    STORES,
    TRAIL,
    reserved,
    told_by_folder,
    upgraded,
)
from captoken.local._renewed import Renewed
from captoken.local._trail import KeptTrail, KnownNames
from captoken.local._verifiers import ServerVerifiers, verifier_of
from captoken.stores._schema import Upgrade
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile


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
        self.folder = folder
        self.keyring: Keyring
        self.issuer: Issuer
        self.overlay: Renewed
        self.ledger: SQLiteLedger
        self.replays: SQLiteReplayStore
        self.trail: AuditTrail
        self.audit_key: AuditKey
        self.verifier: Verifier

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
          verifier accepts only tokens that are addressed to that name: see `present`.
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
        with told_by_folder(path), ExitStack() as stack:
            stack.enter_context(reserved(path, by, clock))
            office = cls(path, stack)
            office._take(audience, servers, by, values, vocabulary, clock)
            office._closing = stack.pop_all()
        # Many programs never close it. Note the last record of the trail at their exit too.
        atexit.register(office._close_at_exit, os.getpid())
        return office

    @staticmethod
    def upgrade(folder: str | os.PathLike[str], *, apply: bool = False) -> list[Upgrade]:
        """The steps that upgrade an office to the version of this code; `apply` carries them out.

        If the process is killed meanwhile, the office has either the old or the new version. Raises
        StoreError, also for a folder that another process has opened.
        """
        return upgraded(os.fspath(folder), apply)

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
        stores = self._file(STORES)
        self.keyring = Keyring.load(self._file(KEYRING))
        self.issuer = Issuer(self.keyring, vocabulary=vocabulary, clock=clock)

        # Only one process has the stores, so no other process counts the same uses.
        opened = self._closing.enter_context
        self.ledger = opened(closing(SQLiteLedger(stores, shared=True)))
        self.replays = opened(closing(SQLiteReplayStore(stores)))
        snapshots = opened(closing(SQLiteSnapshots(self._file(OVERLAY))))

        self.audit_key = AuditKey.load(self._file(AUDIT))
        file = opened(closing(TrailFile(self._file(TRAIL))))
        self._kept = KeptTrail(self.folder, file, self.audit_key, values=values, clock=clock)
        self._closing.callback(self._kept.keep_head)
        self.trail = self._kept.trail
        self._names = KnownNames(self._kept)

        key = OperatorKey.load(self._file(OPERATOR))
        self.overlay = Renewed(
            key,
            snapshots,
            self._file(SEEN),
            by=by,
            vocabulary=vocabulary,
            clock=clock,
            also=self._kept.keep_head,
        )
        self._closing.callback(self.overlay.note)

        parts = VerifierOptions(
            replays=self.replays,
            ledger=self.ledger,
            audit=self.trail,
            overlay=self.overlay,
            vocabulary=vocabulary,
            clock=clock,
        )
        self.verifier = verifier_of(self.keyring, audience, parts)
        self._name = audience if isinstance(audience, str) else None
        self._servers = ServerVerifiers(self.keyring, servers, parts)

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
        return self._servers.named(name)

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
        of `captoken docs keywords`. `uses` and `budget` are for this token and all that is made of
        it: a second token of the task has its own. It writes no record: the trail describes a token
        at its first decision. A token that asks for consents is for one server: for this office, if
        it has a name and no other `audience` is given.

        Raises ValueError as well if `columns` or `rows` is for a table that is not named here: the
        misspelt entry would restrict nothing. Raises OverlayError if the new token is already
        revoked, for example because its task has ended.
        """
        self._check_open()
        if "consent" in caveats and self._name is not None:
            caveats.setdefault("audience", self._name)
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
        self.overlay.check_not_revoked(token, subject, agent, task)
        self._names.add(subject, agent, task)
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
        self._servers.check(servers)
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
            self.overlay.check_not_revoked(token, subject, agent, task)
        self._names.add(subject, agent, task)
        return made

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """Revoke the selected tokens, and those that are minted later. It takes effect at once.

        It calls `operator.revoke`, with the same keywords and exceptions: `token=`, `link=`,
        `agent=`, `subject=`, `task=`. `link=child.link_id` is one sub-agent and all below it;
        `token=root.token_id` is a whole tree. To undo it, call `operator.lift(entry.id)`.

        A name is revoked for everybody who uses it, until you lift the entry, or until `until=`:
        for one agent of one task, give `link=`.

        Logs a warning for a name that this office knows no token of. It is revoked all the same.
        """
        entry = self.operator.revoke(why=why, until=until, **select)
        self.overlay.note()
        self._names.warn_of_unknown(entry)
        return entry

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """Revoke all tokens of a task and of the tasks below it, for good.

        Tokens that are minted for it later are revoked too. Raises what `revoke` raises, and logs
        what it logs.
        """
        entry = self.operator.end_task(task, why=why)
        self.overlay.note()
        self._names.warn_of_unknown(entry)
        return entry

    def audit(self) -> analysis.History:
        """Answers about who did what, from the trail: see `captoken.audit.analysis`.

            for hop in office.audit().hops():
                print(" > ".join(hop.holders), hop.allowed, hop.denied)

        Signs a checkpoint and first checks the whole trail. Raises AuditError if the trail is
        damaged. The answer is held in memory. Whoever has the folder can write another trail; to
        detect that, keep `trail.checkpoint()` elsewhere.
        """
        self._check_open()
        return self._kept.history(self.issuer.vocabulary)

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

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Office {shown_file(self.folder)}>"

    def _file(self, name: str) -> str:
        """The path of one of the office's files."""
        return os.path.join(self.folder, name)

    def _check_open(self) -> None:
        """Raise StoreError if the office is closed: another process may have the folder by now."""
        if not self._is_open:
            raise StoreError(f"the office {shown_file(self.folder)} was closed: open it again")


def _check_named(caveats: Mapping[str, Any]) -> None:
    """Raise ValueError for what is restricted and not named beside it, in written caveats."""
    for misspelt in restricts_nothing(caveats):
        raise ValueError(misspelt)
