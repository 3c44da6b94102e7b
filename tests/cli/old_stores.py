"""What the first version made, for a session: an office in `state`, and `shared.db`, in which all stores lie together."""

import shutil
from pathlib import Path

import tests.museum

MADE = Path(tests.museum.__file__).parent / "0.1.0"
shutil.copytree(MADE / "office", "state")
shutil.copy(MADE / "sqlite" / "shared.db", "shared.db")
for path in (Path("state"), *Path("state").iterdir(), Path("shared.db")):
    path.chmod(0o700 if path.is_dir() else 0o600)
