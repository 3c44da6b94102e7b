"""`python -m tests.benchmarks`"""

import sys

try:
    from .compare import main
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is missing. A benchmark without a peer is none: pip install -e '.[bench]'")

main()
