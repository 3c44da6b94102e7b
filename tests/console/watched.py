"""A page in Chromium that tells all that goes wrong in it."""

from __future__ import annotations

from typing import Any

_TELLS = "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"


def watched(context: Any) -> tuple[Any, list[str]]:
    """A new page, and a list to which its errors, warnings, dialogs and what its policy forbade are added."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.add_init_script(_TELLS)
    return page, wrong
