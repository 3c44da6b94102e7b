"""Places where registries lie, by data alone, so that a process that is started fresh can open what another one made."""

from __future__ import annotations

import itertools
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import psycopg

from captoken.errors import IssuanceError, StoreError
from captoken.issuance.registry import Ending, Exchange, KeptLogin, MemoryRegistry, Seen
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.stores.postgres import create_tables
from tests.fixtures import NOW

KINDS = ("memory", "sqlite", "postgres")
SHARED = ("sqlite", "postgres")
WAIT = 60  # seconds, after which a race is stuck and fails

_open: list[Any] = []
_gate: Any = None


class Place(NamedTuple):
    """A kind of registry, and where it lies: a file, or a conninfo and a schema."""

    kind: str
    where: str = ""
    schema: str = ""

    def created(self, **facts: Any) -> Any:
        facts = {"floor": 0, **facts}
        if self.kind == "memory":
            return MemoryRegistry(**facts)
        if self.kind == "sqlite":
            return opened(SQLiteRegistry.create(self.where, **{"timeout": 30, **facts}))
        with psycopg.connect(self.where) as connection:
            create_tables(connection, schema=self.schema, tables=WITH_REGISTRY)
        return opened(PostgresRegistry.create(self.where, schema=self.schema, **{"timeout": 120, **facts}))

    def opened(self) -> Any:
        """One that is there."""
        if self.kind == "sqlite":
            return opened(SQLiteRegistry(self.where, timeout=30))
        return opened(PostgresRegistry(self.where, schema=self.schema, timeout=120))


def opened(registry: Any) -> Any:
    _open.append(registry)
    return registry


def close_all() -> None:
    while _open:
        _open.pop().close()


# --- what is asked of them -------------------------------------------------------------------------------------------


def seen(number: int = 1, by: str | None = "actor", **facts: Any) -> Seen:
    """An assertion of jane's, with who it came with."""
    usual = {
        "digest": number.to_bytes(32, "big"),
        "companions": None if by is None else by.encode(),
        "until": NOW + 600,
        "issued_at": NOW - 10,
    }
    return Seen(**{**usual, **facts})


def entry(task: str = "q3-1", *used: Seen, **facts: Any) -> Exchange:
    """An exchange of jane's."""
    usual = {
        "now": NOW,
        "grant": "q3-risk",
        "task": task,
        "within": None,
        "counted": False,
        "subject": "acme:jane",
        "actor": "mesh:orchestrator",
        "provider": "acme",
        "session": "s1",
        "issued_at": NOW - 10,
        "deadline": facts.get("now", NOW) + 3600,
        "most_live": None,
        "most_per_day": None,
        "seen": used,
    }
    return Exchange(**{**usual, **facts})


def joining(task: str = "q3-1", *used: Seen, **facts: Any) -> Exchange:
    """One that joins a task of its own grant."""
    return entry(task, *used, **{"within": ("q3-risk",), **facts})


def ending(**facts: Any) -> Ending:
    return Ending(**{"now": NOW, "provider": "acme", **facts})


def tasks(registry: Any) -> list[str]:
    """The ids of the tasks that are kept."""
    with registry._to_read() as run:
        return [task for (task,) in run([("select id from registry_tasks order by id", ())])[0]]


def said(registry: Any, asked: Exchange) -> str:
    """The id of the task, or the code of what was raised."""
    try:
        return str(registry.enter(asked).id)
    except IssuanceError as error:
        return error.code
    except StoreError as error:
        return error.code


# --- what other processes do -----------------------------------------------------------------------------------------


def together(gate: Barrier) -> None:
    """Once in each process: what it waits at."""
    global _gate
    _gate = gate


def race(place: Place, who: int, many: int) -> list[bool]:
    """Uses one assertion so often, as one actor, while others do the same: which were taken?"""
    registry = place.opened()
    _gate.wait(WAIT)
    try:
        return [
            said(registry, entry(f"t-{who}-{number}", seen(1, f"actor {who}"), actor=f"actor {who}")).startswith("t-")
            for number in range(many)
        ]
    finally:
        close_all()


def work(place: Place, round: int, answers: Any) -> None:
    """Starts task after task, and ends each second one. Says so once it has, until it is killed."""
    registry = place.opened()
    for number in itertools.count():
        task = f"t-{round}-{number}"
        registry.enter(entry(task, seen(round * 1_000_000 + number, None), subject=task, session=None))
        answers.send(("entered", task, round * 1_000_000 + number))
        if number % 2:
            (change,) = registry.end(ending(subject=task))
            answers.send(("ended", task, change.number))


# --- people who logged in ---------------------------------------------------------------------------------------------


def login(id: str, secret: bytes, **facts: Any) -> KeptLogin:
    """What an application has of somebody: first a code."""
    usual = {
        "id": id, "client": "app", "subject": f"acme:{id}", "provider": "acme", "session": None, "issued_at": NOW - 10, "content": b"{}", "secret": secret,
        "salt": b"salt", "begun": NOW, "until": NOW + 3600,
    }  # fmt: skip
    return KeptLogin(**{**usual, **facts})


def secret(turn: int) -> bytes:
    """The digest of a code, and then of each refresh token."""
    return turn.to_bytes(32, "big")


def turned(registry: Any, id: str, turn: int, task: str = "") -> int | None:
    """Has the secret of that turn changed: which turn it is at then; None if it was changed before, and the login is over."""
    after = registry.turn_login(login(id, b"", task=task or f"t-{id}"), secret(turn), secret(turn + 1), NOW).login
    return None if after is None else int(after.turn)


def log_in(place: Place, round: int, answers: Any) -> None:
    """Logs person after person in, uses the code, refreshes, and has each second one shown again. Says so each time, until it is killed."""
    registry = place.opened()
    for number in itertools.count():
        id = f"l-{round}-{number}"
        registry.enter(entry(f"t-{id}", subject=f"acme:{id}", session=None))
        registry.keep_login(login(id, secret(0)), NOW)
        for turn in range(3):
            assert turned(registry, id, turn) == turn + 1
            answers.send(("turned", id, turn))
        if number % 2:
            assert turned(registry, id, 0) is None
            answers.send(("ended", id, 0))


def race_to_turn(place: Place, ids: list[str], turn: int) -> list[int | None]:
    """Shows one secret of each, while others do the same."""
    registry = place.opened()
    _gate.wait(WAIT)
    try:
        return [turned(registry, id, turn) for id in ids]
    finally:
        close_all()
