"""python -m tests.reactions.measure [RECORDS] [AGENTS]: how fast rules read a trail, and how much memory that takes.

A trail is made of so many decisions on tokens of so many agents, each of which has a text of its own. Three rules read it, in so much memory as is allowed here, however many records there are. Then
how long it takes from a fifth refusal to the denial by a verifier whose feed looks at each decision.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from captoken._format.encoding import b64encode, encode_json
from captoken.cli.reactions.stated import read
from captoken.cli.reactions.watching import Reactor
from captoken.stores.ports import Head
from tests.reactions.world import PROBING, World

RULES = (
    PROBING
    + """
[rule.flood]
when = { codes = ["allowed"] }
count = { usual = 10 }
then = "alert"
why = "a flood"
[rule.outside]
when = { tools = ["mail.*"] }
count = 3
then = "alert"
why = "mails"
"""
)


MOST = 150  # MB that following may take


def make(path: Path, decisions: int, agents: int) -> int:
    """A trail: each tenth decision is refused. How many records it has."""
    prev, seq = Head().hash, 0
    with open(path, "wb") as file:

        def write(record: dict[str, object]) -> None:
            nonlocal prev, seq
            seq += 1
            line = encode_json({**record, "prev": prev, "seq": seq})
            prev = b64encode(sha256(line).digest())
            file.write(line + b"\n")

        for number in range(decisions):
            agent = number % agents
            name = f"agent-{agent}"
            link = b64encode(sha256(name.encode()).digest()[:16])
            if number < agents:
                says = {"from": "lead", "n": "AAAAAAAAAAA", "to": name}
                root = {"agent": "lead", "jti": link, "sub": "ann", "task": f"task-{agent % 1000}"}
                write({"kind": "token", "links": [{"id": b64encode(bytes(16)), "says": {}}, {"id": link, "says": says}], "root": root})
            refused = number % 10 == 9
            write(
                {
                    "kind": "decision", "at": 1_800_000_000 + number // 20_000, "ms": number % 1000, "allowed": not refused,
                    "code": "table" if refused else "allowed", "access": {"table": "hr", "operation": "select"},
                    "token": link, "sub": "ann", "task": f"task-{agent % 1000}", "link": link,
                    "chain": [{"name": "lead", "basis": "issued"}, {"name": name, "basis": "vouched"}],
                }
            )
    return seq


def follow(folder: Path) -> None:
    """In a process of its own, so that its memory is that of following alone."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun, cpu = time.perf_counter(), time.process_time()
    with closing(Reactor(folder / "react.db", [folder / "big.jsonl"], read(str(folder / "rules.toml")), lambda: 1_800_000_600)) as reactor:
        reactor.take()
        [(records,)] = reactor.rows("select sum(seq) from trails")
        trouble = [one.trouble for one in reactor.trails() if one.trouble]
        causes = len(reactor.causes())
    took = time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(os.path.getsize(path) for path in folder.glob("react.db*")) / 2**20
    print(f"{records:,} records: {records / took:,.0f} a second of processor time, {time.perf_counter() - begun:.1f} s")
    print(f"memory {memory:.0f} MB, {before:.0f} of them before; file {size:.0f} MB; {causes} causes{trouble or ''}")
    assert memory - before <= MOST and not trouble and causes


def latency(folder: Path, times: int = 10) -> None:
    world = World(folder, PROBING, int(time.time()))
    world.clock = time.time  # type: ignore[assignment]
    world.operator._history._clock = time.time
    command = [sys.executable, "-m", "captoken", "react", "run", str(world.rules), "--trail", str(folder / "trail.jsonl")]
    acting = ["--key", str(folder / "operator.json"), "--store", str(folder / "overlay.db"), "--state", str(folder / "lag.db")]
    world.ask(world.mint())
    running = subprocess.Popen([*command, *acting], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stderr is not None
    running.stderr.readline()
    took = []
    for number in range(times):
        token = world.mint(agent=f"agent-{number}")
        world.ask(token, "hr", times=5)
        begun = time.perf_counter()
        while world.ask(token) != "revoked":
            time.sleep(0.005)
        took.append(time.perf_counter() - begun)
    running.terminate()
    running.wait()
    took.sort()
    print(f"from record to denial: p50 {took[len(took) // 2] * 1000:.0f} ms, most {took[-1] * 1000:.0f} ms")


def main(records: int, agents: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.toml").write_text(RULES, "utf-8")
        make(folder / "big.jsonl", records, agents)
        subprocess.run([sys.executable, "-m", "tests.reactions.measure", "follow", name], check=True)
        place = folder / "lag"
        place.mkdir()
        latency(place)


if __name__ == "__main__":
    if sys.argv[1:2] == ["follow"]:
        follow(Path(sys.argv[2]))
    else:
        main(int((sys.argv[1:2] or ["1000000"])[0]), int((sys.argv[2:3] or ["100000"])[0]))
