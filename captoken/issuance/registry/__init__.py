"""The registry: tasks that were started, assertions that were used, logins that ended.

    ports       what a registry promises, as a Protocol, and its arguments
    memory      for one process, and for tests
    sqlite      for the processes of one machine
    postgres    for services on many machines

Import the last two by their own names: `postgres` needs psycopg, and nothing else here does. All
three use one set of tables, and `_tables` has the code that reads and writes them.

The rules of this package:

- One exchange is one atomic step, and its row is written before the token is sent.
- If a registry raises, nothing was started.
- The end of a task is written first. Then it is due until the overlay has it, even after a restart.
- What is unknown is refused. A registry that was lost and created again refuses all earlier
  assertions: that is its floor.
- Nothing becomes valid again because something was forgotten, or because a clock was set back.
- A registry contains digests, names, claims and times, but no assertion, token or key.
"""

from typing import TYPE_CHECKING

from captoken._format.lazy import lazily
from captoken.issuance.registry.ports import (
    Ending,
    Exchange,
    KeptLogin,
    LoginRegistry,
    Named,
    Registry,
    Seen,
    StartedTask,
    Turned,
    Unpublished,
    is_silent,
)

if TYPE_CHECKING:
    from captoken.issuance.registry.memory import MemoryRegistry

__all__ = [
    "Ending",
    "Exchange",
    "KeptLogin",
    "LoginRegistry",
    "MemoryRegistry",
    "Named",
    "Registry",
    "Seen",
    "StartedTask",
    "Turned",
    "Unpublished",
    "is_silent",
]

# Whoever keeps tasks on a server needs no SQLite.
__getattr__ = lazily(globals(), {"MemoryRegistry": "captoken.issuance.registry.memory"})
