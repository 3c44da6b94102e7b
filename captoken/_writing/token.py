"""Tokens: parsed, immutable, unverified (spec, "Token").

A `Token` holds what somebody handed over. Everything that it says before a verifier has checked it
is under `token.unverified`, so that the name gives warning. Narrowing a token needs no key and no
server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, Unpack

from msgspec import structs

from captoken._format import chain, names, primitives
from captoken._format.clocks import Clock, Seconds
from captoken._format.encoding import LIMITS, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import DischargeError, TokenFormatError
from captoken._format.parts import Packet, Parts, RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.text import (
    UNBOUND,
    check_bundle,
    check_limits,
    parts_of,
    read_consents,
    whole_text,
)
from captoken._language.access import Access
from captoken._language.caveats import V1, Vocabulary
from captoken._language.discharge import (
    Discharge,
    Ticket,
    asked_of,
    bound_discharge,
    third_party_caveat,
)
from captoken._writing.compose import Terms, WriterContext, check_custody, compose, spell
from captoken._writing.keywords import LinkCaveats, PresentCaveats, Strings
from captoken._writing.presenting import Presented, proven_server
from captoken._writing.unverified import KnownLinks, Unverified
from captoken.proof import Signer, prove, sign_custody


class Token(SealedValue, frozen=True, eq=False):
    """A token. Whoever has its text can use it, unless it is bound to a key or needs a discharge.

    Immutable and unverified. Two tokens with the same text are equal. A token that needs a third
    party's discharge does not work without it.

    `Token.parse(text)` checks only the form. A token passes its vocabulary, clock and source of
    nonces on to the tokens that are made from it. All three are for tests and embedders.
    """

    _instead = "hand on token.serialize() or token.present(...)"

    secret_packet: Packet  # it is as secret as the text
    context: WriterContext
    unverified: Unverified  # what the token says of itself
    secret_discharges: tuple[Packet, ...] = ()  # unbound, in the order of the caveats they answer

    @classmethod
    def of(
        cls,
        packet: Packet,
        root: RootRecord,
        context: WriterContext,
        discharges: tuple[Packet, ...] = (),
        known: KnownLinks | None = None,
    ) -> Token:
        """The token of a packet and of the root record in its identifier.

        Checks nothing: the caller has checked limits and discharges. `known` holds links that were
        already decoded with this vocabulary.
        """
        said = Unverified(
            root,
            packet.caveats,
            context.vocabulary,
            discharges,
            KnownLinks(known or ()),
        )
        return cls(packet, context, said, discharges)

    @classmethod
    @no_arguments_in_traceback
    def parse(
        cls,
        text: str,
        *,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> Token:
        """Read a token from its text: checks its form, sizes and root record, and verifies nothing.

        It does not say whether the token is genuine. It keeps the discharges that came with the
        token. Raises TokenFormatError and nothing else, whatever `text` is.
        """
        parts = parts_of(text, UNBOUND)
        packet = parts.packet
        discharges = parts.discharges
        root = RootRecord.decode(packet.identifier)
        if discharges and not _in_order(packet, discharges):
            why = "a discharge was not asked for, or the discharges are in another order"
            raise TokenFormatError(why)
        return cls.of(packet, root, WriterContext(vocabulary, clock, random), discharges)

    def serialize(self) -> str:
        """Return the text, for a sub-agent that should hold the token. Keep it secret.

        Never send it to a server: use `present`.
        """
        return whole_text(self.secret_packet, self.secret_discharges, UNBOUND)

    @property
    def token_id(self) -> str:
        """The public id of the whole tree of tokens, as the root record states it."""
        return self.unverified.root.token_id

    @property
    def link_id(self) -> str:
        """The public id of the last link. Revoking it revokes this token and all made from it."""
        return b64encode(primitives.link_id(self.secret_packet.signature))

    @property
    def needs(self) -> tuple[Ticket, ...]:
        """The third-party caveats that have no discharge yet, in order, without duplicates.

        Raises DischargeError for a caveat that another library wrote and captoken cannot read.
        """
        answered = {packet.identifier for packet in self.secret_discharges}
        asked = asked_of(self.secret_packet)
        return tuple(Ticket.parse(cid) for cid in asked if cid not in answered)

    # --- narrowing ------------------------------------------------------------------------------

    def attenuate(
        self,
        *,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """Return a new token that allows less. This one is unchanged. Needs no key and no server.

            token.attenuate(tables=["sales"], operations=["select"], expires_in=60)

        - A link that names tables or operations blocks all tools, and vice versa. `keep="tools"` or
          `keep="tables"` keeps the rights of the other domain.
        - `clamp` cuts what you ask for down to what the token has, instead of raising.
        - `key` binds the token to an Ed25519 key from here on. If the token is already bound, pass
          `signer`: the key that it is bound to.

        It checks against the links that this token carries. It cannot know whether a verifier
        accepts them.

        Raises WideningError if you ask for more than the token allows, DelegationError for a key
        without the needed signature, and LimitError above a limit. Raises TypeError or ValueError
        for a keyword that is no caveat (spec, "Caveats", "Widening", "Holder binding").
        """
        terms = Terms(caveats, keep, clamp, key=key)
        return self._narrowed(terms, self._context(clock), signer)

    def delegate(
        self,
        *,
        to: str,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """Return a new token for the agent `to`, narrowed as by `attenuate`.

            token.delegate(to="clerk", tables=["sales"], depth=0)

        The holder's name and `to` go into the chain. Verifiers call `to` *vouched*, because the
        holder chose the name. If the token is bound to a key, give the child's `key` and your
        `signer`: verifiers then call `to` *proven*.

        This does not check that such an agent exists. This token keeps working as before.

        Raises DelegationError beyond `depth`, for an agent that has held the token before, and for
        a missing `key` or `signer` where the token needs them. Also raises what `attenuate` raises.
        """
        names.name(to, "to")
        terms = Terms(caveats, keep, clamp, to, key)
        return self._narrowed(terms, self._context(clock), signer)

    def in_context(self, context: WriterContext) -> Token:
        """Return the same token with another vocabulary, clock or nonces for its new links."""
        said = self.unverified
        return Token.of(
            self.secret_packet, said.root, context, self.secret_discharges, said.known
        )

    def _context(self, clock: Clock | None) -> WriterContext:
        """The token's own context, with the clock replaced if one was passed for this call."""
        return self.context if clock is None else structs.replace(self.context, clock=clock)

    def _narrowed(
        self,
        terms: Terms,
        context: WriterContext,
        signer: Signer | None = None,
    ) -> Token:
        """This token with one more link of caveats.

        The caveats are checked first, and the signing key after that. So a misspelled keyword is
        reported before a missing key. Raises what `attenuate` raises.
        """
        holding = self.unverified.holding
        stated = compose(terms, context, holding)
        check_custody(holding.lineage.key, terms, signer)
        body = spell(stated)
        if signer is not None:
            body = sign_custody(self.secret_packet, body, signer)
        return self.with_raw_link(body)

    def with_raw_link(self, cid: bytes, vid: bytes = b"") -> Token:
        """This token with one more link, written byte by byte as given. Raises LimitError.

        For tools and tests. Use `attenuate` instead: it writes only links that verifiers can read.
        """
        link: RawCaveat = (cid, vid)
        before = self.secret_packet
        # The old signature is the key of the new one, and is gone from the new token.
        signature = chain.extend(before.signature, link)
        packet = Packet(before.identifier, (*before.caveats, link), signature)
        check_limits(packet)
        if self.secret_discharges:
            check_bundle(packet, self.secret_discharges)
        return self._with(packet, self.secret_discharges)

    def _with(self, packet: Packet, discharges: tuple[Packet, ...]) -> Token:
        """A token of the same root, derived from this one."""
        said = self.unverified
        return Token.of(packet, said.root, self.context, discharges, said.known)

    # --- third parties --------------------------------------------------------------------------

    def require(
        self,
        discharger: bytes | str,
        *,
        need: Mapping[str, Any],
        location: str | None = None,
    ) -> Token:
        """Return a new token that works only with a discharge: a third party's approval of `need`.

        `discharger` is the third party's X25519 public key; only its owner can read `need`.
        `location` is a hint where to ask, which everybody can read. Needs no key and no server.
        Nobody can remove the requirement again.

        Raises TypeError or ValueError, and LimitError above a limit (spec, "Third-party caveats").
        """
        cid, vid = third_party_caveat(
            self.secret_packet,
            discharger,
            need,
            location,
            self.context.random,
        )
        return self.with_raw_link(cid, vid)

    @no_arguments_in_traceback
    def with_discharge(self, answer: Discharge | str) -> Token:
        """Return the token with a discharge, which replaces an older one for the same ticket.

        Neither the token nor the discharge is verified. Raises DischargeError if the token asks for
        no such discharge, LimitError above a limit, and TokenFormatError for text that is no
        discharge.
        """
        got = answer if isinstance(answer, Discharge) else Discharge.parse(answer)
        packet = got.packet
        # Stored by ticket, so that a new discharge replaces an older one.
        known = {one.identifier: one for one in (*self.secret_discharges, packet)}
        asked = asked_of(self.secret_packet)
        if packet.identifier not in asked:
            why = "this token does not ask for this discharge"
            raise DischargeError(why, "bad_discharge")

        # In the order of the caveats: there is one text for one token and its discharges.
        ordered = tuple(known[cid] for cid in asked if cid in known)
        check_bundle(self.secret_packet, ordered)
        return self._with(self.secret_packet, ordered)

    # --- presenting -----------------------------------------------------------------------------

    def present(
        self,
        *,
        audience: str | Strings,
        signer: Signer | None = None,
        request: Access | bytes | None = None,
        consents: Iterable[str] = (),
        expires_in: Seconds = 60,
        max_chars: int = LIMITS.present_chars,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[PresentCaveats],
    ) -> str:
        """Make a copy that works at `audience` only, for `expires_in` seconds at most.

            text = token.present(audience="orders")

        Never send a server the token itself: a bearer token works at every other server too. The
        copy includes the discharges. If one is missing, the server denies the copy.

        If the token is bound to a key, `signer` is that key. `request` is the access, or the 32
        bytes from `captoken.proof` for what the transport carries. The text then ends in a proof
        and can be sent once. Without a signer, the text of a bound token has no proof, and every
        server denies it.

        `consents` are what a person's `Approver` has given for the access that is to be made. Each
        is good once.

        Raises LimitError if the text is longer than `max_chars`, and says how long each part is.
        Raises DelegationError for a signer that is not the token's key, and what `attenuate`
        raises.
        """
        if signer is None and request is not None:
            raise ValueError("request needs the signer that proves it: pass signer as well")
        context = self._context(clock)
        holder = self if clock is None else self.in_context(context)
        shown = holder.presentation(
            audience=audience, expires_in=expires_in, keep=keep, clamp=clamp, **caveats
        )
        if consents:
            shown = structs.replace(shown, consents=read_consents(consents))
        if signer is None:
            return shown.text(max_chars)

        # The proof signs the narrowed token, and so its audience and its expiry.
        server = proven_server(self.unverified.lineage.key, audience, signer)
        packet = shown.parts.packet
        proof = prove(packet, signer, server, request, context.clock, context.random)
        return shown.text(max_chars, proof)

    def presentation(
        self,
        *,
        audience: str | Strings,
        expires_in: Seconds = 60,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        **caveats: Unpack[PresentCaveats],
    ) -> Presented:
        """What `present` makes a text of, without a proof, and with its expiry.

        For a client that keeps the text until it expires, and adds a new proof each time it sends
        it: `captoken.proof.with_proof`. Raises what `attenuate` raises.
        """
        if not audience:
            raise ValueError("audience is empty: name the server")
        stated = {**caveats, "audience": audience, "expires_in": expires_in}
        link = compose(Terms(stated, keep, clamp), self.context, self.unverified.holding)
        parts = self.with_raw_link(spell(link)).presented_parts()

        # The link ends no later than all before it; a discharge may be over sooner.
        ends: int = link["exp"]
        for packet in self.secret_discharges:
            ends = min(ends, Discharge(packet).expires_at or ends)
        return Presented(parts, ends)

    def presented_parts(self) -> Parts:
        """The token and the discharges bound to it, for a verifier in the same process.

        They are secret.
        """
        signature = self.secret_packet.signature
        bound = tuple(bound_discharge(packet, signature) for packet in self.secret_discharges)
        return Parts(self.secret_packet, bound)

    # --- as a value -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """True if the texts are equal, compared in constant time, because they are secrets.

        Clock, vocabulary and source of nonces make no difference.
        """
        if not isinstance(other, Token):
            return NotImplemented
        return primitives.equal(self.serialize().encode(), other.serialize().encode())

    def __hash__(self) -> int:
        """A hash without secrets: equal tokens have equal links."""
        return hash((self.secret_packet.identifier, self.secret_packet.caveats))

    def __repr__(self) -> str:
        """The public id, and what the unverified token says of itself. No part of the text."""
        count = len(self.secret_packet.caveats)
        links = f"{count} link{'s' * (count != 1)}"
        return f"<Token {self.token_id}, {links}, held by {self.unverified.holder}, unverified>"

    __str__ = __repr__


def _in_order(packet: Packet, discharges: tuple[Packet, ...]) -> bool:
    """True if each discharge answers a caveat, in the order of the caveats, none twice."""
    asked = iter(asked_of(packet))
    # `in` advances the iterator, so each is searched for after the one before.
    return all(discharge.identifier in asked for discharge in discharges)
