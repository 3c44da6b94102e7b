"""A copy of the package with a fault, and one test that runs on it, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.assurance.claims import ROOT, Mutation

# What tests read beside the package. It is not changed, and so not copied.
_BESIDE = ("spec", "docs", "examples", "README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", ".ci")
_LONGEST = 120  # seconds that a test may take with a fault: one that makes it hang is seen as well


class Copy:
    """The package and its tests in a folder of their own, where a fault harms nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        left_out = shutil.ignore_patterns("node_modules")
        # With what is compiled already: Python compiles anew what differs.
        for name in ("captoken", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        for name in ("captoken_pytest.py", "pyproject.toml"):
            shutil.copy2(ROOT / name, folder)
        # The checkout may be read-only, and a copy of a file has its mode.
        for one in folder.rglob("*"):
            one.chmod(one.stat().st_mode | 0o200)
        for name in _BESIDE:
            (folder / name).symlink_to(ROOT / name)

    @contextmanager
    def with_fault(self, mutation: Mutation) -> Iterator[None]:
        """The copy with the fault, for as long as the block lasts."""
        path = self.folder / "captoken" / mutation.file
        source = path.read_text("utf-8")
        path.write_text(mutation.applied(source), "utf-8")
        # What is compiled is known by time and length, and both may be the same.
        compiled = list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))
        try:
            for one in compiled:
                one.unlink()
            yield
        finally:
            path.write_text(source, "utf-8")
            for one in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                one.unlink()

    def failed(self, tests: Iterable[str], longest: int = _LONGEST) -> tuple[int, str]:
        """How many of the tests failed, up to the first, and what was printed; 1 for what took longer than so many seconds.

        Raises RuntimeError where it cannot be told: none was collected, or the package cannot be imported.
        """
        # Without plugins: what one of them imports takes longer than a test.
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-rf", "-p", "no:cacheprovider", *tests]
        try:
            ran = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=longest, check=False
            )
        except subprocess.TimeoutExpired:
            return 1, "out of time"
        failed = len(re.findall(r"^FAILED ", ran.stdout, re.MULTILINE))
        if (ran.returncode, failed > 0) not in ((0, False), (1, True)):
            raise RuntimeError(ran.stdout + ran.stderr)
        return failed, ran.stdout
