"""People who logged in, in the tables of a registry: in a browser, or by an application.

One row for each. A row of an application has the digest of one secret: first of a code, then of the
refresh token that came of it, and so on. To use a secret is to change it, in one transaction. So of
two requests with one secret one changes it, and the other finds that out.
"""

from __future__ import annotations

from msgspec import structs

from captoken._format import primitives
from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.errors import IssuanceError
from captoken.issuance.registry._rules import check_floor, spent
from captoken.issuance.registry._tables import RegistryTables, Row, Run, ended_by, run_one
from captoken.issuance.registry.ports import GRACE, Ending, KeptLogin, Turned

# Of one subject, of browsers and of applications each.
MOST = 100

_COLUMNS = """
    id, client, subject, provider, session, issued, content, secret, salt, task, turn, begun, until
"""
_ONE = f"select {_COLUMNS}, before, turned from registry_logins where id == ?"  # noqa: S608


class LoginTables(RegistryTables):
    """A registry in tables that keeps who logged in: see `LoginRegistry`."""

    def keep_login(self, login: KeptLogin, now: int) -> bool:
        """Write a new one. False: one with this id is there.

        Raises IssuanceError and StoreError.
        """
        with self._to_write() as run:
            known = "select count(*) from registry_logins where id == ?"
            if run_one(run, known, login.id)[0][0]:
                return False
            check_floor(login.issued_at, now, self._state(run))
            if self._has_ended(run, login):
                raise spent("the login has ended")
            self._forget(run, login, now)
            _insert(run, login)
            return True

    def login(self, id: str, now: int) -> KeptLogin | None:
        """The one with this id; None if it is over. Raises StoreError.

        A look: whoever invents ids holds up nobody who writes.
        """
        with self._to_read() as run:
            rows = run_one(run, _ONE, id)
            login = _login(rows[0]) if rows else None
            if login is None or login.until <= now or self._has_ended(run, login):
                return None
            return login

    def turn_login(self, login: KeptLogin, shown: bytes, next: bytes, now: int) -> Turned:
        """Have a secret changed, once: see LoginRegistry. Raises IssuanceError and StoreError."""
        with self._to_write() as run:
            rows = run_one(run, _ONE, login.id)
            if not rows or _login(rows[0]).until <= now:
                raise IssuanceError("this login is over: log in again", "invalid_grant")
            known = _login(rows[0])
            *_, before, turned = rows[0]

            if primitives.equal(known.secret, shown):
                after = structs.replace(
                    known,
                    secret=next,
                    task=login.task,
                    until=login.until,
                    turn=known.turn + 1,
                )
                _change(run, after, shown, now)
                return Turned(after)

            # Before its successor was used, within the grace, it gives that again. A code does not.
            # Of two that come at once, the clock of the second may be behind that of the first.
            in_time = -CLOCKS_DIFFER <= now - turned <= GRACE
            if known.turn > 1 and in_time and primitives.equal(bytes(before), shown):
                return Turned(known)

            run_one(run, "delete from registry_logins where id == ?", known.id)
            if not known.task:
                return Turned(None)
            return Turned(None, ended_by(run, Ending(now=now, task=known.task)))

    def drop_login(self, id: str) -> None:
        """Forget it. Raises StoreError."""
        with self._to_write() as run:
            run_one(run, "delete from registry_logins where id == ?", id)

    def logins_of(self, subject: str, now: int) -> tuple[KeptLogin, ...]:
        """What is there of a subject, by applications, the newest first. Raises StoreError."""
        asked = f"""
            select {_COLUMNS}, before, turned from registry_logins
            where subject == ? and client <> '' and turn > 0 and until > ? order by begun desc, id
        """  # noqa: S608, of names that stand above
        with self._to_read() as run:
            return tuple(map(_login, run_one(run, asked, subject, now)))

    def _has_ended(self, run: Run, login: KeptLogin) -> bool:
        """Has the login at the provider ended, for whatever grant?"""
        if login.issued_at <= self._state(run).floor:
            return True
        ended = self._logouts(run, login.provider, login.session, login.subject)
        return any(
            not one.grant and (one.of_session or login.issued_at <= one.at) for one in ended
        )

    def _forget(self, run: Run, login: KeptLogin, now: int) -> None:
        """Make room for another one: what is over goes, and the oldest of too many."""
        sure = self._sure(run, now)
        run_one(run, "delete from registry_logins where until <= ?", sure - GRACE)
        kind = "client <> ''" if login.client else "client == ''"
        run_one(
            run,
            f"""
            delete from registry_logins where id in (
                select id from registry_logins where subject == ? and {kind}
                order by begun desc, id limit 1000 offset {MOST - 1}
            )
            """,  # noqa: S608, of names and a number of ours
            login.subject,
        )


def _insert(run: Run, login: KeptLogin) -> None:
    run_one(
        run,
        """
        insert into registry_logins (
            id, client, subject, provider, session, issued, content, secret, salt, task, turn,
            begun, until, before, turned
        ) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
        """,
        login.id,
        login.client,
        login.subject,
        login.provider,
        login.session or "",
        login.issued_at,
        login.content,
        login.secret,
        login.salt,
        login.task,
        login.turn,
        login.begun,
        login.until,
        b"",
    )


def _change(run: Run, after: KeptLogin, before: bytes, now: int) -> None:
    run_one(
        run,
        """
        update registry_logins
        set secret = ?, before = ?, task = ?, until = ?, turn = ?, turned = ? where id == ?
        """,
        after.secret,
        before,
        after.task,
        after.until,
        after.turn,
        now,
        after.id,
    )


def _login(row: Row) -> KeptLogin:
    """A row without its last two columns, which are for whoever changes it."""
    id, client, subject, provider, session, issued, content, secret, salt, task, *times, _, _ = row
    turn, begun, until = times
    return KeptLogin(
        id=id,
        client=client,
        subject=subject,
        provider=provider,
        session=session or None,
        issued_at=issued,
        content=bytes(content),
        secret=bytes(secret),
        salt=bytes(salt),
        task=task,
        turn=turn,
        begun=begun,
        until=until,
    )
