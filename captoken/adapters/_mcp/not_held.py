"""What a client of MCP is told that holds no token for its request: for all that present one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captoken import current
from captoken._format.errors import Refused, WideningError
from captoken._language.access import Access
from captoken.adapters._mcp.messages import facts
from captoken.adapters._refused import refused_here
from captoken.current import AnyHeld


def not_held(
    widening: WideningError,
    held: AnyHeld | None,
    audience: str,
    method: str,
    params: Mapping[str, Any],
) -> Refused:
    """The refusal of a request that was not sent, with words for a model.

    `held` is what it was to be made of, for the server `audience`; None is what is current.
    """
    mine = current.holding(held).at(audience).one.unverified.capability
    asked = facts(method, params)
    access = None if asked is None else Access(tool=asked[0], arguments=asked[1])
    return refused_here(widening, access, mine)
