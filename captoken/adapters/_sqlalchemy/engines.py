"""A guarded engine, made of the engine of an owner: where connections come from (rules 1, 3 and 4).

Each connection of a guarded engine takes one of the owner's engine, from its pool, and gives it
back. So pool, start-up and what the owner's events do with a new connection are the owner's.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from captoken._format.extras import extra

with extra("sqlalchemy"):
    from sqlalchemy import URL, Engine, NullPool
    from sqlalchemy.util import LRUCache

from captoken._format.errors import GuardError
from captoken._verification.decision import Grant
from captoken.adapters._sqlalchemy.blocks import Block
from captoken.adapters._sqlalchemy.connection import GuardedConnection
from captoken.adapters._sqlalchemy.dialects import TRANSACTIONAL, Guarded
from captoken.adapters._sqlalchemy.kinds import Kind, kind_of

# A grant, or what gives the one of the moment.
Granting: TypeAlias = Grant | Callable[[], Grant]

_COMPILED = 500  # statements, as an engine keeps them


class _Unpooled(NullPool):
    """Where a guarded engine has its connections from, each anew.

    What somebody set for the pools of all engines (`event.listens_for(Engine, "connect")`, with a
    PRAGMA, say) is done by the owner's engine, on a bare connection. Not here once more.
    """

    _sa_propagate_class_events = False


class _Known(NamedTuple):
    """What all guarded engines of one owner's engine share: what was compiled is good for all."""

    dialect: Guarded
    compiled: LRUCache[Any, Any]


# By the dialect of the owner's engine, and no longer than there is one.
_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_knowing = threading.Lock()


class Source:
    """Where the connections of one guarded engine come from.

    Raises GuardError for an engine that cannot be guarded, and TypeError for what is no grant and
    for a keyword that its guard does not know.
    """

    def __init__(self, bare: Engine, grant: Granting, options: Mapping[str, Any]) -> None:
        if not isinstance(grant, Grant) and not callable(grant):
            raise TypeError(
                f"a {type(grant).__name__} is no Grant, and no function that gives one"
            )
        self._bare = bare
        self._grant = grant
        self._options = dict(options)
        self._kind = kind_of(bare)
        self._known = _known_of(bare, self._kind)

        # Now, and not at the first statement.
        if options:
            inspect.signature(self._kind.guard).bind(None, None, **options)

        # Of a block: no more connections are given out when it has ended.
        self.over = False

    def engine(self) -> Engine:
        """A guarded engine.

        It has no pool of its own: how many connections there are is for the owner's. Nor has it an
        address, with which somebody could make an engine that is not guarded.
        """
        dialect = self._known.dialect
        given = self._bare.get_execution_options()
        options = {key: value for key, value in given.items() if key not in TRANSACTIONAL}
        return Engine(
            _Unpooled(self._connect, dialect=dialect),
            dialect,
            URL.create(f"{dialect.name}+captoken"),
            execution_options={**options, "compiled_cache": self._known.compiled},
            hide_parameters=self._bare.hide_parameters,
        )

    def _connect(self) -> Any:
        """A connection, which takes one of the owner's pool."""
        if self.over:
            raise GuardError("the block has ended: ask within its `with`")
        taken = self._bare.raw_connection()

        # Rule 4. By now the dialect of the owner's engine has asked what it asks.
        self._known.dialect.adopt(self._bare.dialect)

        def begin() -> Block:
            # Rule 3. In the code that asks, whatever thread the guard works in.
            grant = self._grant if isinstance(self._grant, Grant) else self._grant()
            return self._kind.begin(taken, grant, self._options)

        def is_lost() -> bool:
            return self._kind.is_lost(taken)

        def release() -> None:
            # What is closed is not given to the next one.
            if is_lost():
                taken.invalidate()
            else:
                taken.close()

        return GuardedConnection(begin, release, is_lost)


def _known_of(bare: Engine, kind: Kind) -> _Known:
    with _knowing:
        known = _known.get(bare.dialect)
        if known is None:
            known = _Known(kind.dialect(bare.dialect), LRUCache(_COMPILED))
            _known[bare.dialect] = known
        return known
