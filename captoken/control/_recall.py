"""A holder asks to revoke what it handed on, without an operator's key (spec, "Recall").

The holder presents its own token to the control plane, with the links that it or others wrote
below, and a MAC over them. Only who had the token can make that MAC: a copy that was narrowed
before it was handed over has not the key. The control plane computes the link's id from the tags
of the chain that it has verified.

    recall          at the holder: token, links, reason and MAC, as one text
    _read           at the control plane: the form of that text, and nothing more
    authenticate    the token, as any server verifies it
    link_below      the MAC, and the id of the link that is to stop
    operator        revokes it

What it does not show: that the links were handed to anyone, or that the reason is true (37.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captoken._format import names, primitives
from captoken._format.clocks import Clock, Seconds
from captoken._format.encoding import (
    LIMITS,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import RecallError
from captoken._format.packet import VID_BYTES
from captoken._format.parts import RawCaveat
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.spelling import is_visible
from captoken._format.text import without_proof
from captoken._language.entries import Entry
from captoken._language.links import nonce_in
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.control._asked import MOST, HandOver, Recall
from captoken.control.operator import Operator
from captoken.proof import Signer, recall_mac, with_proof

MAX_CHARS = 2 * LIMITS.bundle_chars  # of a request
WHY_CHARS = 200
# Seconds that a recall stands after all that it stops has expired: for verifiers with leeway.
SLACK = 86_400


# --- the holder -----------------------------------------------------------------------------------


@no_arguments_in_traceback
def recall(
    token: Token | TokenSet,
    handed_on: Token | TokenSet,
    *,
    audience: str,
    why: str,
    signer: Signer | None = None,
    expires_in: Seconds = 60,
    clock: Clock | None = None,
) -> str:
    """The request that what `handed_on` and all below it can do be stopped.

        request = recall(mine, childs, audience="control", why="it went astray")

    - `token` is what `handed_on` was made from, and `signer` the key that it is bound to, if it is.
    - `audience` is the control plane's name, to which the token must be addressable: one for
      another server alone cannot be recalled with.
    - Of two sets, it is the tokens of the control plane that are shown (`mint_set(control=…)`): the
      hand-over is stopped at every server.
    - `why` is for people: a line of at most 200 characters.
    - The request is as secret as what is presented to a server, and good for `expires_in` at most:
      seconds, or a text like `5m`.

    Sends nothing, and does not ask whether either token still works.

    Raises ValueError if `handed_on` was not made from `token`, for a set without a token of the
    control plane, and for a reason of more than 200
    characters or with control characters.
    """
    if not _is_reason(names.exact_str(why, "why")):
        raise ValueError(
            f"say why, in a line of at most {WHY_CHARS} characters: the record is for people"
        )

    if isinstance(token, TokenSet):
        token = token.token(audience)
    if isinstance(handed_on, TokenSet):
        handed_on = handed_on.token(audience)
    # The links that follow on the last of ours are what is to stop. The last of them names it.
    held = token.secret_packet
    given = handed_on.secret_packet
    count = len(held.caveats)
    follows = given.identifier == held.identifier and given.caveats[:count] == held.caveats
    if not follows or len(given.caveats) == count:
        raise ValueError("the one was not made from the other: handed_on is what token became")

    links = [_stated_link(caveat) for caveat in given.caveats[count:]]
    text = token.present(
        audience=audience,
        expires_in=expires_in,
        max_chars=LIMITS.bundle_chars,
        clock=clock,
    )

    # The MAC is under our own signature, which a presented token does not show: so who sees the
    # request on its way cannot ask for something else.
    stated = {
        "after": count - 1,
        "links": links,
        "mac": b64encode(recall_mac(held.signature, _said(links, why))),
        "token": text,
        "v": 1,
        "why": why,
    }

    # The proof is about the request without it, and then takes its place in it (spec 37.2).
    if signer is not None:
        now = clock or token.context.clock
        digest = _digest(stated)
        stated["token"] = with_proof(
            text,
            signer,
            audience=audience,
            request=digest,
            clock=now,
        )
    return encode_json(stated).decode()


def _stated_link(caveat: RawCaveat) -> dict[str, str]:
    """A link as a request has it (spec 37.1)."""
    cid, vid = caveat
    stated = {"cid": b64encode(cid)}
    if vid:
        stated["vid"] = b64encode(vid)
    return stated


def _said(links: list[dict[str, str]], why: str) -> bytes:
    """What the MAC is over: that these links follow, and why they are to stop.

    So nobody on the way changes what is stopped, or the reason.
    """
    return encode_json({"links": links, "why": why})


def _digest(stated: Mapping[str, Any]) -> bytes:
    """What the proof of a bound token is about: the request as it is without the proof."""
    bare = {**stated, "token": without_proof(stated["token"])}
    return primitives.sha256(encode_json(bare))


def _is_reason(why: str) -> bool:
    """Is it a line for people, and not too long?"""
    return bool(why.strip()) and len(why) <= WHY_CHARS and all(map(is_visible, why))


# --- the control plane ----------------------------------------------------------------------------


class ControlPlane:
    """Takes requests of holders, and has the operator revoke.

        plane = ControlPlane(Verifier(keyring, audience="control", replays=proofs), operator)
        entry = plane.handle(request)

    `verifier` is one for the control plane's own audience. Of one hand-over and all below it `most`
    recalls stand at a time. Where they ask for more, that hand-over is revoked instead: so nobody
    fills the overlay, and nobody stands in the way of an ancestor (37.8).

    Threads share one, as they share a verifier and an operator. A request costs a verification and
    a publication.
    """

    def __init__(self, verifier: Verifier, operator: Operator, *, most: int = MOST) -> None:
        self._verifier = verifier
        self._operator = operator
        self._most = most

    def handle(self, request: str) -> Entry:
        """Revoke what the request asks for, until all of it has expired.

        Nobody names a link id: it is computed on the chain that was verified. The MAC shows that
        whoever asks had the token as it was there (spec 37.5). So a holder stops what is below its
        own hand, and not what is beside or above it.

        Returns the entry that stops it: one that stood already, or one that stops more, as far as
        much was asked for.

        Raises Denied for a token that is not accepted, RecallError for what its holder did not hand
        on and where no more fits, StoreError and OverlayError.
        """
        asked = _read(request)
        del request  # no frame that raises holds a token
        if isinstance(asked, RecallError):
            raise asked

        # First who asks, then what for. The token is shown and not used, so that one for handing
        # on will do.
        grant = self._verifier.authenticate(
            asked.token,
            request=asked.digest,
            for_use=False,
        )
        said = _said(asked.stated, asked.why)
        link = grant.link_below(
            asked.after,
            asked.links,
            said,
            asked.mac,
        )
        if link is None:
            raise RecallError("the holder did not have the token at that link")

        why = f"asked for by {grant.actor.name}: {asked.why}"
        if grant.audience is not None:
            recall = _of_a_set(grant, asked.links, why)
        else:
            ids = grant.link_ids
            recall = Recall(
                link=link,
                token=grant.token_id,
                handed=tuple(HandOver(ids[at], _end(grant, at)) for at in grant.handed_on_at),
                why=why,
                until=_end(grant, asked.after),
            )
        return self._operator.recall(recall, most=self._most)


def _of_a_set(grant: Grant, links: list[RawCaveat], why: str) -> Recall:
    """The recall of a token that was minted for the control plane alone: that of a set (37.12).

    Its link ids are those of no other server. So it goes by `n`, for as long as any token of the
    set can live: the end of link 0. Raises RecallError where no link has one.
    """
    stated = [nonce_in(cid) for cid, vid in reversed(links) if not vid]
    hop = next((nonce for nonce in stated if nonce is not None), None)
    if hop is None:
        raise RecallError("of a set a hand-over is recalled: none of these links has an n")
    until = _end(grant, 0)
    nonces = [grant.nonces[at] for at in grant.handed_on_at]
    handed = tuple(HandOver(nonce, until) for nonce in nonces if nonce is not None)
    return Recall(hop, grant.token_id, handed, why, until, by_hop=True)


def _end(grant: Grant, link: int) -> int | None:
    """A day longer than anything can live that the token became at that link (37.4)."""
    expiry = grant.expiry_at(link)
    return None if expiry is None else expiry + SLACK


class _Request(SealedValue, frozen=True, eq=False):
    """A request that was read. Holds the token, so that no frame does."""

    token: str

    # The link of the token that the others follow on.
    after: int
    links: list[RawCaveat]

    # The links as they were written.
    stated: list[dict[str, str]]
    mac: bytes

    # What the proof of a bound token is about.
    digest: bytes
    why: str


# --- reading --------------------------------------------------------------------------------------

_SHAPE = {
    "after": int,
    "links": list,
    "mac": str,
    "token": str,
    "v": int,
    "why": str,
}


def _read(request: str) -> _Request | RecallError:
    """Token, position, links and reason; or why it is none.

    An error is given back, since the frame of whoever asks still holds the text.
    """
    try:
        return _request(request)
    except (TypeError, ValueError) as error:  # EncodingError is a ValueError
        return RecallError(f"no request for a revocation: {error}")


def _request(request: Any) -> _Request:
    """The request that a text spells, by its form alone (spec 37.1).

    Raises TypeError or ValueError. Nothing of it has been verified.
    """
    # The length is looked at before anything is decoded.
    if type(request) is not str or len(request) > MAX_CHARS:
        raise ValueError("it is text of a bounded length")

    # Exact types, so that True is no version and no index.
    stated = decode_json(names.encoded(request, "it"))
    shape = {key: type(value) for key, value in stated.items()}
    if shape != _SHAPE or stated["v"] != 1:
        raise ValueError("it has after, links, mac, token, v and why")
    if not 0 < len(stated["links"]) <= LIMITS.links or not _is_reason(stated["why"]):
        raise ValueError("it names a link, and says why, in a line")

    return _Request(
        token=stated["token"],
        after=stated["after"],
        links=[_raw(link) for link in stated["links"]],
        stated=stated["links"],
        mac=b64decode(stated["mac"]),
        digest=_digest(stated),
        why=stated["why"],
    )


def _raw(link: Any) -> RawCaveat:
    """A link of a request as it travels. Raises TypeError or ValueError."""
    if type(link) is not dict or not {"cid"} <= link.keys() <= {"cid", "vid"}:
        raise ValueError("a link has cid, and perhaps vid")
    cid = b64decode(names.exact_str(link["cid"], "cid"))
    # No field of a token is empty (10.5), so that no such link was ever handed on.
    if not cid:
        raise ValueError("a cid is not empty")
    if "vid" not in link:
        return cid, b""
    vid = b64decode(names.exact_str(link["vid"], "vid"))
    if len(vid) != VID_BYTES:
        raise ValueError(f"a vid is {VID_BYTES} bytes")
    return cid, vid
