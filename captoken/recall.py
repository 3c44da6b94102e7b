"""A holder asks for the revocation of what it handed on, without any operator's key (spec, "Recall").

The holder knows the link that it wrote. It presents its own token to the control plane, with that link; the control plane
computes the link's id from the tags of the chain that it has verified, so nobody can ask for what is not below their own
hand-over.
"""

from __future__ import annotations

from captoken import chain, names, primitives
from captoken.encoding import LIMITS, EncodingError, b64decode, b64encode, decode_json, encode_json
from captoken.errors import Denied, RecallError
from captoken.grant import Grant
from captoken.overlay import Entry, Operator, Selector
from captoken.sealed import Sealed
from captoken.tokens import Token
from captoken.verify import Verifier
from captoken.wire import VID_BYTES

MAX_CHARS = 2 * LIMITS.bundle_chars


def recall(token: Token, handed_on: Token, *, audience: str, why: str, expires_in: int = 60) -> str:
    """The request that what `handed_on` and all below it can do be stopped. `token` is what it was made from.

    For the control plane called `audience`; as secret as what is presented to a server. Raises ValueError if `handed_on`
    was not made from `token`.
    """
    if not names.exact_str(why, "why").strip():
        raise ValueError("say why: the record is for people")
    held, given = token._packet, handed_on._packet
    count = len(held.caveats)
    if given.identifier != held.identifier or given.caveats[:count] != held.caveats or len(given.caveats) == count:
        raise ValueError("the one was not made from the other")
    stated = {
        "after": count - 1,
        "links": [{"cid": b64encode(cid), **({"vid": b64encode(vid)} if vid else {})} for cid, vid in given.caveats[count:]],
        "token": token.present(audience=audience, expires_in=expires_in, max_chars=LIMITS.bundle_chars),
        "v": 1,
        "why": why,
    }
    return encode_json(stated).decode()


class ControlPlane:
    """Takes requests of holders, and has the operator revoke. `verifier` is one for the control plane's own audience."""

    def __init__(self, verifier: Verifier, operator: Operator) -> None:
        self._verifier, self._operator = verifier, operator

    def handle(self, request: str, *, proof: str | None = None, digest: bytes | None = None) -> Entry:
        """Revoke what the request asks for. `proof` and `digest` go with a token that is bound to a key.

        Raises Denied for a token that is not accepted, RecallError for what its holder did not hand on, StoreError.
        """
        asked = _read(request)
        del request  # no frame that raises holds a token
        if isinstance(asked, RecallError):
            raise asked
        decision = self._verifier._decide(asked.token, None, None, (proof, digest))
        grant, why = decision.grant, asked.why
        link = None if grant is None else _link_id(grant, asked)
        del asked
        if grant is None:
            raise Denied(decision)
        if link is None:
            raise RecallError("the holder did not have the token at that link")
        for entry in self._operator.entries():  # asked for once is enough
            if entry.select == Selector(link=link, token=grant.token_id) and entry.link is None and entry.until is None:
                return entry
        return self._operator.revoke(
            link=link, token=grant.token_id, why=f"asked for by {grant.actor.name}: {why}"
        )


def _link_id(grant: Grant, asked: _Request) -> str | None:
    """The id of the link that is asked about, if it is below what the holder was handed."""
    if not grant._lineage_since <= asked.after < len(grant._tags):
        return None
    tag = grant._tags[asked.after]
    for link in asked.links:
        tag = chain.extend(tag, link)
    return b64encode(primitives.link_id(tag))


class _Request(Sealed):
    """A request that was read. Holds the token, so that no frame does."""

    __slots__ = ("after", "links", "token", "why")
    token: str
    after: int
    links: list[tuple[bytes, bytes]]
    why: str

    def __init__(self, token: str, after: int, links: list[tuple[bytes, bytes]], why: str) -> None:
        for name, value in (("token", token), ("after", after), ("links", links), ("why", why)):
            object.__setattr__(self, name, value)


def _read(request: str) -> _Request | RecallError:
    """Token, position, links and reason; or why it is none."""
    try:
        if type(request) is not str or len(request) > MAX_CHARS:
            raise ValueError("it is text of a bounded length")
        stated = decode_json(request.encode())
        shape = {key: type(value) for key, value in stated.items()}
        if shape != {"after": int, "links": list, "token": str, "v": int, "why": str} or stated["v"] != 1:
            raise ValueError("it has after, links, token, v and why")
        if not 0 < len(stated["links"]) <= LIMITS.links or not stated["why"].strip():
            raise ValueError("it names a link, and says why")
        links: list[tuple[bytes, bytes]] = []
        for link in stated["links"]:
            if type(link) is not dict or not {"cid"} <= link.keys() <= {"cid", "vid"}:
                raise ValueError("a link has cid, and perhaps vid")
            vid = b64decode(link["vid"]) if "vid" in link else b""
            if "vid" in link and len(vid) != VID_BYTES:
                raise ValueError(f"a vid is {VID_BYTES} bytes")
            links.append((b64decode(link["cid"]), vid))
    except (EncodingError, ValueError, AttributeError) as error:
        return RecallError(f"no request for a revocation: {error}")
    return _Request(stated["token"], stated["after"], links, stated["why"])
