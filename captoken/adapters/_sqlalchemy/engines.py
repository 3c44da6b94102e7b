"""A guarded engine, made of the engine of an owner: where connections come from (rules 1, 3 and 4).

Each connection of a guarded engine takes one of the owner's engine, from its pool, and gives it
back. So pool, start-up and what the owner's events do with a new connection are the owner's.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine, NullPool
from sqlalchemy.util import LRUCache

from captoken._format.errors import GuardError
from captoken._verification.grant import Grant
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
    """What all guarded engines of one owner's engine share.

    Statements are compiled for a dialect, whoever runs them. Nothing of a grant is in it.
    """

    dialect: Guarded

    # Agents write statements, so that it is bounded.
    compiled: LRUCache[Any, Any]


# By the dialect of the owner's engine, and no longer than there is one.
_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()

# Around the look and the entry together.
_knowing = threading.Lock()


class Source:
    """Where the connections of one guarded engine come from.

    Raises GuardError for an engine that cannot be guarded, and TypeError for what is no grant and
    for a keyword that its guard does not know.
    """

    def __init__(
        self,
        bare: Engine,
        grant: Granting,
        options: Mapping[str, Any],
    ) -> None:
        """`bare` is the owner's engine, and `options` are the keywords of its guard."""
        if not isinstance(grant, Grant) and not callable(grant):
            raise TypeError(
                f"expected a Grant, or a function that returns one, not {type(grant).__name__}"
            )
        self._bare = bare
        self._grant = grant
        self._options = dict(options)
        self._kind = kind_of(bare)
        self._known = _known_of(bare, self._kind)

        # Now, and not at the first statement. Python says what is wrong with them.
        if options:
            signature = inspect.signature(self._kind.guard)
            signature.bind(None, None, **options)

        # Of a block: no more connections are given out when it has ended.
        self.over = False

    def engine(self) -> Engine:
        """A guarded engine.

        It has no pool of its own: how many connections there are is for the owner's. Nor has it an
        address, with which somebody could make an engine that is not guarded.
        """
        dialect = self._known.dialect
        pool = _Unpooled(self._connect, dialect=dialect)

        # SQLAlchemy has no driver of that name.
        address = URL.create(f"{dialect.name}+captoken")
        return Engine(
            pool,
            dialect,
            address,
            execution_options=self._execution_options(),
            hide_parameters=self._bare.hide_parameters,
        )

    def _execution_options(self) -> dict[str, Any]:
        """Those of the owner's engine, but for what they say of transactions (rule 5)."""
        given = self._bare.get_execution_options()
        options = {name: value for name, value in given.items() if name not in TRANSACTIONAL}
        options["compiled_cache"] = self._known.compiled
        return options

    def _connect(self) -> Any:
        """A connection, which takes one of the owner's pool."""
        if self.over:
            raise GuardError("the block has ended: run statements within its `with`")
        taken = self._bare.raw_connection()

        # Rule 4. By now the dialect of the owner's engine has asked what it asks.
        self._known.dialect.adopt(self._bare.dialect)

        def begin() -> Block:
            return self._kind.begin(taken, self._granted(), self._options)

        is_lost = partial(self._kind.is_lost, taken)

        def release() -> None:
            # What is closed is not given to the next one.
            if is_lost():
                taken.invalidate()
            else:
                taken.close()

        return GuardedConnection(
            begin,
            release,
            is_lost,
        )

    def _granted(self) -> Grant:
        """Rule 3. The grant of a transaction that begins.

        Asked in the code that runs its first statement, whatever thread the guard works in: there
        is the request that is answered.
        """
        if isinstance(self._grant, Grant):
            return self._grant
        return self._grant()


def _known_of(bare: Engine, kind: Kind) -> _Known:
    """What guarded engines of that engine share. The first one finds nothing, and makes it."""
    with _knowing:
        known = _known.get(bare.dialect)
        if known is None:
            known = _Known(
                dialect=kind.dialect(bare.dialect),
                compiled=LRUCache(_COMPILED),
            )
            _known[bare.dialect] = known
        return known
