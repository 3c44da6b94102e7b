"""Which version a store's schema has, and what becomes of another one: the rule of all stores.

A store says its version where it lies: SQLite and PostgreSQL in a table `captoken_schema (store,
version)`, Valkey in a hash. It is read when the store is opened. Where none is said it is 1, since
the first version did not say it.

- This code's own version is opened.
- An older one is refused. The error names the command that brings it on, `captoken upgrade`.
- A newer one is refused, since nobody here knows what it means.

Whoever changes a schema adds a SchemaChange, which makes a new version. An upgrade does all steps
and writes the version in one transaction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from captoken._format.errors import StoreError

# The table on SQLite and PostgreSQL.
VERSIONS = "captoken_schema"

SAYS_VERSION = "records its version"


class SchemaChange(NamedTuple):
    """What leads from one version to the next: in words, and as statements."""

    does: str
    statements: tuple[str, ...] = ()


class Schema(NamedTuple):
    """What a store has to be like: the first step leads from version 1 to 2, and so on."""

    store: str
    steps: tuple[SchemaChange, ...]

    @property
    def version(self) -> int:
        """The version that this code reads and writes."""
        return len(self.steps) + 1

    def missing_steps(self, where: str, found: Any) -> tuple[SchemaChange, ...]:
        """The steps from the version that was found; None is 1. Raises StoreError for a newer one.

        Raises StoreError also for what is no version.
        """
        version = 1 if found is None else found
        if type(version) is not int or version < 1:
            raise StoreError(f"{where}: {self.store} has no valid schema version: it is damaged")
        if version > self.version:
            raise StoreError(
                f"{where}: {self.store} has schema version {version}, from a newer captoken, and "
                f"this one reads {self.version}: install the newer captoken here"
            )
        return self.steps[version - 1 :]

    def check(self, where: str, found: Any, command: str) -> None:
        """Raise StoreError, unless it is this code's version. `command` upgrades an older one."""
        if self.missing_steps(where, found):
            raise StoreError(
                f"{where}: {self.store} has schema version {found or 1}, from an earlier captoken, "
                f"and this one needs {self.version}: stop whatever uses it, then run "
                f"`captoken upgrade {command}`"
            )


class Upgrade(NamedTuple):
    """A store that an upgrade has looked at. `does` is empty where nothing is to be done."""

    where: str
    store: str
    found: int
    version: int
    does: tuple[str, ...] = ()


def upgrade_of(schema: Schema, where: str, found: Any) -> Upgrade:
    """What is to be done with a store of that version. Raises StoreError for a newer one."""
    steps = schema.missing_steps(where, found)
    does = tuple(step.does for step in steps)
    return Upgrade(where, schema.store, schema.version - len(steps), schema.version, does)


def none_there(where: str) -> StoreError:
    """What an upgrade raises where no store lies. Made here, and raised by the caller."""
    return StoreError(f"{where}: there is no store of captoken here to upgrade")
