"""A gRPC service that decides on every call, and on every message of a stream, by its token.

    pip install 'captoken[grpc]' && python examples/grpc_service.py

The messages are JSON, so that nothing has to be compiled; a stub that protoc made takes the same
channel.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]

from captoken import Access, Issuer, Keyring, Verifier, current
from captoken.adapters.grpc import Guard, Presenting
from captoken.keys import HolderKey
from captoken.stores.sqlite import SQLiteReplayStore

TABLES = {"sales": ["eu 5", "us 7"], "hr": ["jane 90000"], "market.moves": ["down 7 percent"]}

Message = dict[str, str]


def encode(message: Any) -> bytes:
    """JSON, as bytes."""
    return json.dumps(message).encode()


# --- The server -----------------------------------------------------------------------------------


def read(message: Message, context: Any) -> str:
    """Unary: runs only once its message was permitted. The grant says who asks."""
    return f"{TABLES[message['table']]}, for {current.grant().actor.name}"


def follow(messages: Iterable[Message], context: Any) -> Iterator[list[str]]:
    """A stream either way: each message is decided on before it is seen here."""
    for message in messages:
        yield TABLES[message["table"]]


def reading(message: Message) -> Access:
    """What a call needs: by its message, or always the same."""
    return Access(table=message["table"], operation="select")


# A method that is not here is refused to everybody.
RULES = {
    "/shop.Sales/Read": reading,
    "/shop.Sales/Follow": reading,
}

keyring = Keyring.generate().for_audience("sales-db")

# Made once, along with the keys; a server that starts again opens it: `SQLiteReplayStore(path)`.
folder = tempfile.TemporaryDirectory()
proofs = SQLiteReplayStore.create(f"{folder.name}/proofs.db", keys=keyring.key_ids)
verifier = Verifier(keyring, audience="sales-db", replays=proofs)
server = grpc.server(ThreadPoolExecutor(4), interceptors=[Guard(verifier, RULES)])
handlers = {
    "Read": grpc.unary_unary_rpc_method_handler(read, json.loads, encode),
    "Drop": grpc.unary_unary_rpc_method_handler(read, json.loads, encode),
    "Follow": grpc.stream_stream_rpc_method_handler(follow, json.loads, encode),
}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Sales", handlers)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()

# --- The client -----------------------------------------------------------------------------------


class Sales:
    """What protoc would have made."""

    def __init__(self, channel: Any) -> None:
        self.read = channel.unary_unary("/shop.Sales/Read", encode, json.loads)
        self.drop = channel.unary_unary("/shop.Sales/Drop", encode, json.loads)
        self.follow = channel.stream_stream("/shop.Sales/Follow", encode, json.loads)


def told(title: str, call: Callable[[], Any]) -> None:
    """Make a call, and print what came of it."""
    try:
        print(f"{title:<45}{call()}")
    except grpc.RpcError as error:
        print(f"{title:<45}{error.code().name}: {error.details()}")


def each(answers: Iterable[Any]) -> str:
    """A stream's answers as they come, and how it ends."""
    said = []
    try:
        for answer in answers:
            said.append(str(answer))
    except grpc.RpcError as error:
        said.append(f"{error.code().name}: {error.details()}")
    return ", then ".join(said)


mint = partial(
    Issuer(keyring).mint,
    subject="user:jane",
    agent="orchestrator",
    task="q3-risk",
    operations=["select"],
)
root = mint(tables=["sales", "market.*"])

with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    shown = Presenting(channel, audience="sales-db", insecure=True)  # insecure: this is loopback
    sales = Sales(shown)
    bare = Sales(channel)

    with current.use(root), current.delegate(to="sales-agent", tables=["sales"], expires_in=60):
        told("read sales", lambda: sales.read({"table": "sales"}))
        told("read hr", lambda: sales.read({"table": "hr"}))
        told(
            "read market.moves, which was not handed on",
            lambda: sales.read({"table": "market.moves"}),
        )
        told("a method without a rule", lambda: sales.drop({"table": "sales"}))
        three = [{"table": table} for table in ("sales", "sales", "hr")]
        told("a stream: sales, sales, hr", lambda: each(sales.follow(iter(three))))

    told("no token at all", lambda: bare.read({"table": "sales"}))
    forged = [("authorization", "Bearer cap1_AgJ9")]
    told("a forged one", lambda: bare.read({"table": "sales"}, metadata=forged))
    wary = Sales(Presenting(channel, audience="sales-db", held=root))
    told("over a channel that is not encrypted", lambda: wary.read({"table": "sales"}, timeout=5))

    key = HolderKey.generate()
    bound = mint(tables=["sales"], key=key.public)
    with current.use(bound, key):
        told("bound to a key, with a proof", lambda: sales.read({"table": "sales"}))
    stolen = [("authorization", f"Bearer {bound.present(audience='sales-db')}")]
    told(
        "the same token, stolen without the key",
        lambda: bare.read({"table": "sales"}, metadata=stolen),
    )

server.stop(0).wait()
proofs.close()
folder.cleanup()
