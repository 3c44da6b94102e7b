"""What a gRPC call carries: a token once, and a proof at its end for this request alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from captoken.adapters.grpc import Presenting, request_digest
from captoken.keys import HolderKey
from captoken.proof import with_proof
from tests.adapters.over_grpc.test_grpc import (
    BOUND,
    HOLD,
    OWN,
    SALES,
    STATUS,
    UNACCEPTED,
    Asking,
    World,
    bound,
    decode,
    encode,
    header,
    presented,
)
from tests.fixtures import clock, mint

UNPROVEN = (STATUS.UNAUTHENTICATED, "The request needs a fresh proof from the key that the token is bound to.")


def test_a_bound_token_comes_with_a_proof_for_its_request(calls: Asking) -> None:
    said = calls(World(), ("Read", SALES, bound()), ("Read", SALES, bound()), ("Watch", SALES, bound()))
    assert said[:2] == ["orchestrator"] * 2 and len(said[2]) == 3


def proven(message: bytes, method: str = "Read", key: HolderKey = OWN) -> str:
    digest = request_digest(f"/shop.Sales/{method}", message)
    return with_proof(presented(BOUND), key, audience="sales-db", request=digest, clock=clock())


def proof_of(text: str) -> str:
    return text.rpartition(".")[2]


PROOFS: dict[str, Callable[[], str]] = {
    "none": lambda: presented(BOUND),
    "for another request": lambda: proven(encode({"table": "sales", "operation": "insert"})),
    "for another method": lambda: proven(encode(SALES), "Watch"),
    "for the same JSON, spelled otherwise": lambda: proven(b'{"table":"sales"}'),
    "for no request": lambda: with_proof(presented(BOUND), OWN, audience="sales-db", clock=clock()),
    "by another key": lambda: proven(encode(SALES), key=HolderKey.generate()),
    "on a token that is bound to no key": lambda: f"{presented()}.{proof_of(proven(encode(SALES)))}",
}


@pytest.mark.parametrize("text", PROOFS.values(), ids=PROOFS)
def test_a_proof_is_for_one_request(text: Callable[[], str], calls: Asking) -> None:
    world = World()
    wrong = {"presenting": False, "metadata": header(f"Bearer {text()}")}
    right = {"presenting": False, "metadata": header(f"Bearer {proven(encode(SALES))}")}
    assert calls(world, ("Read", SALES, wrong), ("Read", SALES, right)) == [UNPROVEN, "orchestrator"]
    assert world.done == [SALES]


MISPLACED: dict[str, Callable[[str, str], Any]] = {
    "twice": lambda text, proof: header(f"Bearer {text}.{proof}.{proof}"),
    "before the token": lambda text, proof: header(f"Bearer {proof}.{text}"),
    "alone": lambda text, proof: header(f"Bearer {proof}"),
    "in a header of its own": lambda text, proof: (*header(f"Bearer {text}"), ("authorization", f"Bearer {proof}")),
    "cut short": lambda text, proof: header(f"Bearer {text}.{proof[:-4]}"),
}


@pytest.mark.parametrize("metadata", MISPLACED.values(), ids=MISPLACED)
def test_a_proof_stands_once_and_at_the_end(metadata: Callable[[str, str], Any], calls: Asking) -> None:
    """The specification's rule 40.6."""
    text, _, proof = proven(encode(SALES)).rpartition(".")
    wrong = {"presenting": False, "metadata": metadata(text, proof)}
    right = {"presenting": False, "metadata": header(f"Bearer {text}.{proof}")}
    assert calls(World(), ("Read", SALES, wrong), ("Read", SALES, right)) == [(STATUS.UNAUTHENTICATED, UNACCEPTED), "orchestrator"]


def test_a_proof_is_used_once(calls: Asking) -> None:
    again = {"presenting": False, "metadata": header(f"Bearer {proven(encode(SALES))}")}
    assert calls(World(), ("Read", SALES, again), ("Read", SALES, again)) == ["orchestrator", UNPROVEN]


@pytest.mark.parametrize("method", ["Load", "Chat"])
def test_a_bound_token_opens_no_stream_from_the_client(method: str, calls: Asking) -> None:
    """No proof would cover its messages. A client says so; a server holds to it, whatever the client sends."""
    world = World()
    with pytest.raises(ValueError, match="cannot open a stream"):
        calls(world, (method, [SALES], bound()))
    of_nothing = with_proof(presented(BOUND), OWN, audience="sales-db", clock=clock())  # a proof that shows the token
    for text in (proven(b"", method), proven(encode(SALES), method), presented(BOUND), of_nothing):
        (said,) = calls(world, (method, [HOLD, SALES], {"presenting": False, "metadata": header(f"Bearer {text}")}))
        assert said in (UNPROVEN, (UNPROVEN,))
    bearer = header(f"Bearer {presented()}.{proof_of(proven(b'', method))}")
    assert calls(world, (method, [HOLD, SALES], {"presenting": False, "metadata": bearer}))[0] in (UNPROVEN, (UNPROVEN,))
    assert world.done == [] and not any(world.trail.decisions)
    alone = {"presenting": False, "metadata": header(f"Bearer {presented()}")}
    calls(world, (method, [SALES], alone))
    assert SALES in world.done  # a bearer token does


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_metadata_that_has_a_token_already_is_not_sent(name: str) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as plain:
        stub = Presenting(plain, audience="sales-db", held=mint(), insecure=True).unary_unary(
            "/shop.Sales/Read", encode, decode
        )
        with pytest.raises(ValueError, match="already"):
            stub(SALES, metadata=[(name, "x")])
