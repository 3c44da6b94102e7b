"""What the two interceptors share: the rules for methods, and how a call begins.

A call begins with its token, before its message is parsed: bytes of a stranger reach no parser of
the owner's. The rules by number: `captoken.adapters.grpc`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from captoken._format.names import frozen_copy
from captoken._format.text import without_proof
from captoken._language.access import Access, Caller
from captoken._language.bounds import BODY_BYTES, TOO_LARGE, read_bytes
from captoken._language.costs import Cost, costing, read_cost
from captoken._verification.decision import Denied
from captoken._verification.grant import AsyncGrant
from captoken._verification.verifier import AnyVerifier, AsyncVerifier
from captoken.adapters._grpc.calls import Judged, Rule, Steps
from captoken.adapters._grpc.credentials import read_token, request_digest
from captoken.adapters._grpc.handlers import method_name
from captoken.current import AnyGrant

_log = logging.getLogger("captoken")


class Rules:
    """Who may call which method.

    A method that is neither among the rules nor public is refused to everybody (rule 2): so one
    that is added to a service later is not open by mistake.
    """

    def __init__(
        self,
        verifier: AnyVerifier,
        methods: Mapping[str, Rule],
        *,
        public: Iterable[str] = (),
        caller: Callable[[Any], Caller | None] | None = None,
        cost: Cost | None = None,
        max_message: int = BODY_BYTES,
    ) -> None:
        """`methods`: rules, by `/package.Service/Method`.

        `public`: methods that need no token, such as a health check. `caller`: who calls, as the
        server's own authentication knows it, from the servicer context. If that is nobody, or it
        raises, the call is refused. `cost`: what a call takes of a budget, in the units that its
        rule does not state: a mapping by unit, or a function of the message that gives one. With a
        function each call is judged by its messages, and it raises as a rule does. `max_message`:
        bytes of a message.

        Raises TypeError or ValueError: what is misspelled here would else be found by a call that
        is let in, or by none.
        """
        rules = frozen_copy(methods, "methods")
        known = read_cost(cost)
        for method, rule in rules.items():
            if not (isinstance(rule, Access) or callable(rule)):
                kind = type(rule).__name__
                raise TypeError(
                    f"a rule must be an Access, or a callable that returns one, not {kind}"
                )
            method_name(method)
        # A str is a collection too: of one-letter names, none of which is a method.
        if isinstance(public, str):
            raise TypeError(
                'public must be a list of methods, like ["/pack.Service/Method"], not a str'
            )
        self._verifier = verifier
        self._methods: Mapping[str, Rule] = {
            method: costing(rule, known) for method, rule in rules.items()
        }
        self._public = frozenset(method_name(method) for method in public)
        self._caller = caller
        self._max_message = read_bytes(max_message, "max_message")

    def _authenticated(
        self,
        face: AnyVerifier,
        context: Any,
        method: str,
        message: bytes | None,
    ) -> Steps[Judged]:
        """The call with its token verified, by that face of the verifier. Raises Denied.

        `message` is None where the client sends a stream: there is no request then that a proof
        could cover. So a text with a proof opens none, not even one that shows the token and no
        request (rule 4). A bound token without a proof opens none either: the verifier says so.
        """
        text = read_token(context.invocation_metadata())
        has_proof = text != without_proof(text)
        digest: bytes | None = None
        if message is not None and len(message) > self._max_message:
            raise Denied((yield face.deny(text, *TOO_LARGE)))
        if has_proof and message is None:
            # Not left to the verifier: without a request, it would take a proof that shows the
            # token and no access, and the stream would be open to whoever came by that text.
            why = "no proof covers the messages of a stream"
            raise Denied((yield face.deny(text, "bad_proof", why)))
        if has_proof and message is not None:
            # Of a bearer token nothing is proven: its message is not hashed.
            digest = request_digest(method, message)
        grant = yield face.authenticate(text, request=digest)

        caller: Caller | None = None
        if self._caller is not None:
            caller = _known(self._caller, context)
            # Left out it would be a decision without a caller, which permits more.
            if caller is None:
                denied = yield grant.deny("caller", "the server knows nobody who calls")
                raise Denied(denied)
        return Judged(grant, self._served(grant), self._methods.get(method), caller)

    def _served(self, grant: AnyGrant) -> AnyGrant:
        """The grant as the handler asks it: awaited only where the owner's verifier is.

        The steps of a call are awaited on every asynchronous server. What an owner's handlers do
        does not turn on that: it turns on what the owner chose.
        """
        if isinstance(grant, AsyncGrant) and not isinstance(self._verifier, AsyncVerifier):
            return grant.blocking
        return grant


def _known(caller: Callable[[Any], Caller | None], context: Any) -> Caller | None:
    """Who calls, as the server knows it, or None where it knows nobody.

    What its function raises may say how the server authenticates: it is logged by its type alone,
    and is nobody too. So is what is no Caller, a name as text for one.
    """
    try:
        known = caller(context)
    except Exception as error:  # whatever it is: gRPC would tell the client
        _log.error("who calls is not known: %s", type(error).__name__)
        return None
    return known if isinstance(known, Caller) else None
