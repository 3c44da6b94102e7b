"""A code that there is not is told when the test is written."""

from __future__ import annotations

import pytest

from captoken.testing import assert_denied


def test_a_code_that_there_is_not_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"'tables' is no code of a denial, as docs/errors\.md lists them: did you mean table\?"):
        assert_denied(code="tables")
    with pytest.raises(ValueError, match=r"'xyzzy' is no code of a denial, as docs/errors\.md lists them$"):
        assert_denied(code="xyzzy")
