"""The client's side of gRPC: what one call of a stub's method shows the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from captoken._format.extras import extra

with extra("grpc"):
    import grpc  # type: ignore[import-untyped]

from captoken import current
from captoken._format.clocks import Seconds
from captoken.adapters._grpc.credentials import AUTHORIZATION, request_digest
from captoken.current import AnyHeld

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Shows: TypeAlias = Callable[[], Metadata]  # makes the metadata of one sending


class Presenter:
    """What is shown to the server `audience`, and whether over any channel (`insecure`).

    It presents anew for each call: what is held is taken from where the call is made, and lives on
    the wire for seconds.
    """

    def __init__(
        self,
        audience: str,
        held: AnyHeld | None,
        expires_in: Seconds,
        insecure: bool,
    ) -> None:
        self.audience = audience
        self.insecure = insecure
        self._held = None if held is None else current.holding(held)
        self._expires_in = expires_in

    def for_call(self, method: str, message: bytes | None) -> Shows:
        """What makes the metadata of one call; `message` is None where the client sends a stream.

        A function, since a call may be sent more than once, each time with a text of its own (rule
        7). Raises NoToken, and ValueError for a stream under a token that is bound to a key.
        """
        held = current.holding(self._held).at(self.audience)
        bound = held.key is not None
        digest: bytes | None = None
        if bound and message is None:  # rule 4
            raise ValueError(
                "a token that is bound to a key cannot open a stream from the client: the proof "
                "would cover no message"
            )
        if bound and message is not None:
            digest = request_digest(method, message)

        def show() -> Metadata:
            text = held.present(
                audience=self.audience,
                request=digest,
                expires_in=self._expires_in,
            )
            return ((AUTHORIZATION, f"Bearer {text}"),)

        return show


class PresentingMethod:
    """One method of a stub: a multi-callable that shows a token.

    It is called as grpc's own are, positional arguments and all: a stub knows no other.
    `serialize` makes bytes of the one request; None where the client sends a stream. It is called
    once: the bytes that are proven are those that are sent.
    """

    def __init__(
        self,
        presenter: Presenter,
        method: str,
        inner: Any,
        serialize: Callable[[Any], bytes] | None,
    ) -> None:
        self._presenter = presenter
        self._method = method
        self._inner = inner
        self._serialize = serialize

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Any:
        """The answer, or the stream of answers. Raises what `Presenter.for_call` raises."""
        return self._with(self._inner, request, timeout, metadata, options)

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Any:
        """The answer, and the call that it came by."""
        return self._with(self._inner.with_call, request, timeout, metadata, options)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        **options: Any,
    ) -> Any:
        """The answer, later. The token is presented now, with what is held where this is called."""
        return self._with(self._inner.future, request, timeout, metadata, options)

    def _with(
        self,
        call: Any,
        given: Any,
        timeout: float | None,
        metadata: Iterable[tuple[str, Any]] | None,
        options: dict[str, Any],
    ) -> Any:
        """One call, in whichever of these ways; what the caller says of it goes along.

        Raises ValueError for metadata that has a token already: the server would refuse two.
        """
        own = tuple(metadata) if metadata is not None else ()
        if any(key.lower() == AUTHORIZATION for key, _ in own):
            raise ValueError("the metadata already has a token: leave it out, this client adds one")

        sent = given
        message: bytes | None = None
        if self._serialize is not None:
            sent = message = self._serialize(given)
        show = self._presenter.for_call(self._method, message)
        shown = show()  # here, where its errors reach the caller as they are
        if self._presenter.insecure:
            # Put them into the metadata of the call, which gRPC sends over any channel.
            own = (*own, *shown)
        else:
            # Use call credentials, which gRPC sends only over an encrypted channel (rule 6).
            plugin = _Plugin(shown, show)
            options["credentials"] = _with_token(options.get("credentials"), plugin)
        return call(
            sent,
            timeout=timeout,
            metadata=own,
            **options,
        )


def as_is(given: Any) -> bytes:
    """The serializer of a method that has none. Raises TypeError."""
    if type(given) is not bytes:
        raise TypeError(f"a request without a serializer must be bytes, not {type(given).__name__}")
    return given


def _with_token(credentials: Any, plugin: _Plugin) -> Any:
    """The caller's credentials for a call, if there are any, and ours.

    gRPC refuses to send either over a channel that is not encrypted (rule 6).
    """
    ours = grpc.metadata_call_credentials(plugin)
    if credentials is None:
        return ours
    composite: Any = grpc.composite_call_credentials
    return composite(credentials, ours)


class _Plugin(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """Rules 6 and 7: what gRPC adds to one call each time it sends it, if its channel is encrypted.

    gRPC asks for it in a thread of its own. What was made where the call was made goes out first;
    whatever is sent again after that has been presented anew.
    """

    def __init__(self, first: Metadata, show: Shows) -> None:
        self._unsent = [first]
        self._show = show

    def __call__(self, context: Any, callback: Any) -> None:
        try:
            shown = self._unsent.pop()
        except IndexError:  # it was sent
            try:
                shown = self._show()
            except Exception as error:  # whatever a signer raises: the call ends with it
                callback((), error)
                return
        callback(shown, None)
