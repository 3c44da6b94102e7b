"""Files that a page has people write: what stands between `cat > NAME <<'END'` and `END`."""

from __future__ import annotations

import re
from pathlib import Path

_WRITTEN = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)


def heredocs(page: Path) -> dict[str, str]:
    return dict(_WRITTEN.findall(page.read_text("utf-8")))
