"""Writes docs/assurance.md anew, from `claims.toml`: `python -m tests.assurance` from the root of the repository."""

from __future__ import annotations

from tests.assurance import claims

if __name__ == "__main__":
    claims.PAGE.write_text(claims.page(), "utf-8")
