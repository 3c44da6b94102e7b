"""The pages that say how agents get their tokens on a platform, taken apart and done, on this machine.

Addresses and folders of a page become those of stand-ins. Nothing else of it is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from captoken import Access, Keyring, Verifier
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.stores.memory import MemoryReplayStore
from tests.adapters.serving import wait_for

ROOT = Path(__file__).parent.parent.parent
_fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = "captoken issue serve"
PROGRAM = "IssuanceService("  # in the service's own, and not in the agent's


class Recipe:
    """One page, in a folder of its own. `places` says what stands for what."""

    def __init__(self, page: str, folder: Path, places: Mapping[str, str]) -> None:
        self.text = (ROOT / "docs" / page).read_text("utf-8")
        self.folder = folder
        self.places = dict(places)
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.service = f"http://127.0.0.1:{self.port}"
        self.places["https://issuer.example"] = self.service
        scripts = folder / "bin"
        scripts.mkdir()
        self.program("captoken", f'exec {sys.executable} -m captoken "$@"')
        if shutil.which("jq") is None:
            self.program("jq", f"exec {sys.executable} -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)[sys.argv[2][1:]])' \"$@\"")
        self.environ = {
            "PATH": os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.defpath]),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
        }

    def program(self, name: str, script: str) -> None:
        """A program that the page's commands find."""
        made = self.folder / "bin" / name
        made.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        made.chmod(0o755)

    def blocks(self, language: str) -> list[str]:
        return [self.here(block) for kind, block in _fence.findall(self.text) if kind == language]

    def here(self, text: str) -> str:
        """What a page says, with the places of this machine."""
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def policy(self) -> str:
        """The page's, which is written into its file, and which loads as it stands there, too."""
        (self.folder / "page.toml").write_text("".join(block for kind, block in _fence.findall(self.text) if kind == "toml"), "utf-8")
        self.sh("captoken issue check page.toml")
        made = "".join(self.blocks("toml"))
        (self.folder / "policy.toml").write_text(made, "utf-8")
        return made

    def sh(self, commands: str, code: int = 0, **environ: str) -> str:
        """What a shell writes that does these, beside its exit code."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=self.folder, env=self.environ | environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout if code == 0 else done.stderr

    def python(self, more: str = "", **environ: str) -> str:
        """What the agent's Python of the page prints, from top to bottom, and then this."""
        source = "\n".join([*(block for block in self.blocks("python") if PROGRAM not in block), more])
        (self.folder / "agent.py").write_text(source, "utf-8")
        return self.sh("python agent.py", **environ).strip()

    @contextmanager
    def served(self, *, is_first: bool = False, by_program: bool = False) -> Iterator[None]:
        """The service, begun by the page's own commands, or by its program, until the block ends.

        Unless it is to be the first time, its registry is there already: a new one takes nothing for a minute.
        """
        (commands,) = [block for block in self.blocks("sh") if SERVE in block]
        before, _, serve = commands.partition(SERVE)
        self.sh(before)
        if not is_first:
            SQLiteRegistry.create(self.folder / "tasks.db", floor=0)
            serve = serve.replace(" --create", "")
        command = f"{SERVE}{serve.rstrip()} --port {self.port}"
        if by_program:
            (program,) = [block for block in self.blocks("python") if PROGRAM in block]
            (self.folder / "service.py").write_text(program.replace("8700", str(self.port)), "utf-8")
            command = "python service.py"
        with (self.folder / "service.log").open("w") as log:
            server = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stderr=log)
        try:
            wait_for(self.port)
            yield
        finally:
            server.terminate()
            server.wait(timeout=10)

    def at_sales(self, text: str, table: str = "sales", columns: list[str] | None = None) -> str:
        """What the resource server says of a text."""
        keyring = Keyring.load(self.folder / "keyring.json")
        server = Verifier(keyring.for_audience("sales-db"), "sales-db", replays=MemoryReplayStore(floor=0))
        return server.check(text, Access(table=table, operation="select", columns=columns)).code

    @property
    def log(self) -> str:
        """What the service has told its operator."""
        return (self.folder / "service.log").read_text()

    def says(self, *shown: str) -> None:
        """Each of these is told on the page, in its table of what goes wrong."""
        for one in shown:
            assert f"`{one}`" in self.text, one
