"""Notices from a provider that a login has ended, and their effect on tasks.

    opened = open_signal(text, policy, LOGOUT)           # checks the form, and finds the key's name
    await keys.want(opened.name, opened.kid)
    effect = effect_of(opened, policy, keys, now)
    for ending in effect.endings:
        registry.end(ending)

A logout token (OpenID Connect Back-Channel Logout 1.0) comes from an `oidc` provider. With a `sid`
it ends everything that the session started. With a `sub` as well, it also ends what the person
started with assertions that name no session. With only a `sub`, it ends everything that the person
started.

A security event token (RFC 8417; SSF 1.0, CAEP, RISC) comes from a `signals` provider and is about
the subjects of another provider. `events` has the table of its effects.

- It is signed like an assertion, under the same rules in `jose` and `identity`. Neither can be used
  as the other.
- A signal only restricts. Nothing here starts a task, gives rights back or revives anything.
- It applies to all providers of the policy with that issuer, because one login gives both ID and
  access tokens.
- Each `jti` has one effect: the registry remembers it for as long as the signal is accepted.

Pure: no network and no clock. The result is data, and nothing has ended yet.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import structs

from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown
from captoken.issuance import events
from captoken.issuance.identity import (
    Keys,
    Opened,
    audiences_of,
    check_header,
    check_signature,
    check_times,
    issuer_of,
    time_of,
)
from captoken.issuance.jose import JoseError, Json, taken_apart
from captoken.issuance.policy import Oidc, Policy, Provider, Signals
from captoken.issuance.registry import Ending
from captoken.issuance.registry.ports import LEEWAY

# The kinds of signals, by their `typ`.
LOGOUT = "logout+jwt"
EVENT = "secevent+jwt"

# The kind of provider that sends each signal.
_SENDERS: dict[str, type[Oidc | Signals]] = {
    LOGOUT: Oidc,
    EVENT: Signals,
}

# A signal is accepted for this many seconds. The registry remembers its `jti` as long.
MAX_AGE = 86_400

_LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"

# Claims that are text wherever they are.
_TEXTS = ("sub", "sid", "jti")


class Effect(msgspec.Struct, frozen=True):
    """What a signal comes to. Without endings it is a note that its stream lives."""

    # The sender, and the signal's `jti`, which has only one effect.
    stream: str
    jti: str
    endings: tuple[Ending, ...]

    # The log message, and whether somebody should look at it.
    note: str
    alarm: bool = False


def effect_of(opened: Opened, policy: Policy, keys: Keys, now: int) -> Effect:
    """What a signal comes to. `now` is in seconds since the epoch.

    Does not check whether it was heard before: the registry does. Raises IssuanceError, whatever
    the text was: `invalid_issuer`, `invalid_key`, `invalid_audience` (RFC 8935, 2.4), and else
    `invalid_request`. The message may be shown to whoever sent it; `why` is for the log.
    """
    with _refusing("invalid_key"):
        check_signature(opened, keys)
    if opened.unverified.header["typ"] == LOGOUT:
        return _logged_out(opened, policy, now)
    return _happened(opened, policy, now)


def _refused(message: str, code: str = "invalid_request", why: str = "") -> IssuanceError:
    """`message` is for whoever sent the signal, and `why` for the log."""
    return IssuanceError(f"the signal is refused: {message}", code, why)


@contextmanager
def _refusing(code: str) -> Generator[None]:
    """What is refused within is refused with this code: `identity` knows those of assertions."""
    try:
        yield
    except IssuanceError as error:
        raise IssuanceError(str(error), code, error.why) from None


# --- before the signature -------------------------------------------------------------------------


def open_signal(text: Any, policy: Policy, kind: str) -> Opened:
    """Read a signal of that kind up to the question which key it is signed with.

    Nothing is verified, and the text may be anybody's. Raises IssuanceError, as `effect_of` does.
    """
    try:
        unverified = taken_apart(text)
    except JoseError as error:
        raise _refused(str(error)) from None

    name, provider = _sender(unverified.claims, policy, kind)
    header = unverified.header
    with _refusing("invalid_request"):
        check_header(header)
    if header.get("typ") != kind:
        raise _refused(f"typ {shown(header.get('typ'))} is not for this place")
    algorithm = header["alg"]
    if algorithm not in provider.algorithms:
        raise _refused(
            f"algorithm {shown(algorithm)} is not taken",
            why=f"of provider {name}",
        )
    return Opened(unverified, name, provider)


def _sender(claims: Json, policy: Policy, kind: str) -> tuple[str, Provider]:
    """The one provider that sends signals of this kind under that `iss`. Raises IssuanceError."""
    found = [
        (name, one)
        for name, one in policy.providers.items()
        if isinstance(one, _SENDERS[kind]) and one.issuer == claims.get("iss")
    ]
    if not found:
        raise _refused(
            "its issuer is not known here, or not for this place",
            "invalid_issuer",
        )

    # It would depend on the order in a file what it is good for.
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise _refused("it could be of several", why=f"of providers {names}")
    return found[0]


# --- a logout -------------------------------------------------------------------------------------


def _logged_out(opened: Opened, policy: Policy, now: int) -> Effect:
    """What a logout token comes to (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6).

    What the provider requires of assertions is not asked: a logout token has no such claims.
    """
    claims = opened.unverified.claims
    login: Any = opened.provider
    clients = {*login.client_ids}
    # Where people log in here, the provider tells this of that client, too.
    if policy.login is not None and policy.login.provider == opened.name:
        clients.add(policy.login.client_id)
    _check_logout(claims, login, clients, now)

    sub = ("sub", claims["sub"]) if "sub" in claims else None
    whose = _Whose(
        issuer=login.issuer,
        session=claims.get("sid"),
        claim=sub,
    )
    meant, unnamed = _meant(policy, whose)
    endings = tuple(
        Ending(
            now=now,
            provider=name,
            session=whose.session,
            subject=subject,
            issued_at=claims["iat"],
            jti=claims["jti"],
        )
        for name, subject in meant
    )
    endings += _sessionless(policy, whose, endings)

    what = "a session" if whose.session is not None else "all sessions of a person"
    note = "; ".join([f"logout of {what}", *unnamed])
    return Effect(
        stream=opened.name,
        jti=claims["jti"],
        endings=endings,
        note=note,
    )


def _check_logout(claims: Json, login: Any, clients: Collection[str], now: int) -> None:
    """Raise IssuanceError for what is no logout token of this provider, for us and for now.

    `clients` are what we are called there.
    """
    _check_texts(claims)
    event, _ = _one_event(claims)
    if event != _LOGGED_OUT:
        raise _refused("its event is no logout")

    # An ID token may have one. A logout token has none, so that it is never taken for the other.
    if "nonce" in claims:
        raise _refused("it has a nonce, and so it is no logout token")
    if "sid" not in claims and "sub" not in claims:
        raise _refused("it says neither whose logout it is (sub), nor of which session (sid)")

    with _refusing("invalid_audience"):
        audiences = audiences_of(claims)
    if not set(audiences) <= set(clients):
        stated = shown(", ".join(audiences))
        raise _refused(
            f"it is for {stated} (aud), which is not taken here",
            "invalid_audience",
        )

    # Not longer than its name is remembered: by then it could have been heard before.
    most = min(login.max_life, MAX_AGE)
    with _refusing("invalid_request"):
        check_times(claims, now, most)


def _check_texts(claims: Json) -> None:
    """Raise IssuanceError for claims that are not of their type, and without a `jti`."""
    for name in (name for name in _TEXTS if name in claims):
        _text_of(claims, name, f"its {name} is no text")
    if "jti" not in claims:
        raise _refused("it has no jti")


def _one_event(claims: Json) -> tuple[str, Json]:
    """The one event that it tells of, and what it says of it. Raises IssuanceError."""
    stated = claims.get("events")
    if type(stated) is not dict or len(stated) != 1:
        raise _refused("it tells of one event, in events")
    ((event, payload),) = stated.items()
    if type(payload) is not dict:
        raise _refused("its event is no object")
    return event, payload


# --- a security event -----------------------------------------------------------------------------


def _happened(opened: Opened, policy: Policy, now: int) -> Effect:
    """What a security event token comes to (RFC 8417, 2.2; SSF 1.0)."""
    claims = opened.unverified.claims
    stream: Any = opened.provider
    _check_texts(claims)
    event, payload = _one_event(claims)
    _check_for_this_alone(claims, stream)
    _check_age(claims, now)

    # Each provider of that issuer has requirements of its own.
    issuer = issuer_of(policy.providers[stream.about])
    decisions = {
        name: events.consequence_of(event, payload, policy, name)
        for name in policy.subjects
        if issuer_of(policy.providers[name]) == issuer
    }
    endings: list[Ending] = []
    notes = [event.rpartition("/")[2]]

    # What is noted alone may be about somebody who has no name here, or about the stream itself.
    if any(decisions.values()):
        whose = _whose(event, claims, payload, issuer, stream.email)
        meant, unnamed = _meant(policy, whose)
        notes += unnamed
        for name, subject in meant:
            decision = decisions[name] or events.NOTHING

            # Each has an effect of its own. Of one name the second would have been heard.
            named = opened.name if name == stream.about else f"{opened.name} {name}"
            base = Ending(
                now=now,
                provider=name,
                session=whose.session,
                subject=subject,
                issued_at=claims["iat"],
                jti=claims["jti"],
                stream=named,
            )
            endings.append(_as_decided(base, decision, policy))
        endings += _sessionless(policy, whose, endings)

    return Effect(
        stream=opened.name,
        jti=claims["jti"],
        endings=tuple(endings),
        note="; ".join(notes),
        alarm=events.alarms(event, payload),
    )


def _check_for_this_alone(claims: Json, stream: Signals) -> None:
    """Raise IssuanceError if another receiver could be sent it: it could send it on to here."""
    with _refusing("invalid_audience"):
        audiences = audiences_of(claims)
    if audiences != [stream.audience]:
        stated = shown(", ".join(audiences))
        raise _refused(
            f"it is for {stated} (aud), and not for this alone",
            "invalid_audience",
        )


def _as_decided(ending: Ending, decision: events.Consequence, policy: Policy) -> Ending:
    """The ending, of the grants that it is about."""
    return structs.replace(
        ending,
        grants=decision.grants,
        known=tuple(policy.grants) if decision.and_removed else None,
        instead=decision.instead,
    )


def _check_age(claims: Json, now: int) -> None:
    """Raise IssuanceError for an event of a time to come, or that is older than is remembered.

    An event has no end of its own as a rule (SSF 1.0). By then it could have been heard before.
    """
    with _refusing("invalid_request"):
        times = {
            name: time_of(claims, name)
            for name in ("iat", "exp", "nbf")
            if name == "iat" or name in claims
        }

    begins = max(times["iat"], times.get("nbf", 0))
    if begins > now + LEEWAY:
        raise _refused("it is of a time to come, by the clock here")
    age = now - times["iat"]
    if age > MAX_AGE:
        raise _refused(f"it was issued {age} s ago")
    if now >= times.get("exp", now) + LEEWAY:
        raise _refused("it has expired")


def _whose(
    event: str,
    claims: Json,
    payload: Json,
    issuer: str,
    email: str | None,
) -> _Whose:
    """Whom an event is about (SSF 1.0, "Subject Members"; RFC 9493). Raises IssuanceError.

    `email` is the claim that has the address, if people may be named by it.

    A session is a session's where that was revoked, or where nobody else is named: whatever else
    happens is about all of the person's. The device of a complex subject is not known here, so that
    it leaves nothing out.
    """
    subject = _one_subject(claims, payload)
    written = _format_of(subject)
    is_of_session = event == events.SESSION_REVOKED

    user: Any = subject
    session: Any = None
    if written == "complex":
        user = subject.get("user")
        session = subject.get("session")
    elif written == "opaque" and is_of_session:
        user = None
        session = subject

    claim = None if user is None else _claim_of(user, issuer, email)
    sid = None if session is None else _id_of(session)
    if claim is None and sid is None:
        raise _refused("its subject has neither a user nor a session")

    names_session_alone = is_of_session or claim is None
    return _Whose(
        issuer=issuer,
        session=sid if names_session_alone else None,
        claim=claim,
    )


def _one_subject(claims: Json, payload: Json) -> Json:
    """The subject, which drafts had in the event itself. Where both say it, they say the same.

    Raises IssuanceError.
    """
    places = (claims.get("sub_id"), payload.get("subject"))
    stated = [one for one in places if one is not None]
    if not stated or any(one != stated[0] or type(one) is not dict for one in stated):
        raise _refused("it names one subject, as an object")
    subject: Json = stated[0]
    return subject


def _format_of(subject: Any) -> Any:
    """How a subject is written. None for what does not say it, or says it twice.

    `subject_type` is what it was called before RFC 9493, and there `iss_sub` was `iss-sub`.
    """
    if type(subject) is not dict or ("format" in subject and "subject_type" in subject):
        return None
    if "format" in subject:
        return subject["format"]
    before = subject.get("subject_type")
    return "iss_sub" if before == "iss-sub" else before


def _claim_of(user: Any, issuer: str, email: str | None) -> tuple[str, str]:
    """What a user is known by: `sub`, or the claim that has their address. Raises IssuanceError."""
    written = _format_of(user)
    if written == "email" and email is not None:
        return email, _text_of(user, "email", "its user has no email")

    if written != "iss_sub":
        raise _refused("its user is not named by iss_sub")
    sub = _text_of(user, "sub", "its user has no sub")

    # A stream about one provider's people could else end what those of another one started.
    if user.get("iss") != issuer:
        raise _refused("its user is of another issuer")
    return "sub", sub


def _id_of(session: Any) -> str:
    """The id of a session. Raises IssuanceError."""
    if _format_of(session) != "opaque":
        raise _refused("its session is not opaque")
    return _text_of(session, "id", "its session has no id")


def _text_of(stated: Json, name: str, otherwise: str) -> str:
    """A text that is stated by that name. Raises IssuanceError: `otherwise`."""
    value = stated.get(name)
    if type(value) is not str or not value:
        raise _refused(otherwise)
    return value


# --- whose tasks ----------------------------------------------------------------------------------


class _Whose(msgspec.Struct, frozen=True):
    """Whom a signal is about, as their provider calls them: a session, or else all of a person."""

    issuer: str
    session: str | None

    # A claim that the person is known by, and what it says.
    claim: tuple[str, str] | None


def _meant(policy: Policy, whose: _Whose) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The providers of that issuer, and what each calls the subject; None: the session says whose.

    Of each provider whose assertions start tasks: an access token of the session that logged out
    is as good as the ID token. Beside them, for the log, those at which the subject has no name.
    Raises IssuanceError where it has none at all: to say nothing would be to let it go on.
    """
    meant: list[tuple[str, str | None]] = []
    unnamed: list[str] = []
    for name, template in policy.subjects.items():
        if issuer_of(policy.providers[name]) != whose.issuer:
            continue
        if whose.session is not None:
            meant.append((name, None))
            continue

        # No more is known of the person than the signal says.
        said = {} if whose.claim is None else dict((whose.claim,))
        try:
            meant.append((name, template.subject(whose.issuer, said)))
        except ValueError as error:
            unnamed.append(f"provider {name}: {error}")
    if unnamed and not meant:
        raise _refused("its subject has no name here", why="; ".join(unnamed))
    return meant, unnamed


def _sessionless(
    policy: Policy,
    whose: _Whose,
    endings: Iterable[Ending],
) -> tuple[Ending, ...]:
    """Where a session ends and it is said whose it is: the same of what has no session.

    An access token says none as a rule (RFC 9068), and could be of this one. Each is told by a name
    of its own: under the name of the session's it would have been heard.
    """
    if whose.session is None or whose.claim is None:
        return ()
    made: list[Ending] = []
    for ending in endings:
        template = policy.subjects[str(ending.provider)]
        try:
            subject = template.subject(whose.issuer, dict((whose.claim,)))
        except ValueError:  # by that provider, nobody of that name has started anything
            continue
        told_by = f"{ending.stream or ending.provider} sessionless"
        made.append(
            structs.replace(
                ending,
                session=None,
                subject=subject,
                sessionless=True,
                stream=told_by,
            )
        )
    return tuple(made)
