"""A holder asks for the revocation of what it handed on, without any operator's key (spec, "Recall").

The holder presents its own token to the control plane, with the links that it or others wrote below, and a MAC over them
that only who had the token can make: a copy that was narrowed before it was handed over has not the key. The control plane
computes the link's id from the tags of the chain that it has verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captoken._format import names, primitives
from captoken._format.encoding import (
    LIMITS,
    EncodingError,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import RecallError
from captoken._format.packet import VID_BYTES
from captoken._format.sealed import Sealed
from captoken._format.spelling import is_visible
from captoken._format.text import without_proof
from captoken._language.overlay import Entry, Selector
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token
from captoken.control.operator import Operator
from captoken.proof import Signer, recall_mac, with_proof

MAX_CHARS = 2 * LIMITS.bundle_chars
WHY_CHARS = 200
MOST = 100  # recalls of one tree of tokens that stand
SLACK = 86_400  # seconds that a recall stands after all that it stops has expired: for verifiers with leeway


def recall(
    token: Token,
    handed_on: Token,
    *,
    audience: str,
    why: str,
    signer: Signer | None = None,
    expires_in: int = 60,
) -> str:
    """The request that what `handed_on` and all below it can do be stopped.

    `token` is what it was made from, and `signer` the key that it is bound to, if it is. The request
    is for the control plane called `audience`, to which the token must be addressable: one for
    another server alone cannot be recalled with. As secret as what is presented to a server. Raises
    ValueError if `handed_on` was not made from `token`, and for a reason of more than 200 characters
    or with control characters.
    """
    if not _is_reason(names.exact_str(why, "why")):
        raise ValueError(
            f"say why, in a line of at most {WHY_CHARS} characters: the record is for people"
        )
    held, given = token._packet, handed_on._packet
    count = len(held.caveats)
    if (
        given.identifier != held.identifier
        or given.caveats[:count] != held.caveats
        or len(given.caveats) == count
    ):
        raise ValueError("the one was not made from the other")
    links = [
        {"cid": b64encode(cid), **({"vid": b64encode(vid)} if vid else {})}
        for cid, vid in given.caveats[count:]
    ]
    text = token.present(audience=audience, expires_in=expires_in, max_chars=LIMITS.bundle_chars)
    stated = {
        "after": count - 1,
        "links": links,
        "mac": b64encode(recall_mac(held.signature, _said(links, why))),
        "token": text,
        "v": 1,
        "why": why,
    }
    if signer is not None:
        stated["token"] = with_proof(text, signer, audience=audience, request=_digest(stated))
    return encode_json(stated).decode()


def _said(links: list[dict[str, str]], why: str) -> bytes:
    """What the MAC is over: that these links follow, and why they are to stop."""
    return encode_json({"links": links, "why": why})


def _digest(stated: Mapping[str, Any]) -> bytes:
    """What the proof of a bound token is about: the request as it is without the proof."""
    bare = {**stated, "token": without_proof(stated["token"])}
    return primitives.sha256(encode_json(bare))


def _is_reason(why: str) -> bool:
    return bool(why.strip()) and len(why) <= WHY_CHARS and all(map(is_visible, why))


class ControlPlane:
    """Takes requests of holders, and has the operator revoke. `verifier` is one for the control plane's own audience.

    Of one tree of tokens at most `most` recalls stand at a time, so that no holder can fill the overlay.
    """

    def __init__(self, verifier: Verifier, operator: Operator, *, most: int = MOST) -> None:
        self._verifier, self._operator, self._most = verifier, operator, most

    def handle(self, request: str) -> Entry:
        """Revoke what the request asks for, until all of it has expired.

        Raises Denied for a token that is not accepted, RecallError for what its holder did not hand on
        and for one recall too many, StoreError and OverlayError.
        """
        asked = _read(request)
        del request  # no frame that raises holds a token
        if isinstance(asked, RecallError):
            raise asked
        grant = self._verifier.authenticate(asked.token, request=asked.digest, for_use=False)
        after, why = asked.after, asked.why
        link = grant.link_below(after, asked.links, _said(asked.stated, why), asked.mac)
        del asked
        if link is None:
            raise RecallError("the holder did not have the token at that link")
        stops = Selector(link=link, token=grant.token_id)
        ends = grant.expiry_at(after)
        until = None if ends is None else ends + SLACK
        standing = [
            entry
            for entry in self._operator.entries()
            if entry.select.token == grant.token_id and entry.select.link
        ]
        for entry in standing:  # asked for once is enough
            long = entry.until is None or (until is not None and entry.until >= until)
            if entry.select == stops and entry.link is None and long:
                return entry
        if len(standing) >= self._most:
            raise RecallError(f"{len(standing)} recalls of this token stand already")
        return self._operator.revoke(
            link=link,
            token=grant.token_id,
            why=f"asked for by {grant.actor.name}: {why}",
            until=until,
        )


class _Request(Sealed):
    """A request that was read. Holds the token, so that no frame does."""

    __slots__ = ("after", "digest", "links", "mac", "stated", "token", "why")
    token: str
    after: int
    links: list[tuple[bytes, bytes]]
    stated: list[dict[str, str]]  # the links as they were written
    mac: bytes
    digest: bytes  # what the proof of a bound token is about
    why: str

    def __init__(
        self, stated: dict[str, Any], links: list[tuple[bytes, bytes]], mac: bytes
    ) -> None:
        for name in ("token", "after", "why"):
            object.__setattr__(self, name, stated[name])
        object.__setattr__(self, "links", links)
        object.__setattr__(self, "stated", stated["links"])
        object.__setattr__(self, "mac", mac)
        object.__setattr__(self, "digest", _digest(stated))


def _read(request: str) -> _Request | RecallError:
    """Token, position, links and reason; or why it is none."""
    try:
        if type(request) is not str or len(request) > MAX_CHARS:
            raise ValueError("it is text of a bounded length")
        stated = decode_json(request.encode())
        shape = {key: type(value) for key, value in stated.items()}
        if (
            shape != {"after": int, "links": list, "mac": str, "token": str, "v": int, "why": str}
            or stated["v"] != 1
        ):
            raise ValueError("it has after, links, mac, token, v and why")
        if not 0 < len(stated["links"]) <= LIMITS.links or not _is_reason(stated["why"]):
            raise ValueError("it names a link, and says why, in a line")
        links: list[tuple[bytes, bytes]] = []
        for link in stated["links"]:
            if type(link) is not dict or not {"cid"} <= link.keys() <= {"cid", "vid"}:
                raise ValueError("a link has cid, and perhaps vid")
            vid = b64decode(link["vid"]) if "vid" in link else b""
            if "vid" in link and len(vid) != VID_BYTES:
                raise ValueError(f"a vid is {VID_BYTES} bytes")
            links.append((b64decode(link["cid"]), vid))
        mac = b64decode(stated["mac"])
    except (EncodingError, ValueError, AttributeError) as error:
        return RecallError(f"no request for a revocation: {error}")
    return _Request(stated, links, mac)
