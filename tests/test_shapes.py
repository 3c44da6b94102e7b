"""What JSON or TOML has to be is told in words of ours (`_format/shapes.py`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from captoken._format.shapes import fit


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["oidc", "saml"] = "oidc"
    count: Annotated[int, msgspec.Meta(ge=1, le=3)] = 1
    name: Annotated[str, msgspec.Meta(pattern="^a")] = "a"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "ldap"}, "kind"),
        ({"count": 0}, "count must be from 1 to 3"),
        ({"count": 4}, "count must be from 1 to 3"),
        ({"name": "b"}, "."),
        ({"other": 1}, "unknown key 'other'"),
    ],
)
def test_what_does_not_fit_is_told_by_its_place(given: dict[str, Any], told: str) -> None:
    assert fit({}, Shape) == Shape()
    with pytest.raises(ValueError, match=told):
        fit(given, Shape)
