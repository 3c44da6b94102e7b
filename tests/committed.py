"""What is committed, in a folder: files that only lie beside it are not in there."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def unpack(folder: Path, rev: str = "HEAD", *paths: str, root: Path = ROOT) -> None:
    """Put what a commit has there, or these paths of it."""
    packed = subprocess.run(["git", "archive", rev, *paths], cwd=root, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
