"""Stores for tests that do not ask about making and opening: whatever was used before, nothing was counted."""

from __future__ import annotations

from typing import Any

from captoken.errors import StoreError


def begun(store: Any, *where: Any, floor: int = 0, **facts: Any) -> Any:
    """The store that lies there, opened. If it is not there it is made, without a floor unless one is given."""
    try:
        return store(*where, **facts)
    except StoreError as error:
        if "no store here" not in str(error):
            raise
    try:
        return store.create(*where, **facts, **_its(floor, store))
    except StoreError as error:
        if "already exists" not in str(error):
            raise
    return store(*where, **facts)  # another one was first


async def begun_awaited(store: Any, *where: Any, floor: int = 0, **facts: Any) -> Any:
    """The same, for one whose calls are awaited."""
    opened = store(*where, **facts)
    try:
        return await opened.open()
    except StoreError as error:
        if "no store here" not in str(error):
            raise
    if hasattr(opened, "aclose"):
        await opened.aclose()
    try:
        return await store.create(*where, **facts, **_its(floor, store))
    except StoreError as error:
        if "already exists" not in str(error):
            raise
    return await store(*where, **facts).open()


def _its(floor: int, store: Any) -> dict[str, int]:
    """Where snapshots lie there is no floor."""
    return {} if hasattr(store, "publish") else {"floor": floor}
