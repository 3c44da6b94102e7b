"""Escapes, forms and queries are read as the standard library and the frameworks read them."""

from __future__ import annotations

from random import Random
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import pytest

from captoken.adapters._http.escapes import fields, unescaped, values_in


def test_escapes_are_read_as_the_standard_library_reads_them() -> None:
    draw = Random(28)
    for _ in range(20_000):
        data = bytes(draw.choices(b"%%%%0149aAfFgGcp_-&=+\xc3\xa4\x00", k=draw.randrange(24)))
        assert unescaped(data) == unquote_to_bytes(data)


def test_a_form_is_read_as_the_standard_library_reads_it() -> None:
    draw = Random(28)
    read = 0
    for _ in range(20_000):
        data = bytes(draw.choices(b"%%0149aAcC3\xe4&&===+x", k=draw.randrange(24)))
        expected: Any = None
        try:
            text = data.decode("ascii")
            expected = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(data), errors="strict", max_num_fields=4)
        except ValueError:
            with pytest.raises(ValueError):
                fields(data, 4)
            continue
        assert fields(data, 4) == expected
        read += bool(expected)
    assert read > 1000


def test_a_query_is_read_as_frameworks_read_it() -> None:
    draw = Random(28)
    found = 0
    for _ in range(20_000):
        data = b"".join(draw.choices([b"a", b"%61", b"=", b"=", b"&", b"+", b"%", b"%C3%A4", b"1"], k=draw.randrange(12)))
        expected = [value for name, value in parse_qsl(data.decode("latin-1"), keep_blank_values=True) if name == "a"]
        assert values_in(data, b"a") == expected
        found += len(expected)
    assert found > 1000
