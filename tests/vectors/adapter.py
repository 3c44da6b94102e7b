"""captoken, as the runner asks it. Where there are several ways to ask, all are asked and must agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from captoken import (
    Access,
    Caller,
    Capability,
    CaptokenError,
    Decision,
    Denied,
    Keyring,
    Token,
    TokenFormatError,
    Verifier,
    WideningError,
    chain,
)
from captoken.interop import normalize
from captoken.links import Link
from captoken.testing import FixedClock
from spec.generate import build
from tests.vectors.runner import Outcome, Vector


class Captoken:
    """The five functions."""

    def decide(self, vector: Vector) -> Outcome:
        try:
            verifier = _verifier(vector)
            access = None if vector["access"] is None else Access(**vector["access"])
            caller = None if vector["caller"] is None else Caller(**vector["caller"])
        except (TypeError, ValueError):
            return {"code": "usage"}
        decision = _asked_in_every_way(verifier, vector["token"], access, caller)
        grant = decision.grant
        if grant is None:
            return {"code": decision.code}
        return {
            "code": decision.code,
            "link_ids": list(grant.link_ids),
            "chain": [[actor.name, actor.basis] for actor in grant.chain],
            "task": grant.task,
            "expires_at": grant.expires_at,
        }

    def chain(self, vector: Vector) -> Outcome:
        derived = chain.derive(bytes.fromhex(vector["key"]))
        tags = [chain.mint_tag(derived, bytes.fromhex(vector["identifier"]))]
        for caveat in vector["caveats"]:
            tags.append(chain.extend(tags[-1], (bytes.fromhex(caveat["cid"]), bytes.fromhex(caveat["vid"]))))
        root_tag = vector["bound_to"]
        bound = None if root_tag is None else chain.bind(bytes.fromhex(root_tag), tags[-1]).hex()
        return {"code": "ok", "derived": derived.hex(), "tags": [tag.hex() for tag in tags], "bound": bound}

    def capability(self, vector: Vector) -> Outcome:
        one, two = (_capability(vector[key]) for key in ("one", "two"))
        both = one.meet(two)
        assert both == two.meet(one) == _capability(both.json()), "meet is symmetric, and its spelling says the same"
        return {
            "code": "ok",
            "meet": both.json(),
            "one_covers_two": one.covers(two),
            "two_covers_one": two.covers(one),
        }

    def widening(self, vector: Vector) -> Outcome:
        token = Token.parse(vector["token"], clock=FixedClock(vector["now"]), random=lambda _: bytes.fromhex(vector["nonce"]))
        try:
            made = (
                token.attenuate(**vector["asked"])
                if vector["to"] is None
                else token.delegate(to=vector["to"], **vector["asked"])
            )
        except WideningError as error:
            return {"code": error.code, "dimension": error.dimension}
        except CaptokenError as error:
            return {"code": error.code}
        except (TypeError, ValueError):
            return {"code": "usage"}
        assert made.unverified.bodies[:-1] == token.unverified.bodies, "a link is added, and nothing else"
        return {"code": "ok", "link": json.loads(made.unverified.bodies[-1])}

    def interop(self, vector: Vector) -> Outcome:
        try:
            text = normalize(vector["source"] if vector["form"] == "text" else bytes.fromhex(vector["source"]))
        except TokenFormatError as error:
            return {"code": error.code}
        assert normalize(text) == text
        return {"code": "ok", "text": text}


def _verifier(vector: Vector) -> Verifier:
    facts = vector["facts"]
    return Verifier(
        _keyring(**vector["keyring"]),
        tuple(facts["audiences"]) or None,
        allow_unaddressed=facts["allow_unaddressed"],
        leeway=facts["leeway"],
        clock=FixedClock(facts["now"]),
    )


def _keyring(keys: dict[str, str], audience: str | None) -> Keyring:
    stated = {key_id: bytes.fromhex(key) for key_id, key in keys.items()}
    current = next(iter(stated))
    return Keyring.from_keys(stated, current) if audience is None else Keyring(stated, current, audience)


def _asked_in_every_way(verifier: Verifier, text: str, access: Access | None, caller: Caller | None) -> Decision:
    """The decision, once `check`, `explain`, a grant, a parsed token and the exceptions have all said the same."""
    said = set()
    try:
        grant = verifier.authenticate(text)
    except Denied as denied:
        decision = denied.decision
    else:
        decision = grant.recheck()
        if access is not None:
            said = {grant.check(access, caller=caller).code, _code(lambda: grant.authorize(access, caller=caller))}
    try:
        token = Token.parse(text)
    except TokenFormatError as error:
        said.add(error.code)
    else:
        assert token.serialize() == text, "one token has one text"
        said.add(
            _code(lambda: verifier.authenticate(token)) if access is None else verifier.check(token, access, caller=caller).code
        )
    if access is not None:
        decision = verifier.check(text, access, caller=caller)
        said |= {
            verifier.explain(text, access, caller=caller).code,
            _code(lambda: verifier.authorize(text, access, caller=caller)),
        }
    assert said == {decision.code}, (decision.code, said)
    return decision


def _code(ask: Callable[[], Any]) -> str:
    try:
        ask()
    except Denied as denied:
        return denied.code
    return "allowed"


def _capability(stated: dict[str, Any]) -> Capability:
    (link,) = Token.parse(build.token(stated).text).unverified.links
    assert isinstance(link, Link)
    return Capability.of([link])
