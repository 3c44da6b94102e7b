"""`python -m tests.costs [NAME]`: what each operation executes, at three sizes. `--page` writes docs/growth.md."""

import sys

from .operations import OPERATIONS
from .page import PAGE, measured, page

if sys.argv[1:] == ["--page"]:
    PAGE.write_text(page(), "utf-8")
else:
    for each in OPERATIONS:
        if all(word in f"{each.name} {each.grows}" for word in sys.argv[1:]):
            print(f"{each.order:8} {measured(each)}  {each.area}: {each.name} ({each.grows})", flush=True)
