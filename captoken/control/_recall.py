"""A holder asks to revoke what it handed over, without an operator's key (spec, "Recall").

The holder presents its own token to the control plane, together with the links that were added
below it, and a MAC over them. Only who had the token can make that MAC: a copy that was narrowed
before the hand-over does not contain the key. The control plane computes the link's id from the
tags of the chain that it has verified.

    recall          at the holder: token, links, reason and MAC, as one text
    _read           at the control plane: checks the form of that text, and nothing more
    authenticate    verifies the token, like any server
    link_below      checks the MAC, and computes the id of the link to revoke
    operator        revokes it

A request does not prove that the links were handed to anyone, or that the reason is true (37.5).
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

MAX_CHARS = 2 * LIMITS.bundle_chars  # the longest request
WHY_CHARS = 200
# Seconds that a recall stays after everything it revokes has expired, for verifiers with leeway.
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
    """Make a request to revoke everything that `handed_on` and the tokens below it can do.

        request = recall(mine, childs, audience="control", why="it went astray")

    - `token` is the token that `handed_on` was made from. If it is bound to a key, `signer` is that
      key.
    - `audience` is the control plane's name. The token must be usable there: you cannot recall with
      a token for another server only.
    - For two sets, the tokens for the control plane are used (`mint_set(control=…)`), and the
      hand-over is revoked at every server.
    - `why` is a line of at most 200 characters, for people.
    - The request is as secret as a presented token. It is valid for at most `expires_in`: seconds,
      or a text like `5m`.

    Sends nothing, and does not check whether either token still works.

    Raises ValueError if `handed_on` was not made from `token`, for a set without a token for the
    control plane, and for a reason that is longer than 200 characters or has control characters.
    """
    if not _is_reason(names.exact_str(why, "why")):
        raise ValueError(
            f"why must be one line of at most {WHY_CHARS} characters, for the people who read the "
            "record"
        )

    if isinstance(token, TokenSet):
        token = token.token(audience)
    if isinstance(handed_on, TokenSet):
        handed_on = handed_on.token(audience)
    # The links after our last one are to be revoked. The last of them names what to revoke.
    held = token.secret_packet
    given = handed_on.secret_packet
    count = len(held.caveats)
    follows = given.identifier == held.identifier and given.caveats[:count] == held.caveats
    if not follows or len(given.caveats) == count:
        raise ValueError("handed_on was not made from token: pass the token that came from it")

    links = [_stated_link(caveat) for caveat in given.caveats[count:]]
    text = token.present(
        audience=audience,
        expires_in=expires_in,
        max_chars=LIMITS.bundle_chars,
        clock=clock,
    )

    # The key of the MAC is our own signature, which a presented token does not contain. So whoever
    # sees the request on its way cannot ask for something else.
    stated = {
        "after": count - 1,
        "links": links,
        "mac": b64encode(recall_mac(held.signature, _said(links, why))),
        "token": text,
        "v": 1,
        "why": why,
    }

    # The proof signs the request without the proof, and is then added to it (spec 37.2).
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
    """A link as a request contains it (spec 37.1)."""
    cid, vid = caveat
    stated = {"cid": b64encode(cid)}
    if vid:
        stated["vid"] = b64encode(vid)
    return stated


def _said(links: list[dict[str, str]], why: str) -> bytes:
    """The text that the MAC signs: which links follow, and why to revoke them.

    So nobody on the way can change the links or the reason.
    """
    return encode_json({"links": links, "why": why})


def _digest(stated: Mapping[str, Any]) -> bytes:
    """What the proof of a bound token signs: the request without the proof."""
    bare = {**stated, "token": without_proof(stated["token"])}
    return primitives.sha256(encode_json(bare))


def _is_reason(why: str) -> bool:
    """True if it is a line for people, and not too long."""
    return bool(why.strip()) and len(why) <= WHY_CHARS and all(map(is_visible, why))


# --- the control plane ----------------------------------------------------------------------------


class ControlPlane:
    """Handles holders' requests, and has the operator revoke.

        plane = ControlPlane(Verifier(keyring, audience="control", replays=proofs), operator)
        entry = plane.handle(request)

    `verifier` is one for the control plane's own audience. `most` is how many recalls can be active
    for one hand-over and everything below it. Above that, the hand-over itself is revoked. So
    nobody can fill the overlay, and nobody can block an ancestor's recall (37.8).

    Threads may share one, like the verifier and the operator. A request costs one verification and
    one publication.
    """

    def __init__(self, verifier: Verifier, operator: Operator, *, most: int = MOST) -> None:
        self._verifier = verifier
        self._operator = operator
        self._most = most

    def handle(self, request: str) -> Entry:
        """Revoke what the request asks for, until all of it has expired.

        The request names no link id: the id is computed from the verified chain. The MAC proves
        that the sender had the token as it was there (spec 37.5). So a holder can revoke what is
        below its own hand-over, and nothing beside or above it.

        Returns the entry that revokes it. That can be an entry that was already there, or one that
        revokes more, if holders asked for much.

        Raises Denied for a token that is not accepted. Raises RecallError for something its holder
        did not hand over, and if no more entries fit. Also raises StoreError and OverlayError.
        """
        asked = _read(request)
        del request  # so that no frame in a traceback holds a token
        if isinstance(asked, RecallError):
            raise asked

        # Check first who asks, then what for. The token is only shown and not used, so a token that
        # may only be handed on is enough.
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
            raise RecallError("the holder did not hold the token at that link")

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
    """The recall for a token of a set, which was minted for the control plane only (37.12).

    Its link ids differ from those at other servers. So the entry selects by `n`, until the last
    token of the set expires, which is the expiry in link 0. Raises RecallError if no link has an
    `n`.
    """
    stated = [nonce_in(cid) for cid, vid in reversed(links) if not vid]
    hop = next((nonce for nonce in stated if nonce is not None), None)
    if hop is None:
        raise RecallError(
            "in a set, only a hand-over can be recalled: none of these links has an n"
        )
    until = _end(grant, 0)
    nonces = [grant.nonces[at] for at in grant.handed_on_at]
    handed = tuple(HandOver(nonce, until) for nonce in nonces if nonce is not None)
    return Recall(hop, grant.token_id, handed, why, until, by_hop=True)


def _end(grant: Grant, link: int) -> int | None:
    """A day after the last token below that link can expire (37.4)."""
    expiry = grant.expiry_at(link)
    return None if expiry is None else expiry + SLACK


class _Request(SealedValue, frozen=True, eq=False):
    """A decoded request. It holds the token, so that no traceback frame does."""

    token: str

    # The position of the token's link that the other links follow.
    after: int
    links: list[RawCaveat]

    # The links after it, as they travel.
    stated: list[dict[str, str]]
    mac: bytes

    # The digest that the proof of a bound token signs.
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
    """The decoded request, or an error that says why it is none.

    The error is returned, because the caller's frame still holds the text.
    """
    try:
        return _request(request)
    except (TypeError, ValueError) as error:  # EncodingError is a ValueError
        return RecallError(f"this is not a request for a revocation: {error}")


def _request(request: Any) -> _Request:
    """Decode a request and check only its form (spec 37.1).

    Raises TypeError or ValueError. Nothing in it is verified.
    """
    # Check the length before decoding anything.
    if type(request) is not str or len(request) > MAX_CHARS:
        raise ValueError("it must be a text of bounded length")

    # Compare exact types, so that True is neither a version nor an index.
    stated = decode_json(names.encoded(request, "it"))
    shape = {key: type(value) for key, value in stated.items()}
    if shape != _SHAPE or stated["v"] != 1:
        raise ValueError("it must have after, links, mac, token, v and why")
    if not 0 < len(stated["links"]) <= LIMITS.links or not _is_reason(stated["why"]):
        raise ValueError("it must name a link, and say why in one line")

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
    """A link of a request, as it travels. Raises TypeError or ValueError."""
    if type(link) is not dict or not {"cid"} <= link.keys() <= {"cid", "vid"}:
        raise ValueError("a link must have cid, and may have vid")
    cid = b64decode(names.exact_str(link["cid"], "cid"))
    # No field of a token is empty (10.5), so nobody can have handed on such a link.
    if not cid:
        raise ValueError("a cid must not be empty")
    if "vid" not in link:
        return cid, b""
    vid = b64decode(names.exact_str(link["vid"], "vid"))
    if len(vid) != VID_BYTES:
        raise ValueError(f"a vid must be {VID_BYTES} bytes")
    return cid, vid
