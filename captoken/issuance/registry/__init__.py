"""What is out: tasks that were started, assertions that were used, logins that ended.

    ports       what a registry promises, as a Protocol, and what it is given
    memory      for one process, and for tests
    sqlite      for the processes of one machine
    postgres    for services on many machines

The last two are imported by their own names: `postgres` needs psycopg, and nothing else here does.
All three are one set of tables, and say how they are written and read: `_tables`.

The rules of this room:

- One exchange is one atomic step, and its row is written before the token leaves.
- What a registry raises means that nothing was started by it.
- An end is written first. It is then due until the overlay says so, whatever restarts meanwhile.
- What is not known is refused. A registry that was lost, and made anew, takes no assertion of
  before: its floor.
- Nothing comes alive because something was forgotten, or because a clock was set back.
- No assertion, token or key lies in a registry: digests, names and times do.
"""

from typing import TYPE_CHECKING

from captoken._format.lazy import lazily
from captoken.issuance.registry.ports import (
    Ending,
    Exchange,
    Named,
    Registry,
    Seen,
    StartedTask,
    Unpublished,
    is_silent,
)

if TYPE_CHECKING:
    from captoken.issuance.registry.memory import MemoryRegistry

__all__ = [
    "Ending",
    "Exchange",
    "MemoryRegistry",
    "Named",
    "Registry",
    "Seen",
    "StartedTask",
    "Unpublished",
    "is_silent",
]

# Whoever keeps tasks on a server needs no SQLite.
__getattr__ = lazily(globals(), {"MemoryRegistry": "captoken.issuance.registry.memory"})
