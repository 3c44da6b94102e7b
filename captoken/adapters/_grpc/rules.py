"""What the two interceptors share: the rules for methods, and how a call begins.

The rules by number: `captoken.adapters.grpc`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from captoken._language.access import Access, Caller
from captoken._verification.decision import Denied
from captoken._verification.verifier import Verifier
from captoken.adapters._grpc.calls import Judged, Rule
from captoken.adapters._grpc.credentials import read_credentials, request_digest
from captoken.adapters._grpc.handlers import method_name

_log = logging.getLogger("captoken")


class Rules:
    """Who may call which method.

    A method that is neither among the rules nor public is refused to everybody (rule 2): so one
    that is added to a service later is not open by mistake.
    """

    def __init__(
        self,
        verifier: Verifier,
        methods: Mapping[str, Rule],
        *,
        public: Iterable[str] = (),
        caller: Callable[[Any], Caller | None] | None = None,
    ) -> None:
        """`methods`: rules, by `/package.Service/Method`.

        `public`: methods that need no token, such as a health check. `caller`: who calls, as the
        server's own authentication knows it, from the servicer context. If that is nobody, or it
        raises, the call is refused. Raises TypeError or ValueError.
        """
        for method, rule in methods.items():
            if not (isinstance(rule, Access) or callable(rule)):
                kind = type(rule).__name__
                raise TypeError(f"a rule is an Access, or a callable that returns one, not {kind}")
            method_name(method)
        if isinstance(public, str):
            raise TypeError("public is a list of methods, not a str")
        self._verifier = verifier
        self._methods = dict(methods)
        self._public = frozenset(method_name(method) for method in public)
        self._caller = caller

    def _authenticated(self, context: Any, method: str, message: bytes | None) -> Judged:
        """The call with its token verified. Raises Denied.

        `message` is None where the client sends a stream (rule 4).
        """
        text, proof = read_credentials(context.invocation_metadata(), streamed=message is None)
        digest = None
        if message is not None and proof is not None:
            digest = request_digest(method, message)
        grant = self._verifier.authenticate(text, proof=proof, request=digest)

        caller = None
        if self._caller is not None:
            caller = _known(self._caller, context)
            if caller is None:
                refusal = grant.refusal("caller", "the server knows nobody who calls")
                raise Denied(grant.record(refusal))
        return Judged(grant, self._methods.get(method), caller)


def _known(caller: Callable[[Any], Caller | None], context: Any) -> Caller | None:
    """Who calls, as the server knows it, or None.

    What its function raises may say how the server authenticates: it is logged by its type alone.
    """
    try:
        known = caller(context)
    except Exception as error:  # whatever it is: gRPC would tell the client
        _log.error("who calls is not known: %s", type(error).__name__)
        return None
    return known if isinstance(known, Caller) else None
