"""The client of the issuance service: exchanges a login or a workload's identity for a root token.

    office = Issuance("https://issuer.example", key=HolderKey.load("agent.key"))
    root = office.start(login=id_token, actor=workload(), grant="q3-risk", resource="sales-db")
    paid = office.join(root, login=id_token, actor=workload(), grant="q3-sentiment")
    both = office.start_set(login=id_token, actor=workload(), resources=["sales-db", "mail"])

1. An assertion is sent only to the service that it is for. A platform's token is read first: if its
   audience is not this service alone, it is not sent. A Kubernetes token with the default audience
   would give the receiver access to the cluster.
2. It uses https, or this machine. It follows no redirect, and limits the size of responses.
3. What is sent appears in no error and in no `repr`.
4. A token is requested once. There is no refresh: to get another token, log in again.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from time import time
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import CaptokenError, IssuanceError
from captoken._format.extras import extra
from captoken._format.public_keys import signing_key
from captoken._format.sealed import no_arguments_in_traceback
from captoken._format.spelling import escape, shown, shown_file
from captoken._language.bounds import ASSERTION_CHARS
from captoken._writing.token import Token
from captoken._writing.token_set import OnlyAt, TokenSet
from captoken.issuance import saml
from captoken.issuance.dpop import proof_for
from captoken.issuance.jose import JoseError, UnverifiedJwt, read_json, taken_apart
from captoken.issuance.minting import ROOT, TOKEN_SET, tokens_of
from captoken.issuance.web import MAX_BYTES, PATIENCE, Form, Web, is_safe, unavailable
from captoken.proof import Signer

__all__ = ["Issuance", "PlatformIdentity", "workload"]

_SAID_CHARS = 500  # of a service's own words in an error

# Of an answer with a set: its longest text, and as much again that says what it is good for.
_SET_BYTES = 2 * MAX_BYTES

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_BY_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

# What a login is called, by the `typ` that it says itself. All others are ID tokens.
_LOGINS = {
    "at+jwt": "urn:ietf:params:oauth:token-type:access_token",
    "oauth-id-jag+jwt": "urn:ietf:params:oauth:token-type:id-jag",
}
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105, the name of a type
_SAML = "urn:ietf:params:oauth:token-type:saml2"

# A workload's JWT, or what gives one for an audience.
Identity: TypeAlias = "str | Callable[[str], str]"

_Held = TypeVar("_Held", Token, TokenSet)


class Issuance:
    """The client of an issuance service.

    `url` is the service's issuer identifier. `key` is a holder's key, or another signer; root
    tokens are then bound to it. `context` is for a service whose certificate is from a private
    authority, or that wants a client certificate: load it with `ssl.SSLContext.load_cert_chain`.
    `spiffe_id` is the SPIFFE ID of the client certificate, which acts if no other actor is given.

    Threads may share it. In an event loop, use `await asyncio.to_thread(office.start, …)`. Raises
    ValueError for an address that is not safe for assertions, and for a `spiffe_id` without a
    context or without https.
    """

    def __init__(
        self,
        url: str,
        *,
        key: Signer | None = None,
        context: ssl.SSLContext | None = None,
        spiffe_id: str | None = None,
        clock: Clock = time,
    ) -> None:
        if type(url) is not str or not is_safe(url) or url.endswith("/"):
            raise ValueError(
                f"a service must be an https address without a slash at its end, not {shown(url)}"
            )
        if spiffe_id is not None:
            if not spiffe_id.startswith("spiffe://"):
                raise ValueError(f"a SPIFFE ID must be spiffe://…, not {shown(spiffe_id)}")
            if context is None or not url.startswith("https:"):
                raise ValueError("spiffe_id needs a certificate: pass its context, and use https")
        self.url = url
        self._assertions = _Assertions(url, spiffe_id)
        self._key = key
        self._public = None if key is None else b64encode(signing_key(key.public))
        self._web = Web(context)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Issuance {self.url}>"

    @no_arguments_in_traceback
    def start(
        self,
        *,
        login: str | None = None,
        actor: Identity | None = None,
        grant: str | None = None,
        resource: str | None = None,
        task: str | None = None,
        agent: str | None = None,
        clamp: bool = False,
        **keywords: Any,
    ) -> Token:
        """Start a task, and get its root token.

        - `login` says who started it: an ID token, an access token of RFC 9068, an ID-JAG, or a
          SAML assertion in base64url.
        - `actor` is the workload that acts: its JWT, or a function that returns one, such as
          `workload()`. The default is the workload of `spiffe_id`. Without a login, the workload is
          both.
        - `grant`, `resource` and `agent` are names in the policy. You can leave out each that has
          only one possible value.
        - `task` is a label for the new task, or the whole id of one to join.
        - `keywords` are those of `attenuate`, as JSON: what the task needs of the grant. Asking for
          more than the grant is refused. With `clamp=True` the excess is left out; that includes a
          pattern that the grant allows only in part, and a longer `expires_in`.

        The returned token is one to hold: present it, and never send it as it is. It is not
        verified, because that needs the root key. Raises IssuanceError with the service's code and
        text, or with the code `temporarily_unavailable` if the service cannot be reached. Raises
        TypeError without a login and an actor, and for keywords that are no JSON. Raises ValueError
        for an empty name.
        """
        form = _form(
            ROOT,
            {"grant": grant, "task": task, "agent": agent},
            [] if resource is None else [resource],
            {"clamp": clamp or None, **keywords},
        )
        said = self._answer({**form, **self._assertions.parameters(login, actor)})
        return self._held_in(said, ROOT, Token.parse)

    @no_arguments_in_traceback
    def join(
        self,
        root: Token | TokenSet,
        *,
        login: str | None = None,
        actor: Identity | None = None,
        grant: str | None = None,
        resource: str | None = None,
        agent: str | None = None,
        clamp: bool = False,
        **keywords: Any,
    ) -> Token:
        """Another root token, within the task of `root`: for another server, or by another grant.

        It has to be the same subject and actor. The rest is as in `start`.
        """
        return self._joined(
            root,
            self.start,
            login=login,
            actor=actor,
            grant=grant,
            resource=resource,
            agent=agent,
            clamp=clamp,
            **keywords,
        )

    @no_arguments_in_traceback
    def start_set(
        self,
        *,
        login: str | None = None,
        actor: Identity | None = None,
        grant: str | None = None,
        resources: Iterable[str] = (),
        task: str | None = None,
        agent: str | None = None,
        clamp: bool = False,
        only: OnlyAt | None = None,
        servers: Iterable[str] | None = None,
        **keywords: Any,
    ) -> TokenSet:
        """Start a task at several servers, and get a set: a root token for each of them.

        Every token is under the keys of its own server. `resources` names the servers; without it,
        the set is for all servers of the grant. `only` and `servers` are those of
        `TokenSet.attenuate`, by the servers' names in the policy. The rest is as in `start`.

        Raises what `start` raises.
        """
        named = [resources] if isinstance(resources, str) else [*resources]
        form = _form(
            TOKEN_SET,
            {"grant": grant, "task": task, "agent": agent},
            named,
            {
                "clamp": clamp or None,
                "only": only,
                "servers": None if servers is None else [*servers],
                **keywords,
            },
        )
        said = self._answer({**form, **self._assertions.parameters(login, actor)}, _SET_BYTES)
        made = self._held_in(said, TOKEN_SET, TokenSet.parse)
        if named and len(made.servers) != len(named):
            raise unavailable("the service answers with a set for other servers")
        if len({token.unverified.root.token_id for token in tokens_of(made)}) != 1:
            raise unavailable("the service answers with tokens that were not minted together")
        return made

    @no_arguments_in_traceback
    def join_set(
        self,
        root: Token | TokenSet,
        *,
        login: str | None = None,
        actor: Identity | None = None,
        grant: str | None = None,
        resources: Iterable[str] = (),
        agent: str | None = None,
        clamp: bool = False,
        only: OnlyAt | None = None,
        servers: Iterable[str] | None = None,
        **keywords: Any,
    ) -> TokenSet:
        """A set within the task of `root`. It has to be the same subject and actor.

        The rest is as in `start_set`.
        """
        return self._joined(
            root,
            self.start_set,
            login=login,
            actor=actor,
            grant=grant,
            resources=resources,
            agent=agent,
            clamp=clamp,
            only=only,
            servers=servers,
            **keywords,
        )

    def _joined(
        self,
        root: Token | TokenSet,
        start: Callable[..., _Held],
        **asked: Any,
    ) -> _Held:
        """What `start` gives within the task of `root`. Raises IssuanceError for another task."""
        task = _task_of(root)
        joined = start(task=task, **asked)
        if _task_of(joined) != task:
            raise IssuanceError(
                "the service started another task than this client asked for",
                "invalid_request",
            )
        return joined

    def _answer(self, form: Form, most: int = MAX_BYTES) -> dict[str, Any]:
        """What the service answers in so many bytes, if it is a token. Raises IssuanceError."""
        address = f"{self.url}/token"
        headers = {}
        if self._key is not None:
            now = read_clock(self._clock)
            proof = proof_for(self._key, method="POST", url=address, now=now, random=random_bytes)
            headers["dpop"] = proof
        status, body = self._web.send("POST", address, headers, form, most)

        try:
            said = read_json(body)
        except JoseError:
            said = {}
        if status == 200:
            return said

        # An error as OAuth has it (RFC 6749, 5.2). A page of some proxy is none.
        code, text = said.get("error"), said.get("error_description")
        if type(code) is not str or not code:
            raise unavailable(f"the service answers {status}, and not as such a service does")
        words = text if type(text) is str else "no reason is given"
        raise IssuanceError(_without(form.values(), words), _without(form.values(), code))

    def _held_in(
        self,
        said: Mapping[str, Any],
        kind: str,
        parse: Callable[..., _Held],
    ) -> _Held:
        """What is to be held in an answer, of that type. Raises IssuanceError for anything else."""
        text = said.get("access_token")
        if said.get("issued_token_type") != kind or type(text) is not str:
            raise unavailable(f"the service answers with no {_NAMES[kind]}")
        try:
            made = parse(text, clock=self._clock)
        except CaptokenError:
            raise unavailable(f"the service answers with what is no {_NAMES[kind]}") from None

        # Bound to another key, nobody here could use it; to none, others could.
        if any(token.unverified.key != self._public for token in tokens_of(made)):
            raise IssuanceError("the token is not bound to the key", "invalid_dpop_proof")
        return made


class _Assertions(NamedTuple):
    """What is sent to a service about who asks, and nothing that is not for it (rule 1)."""

    url: str
    spiffe_id: str | None

    def parameters(self, login: str | None, actor: Identity | None) -> dict[str, str]:
        """The parameters that say who asks. Raises IssuanceError for what is not to be sent."""
        acts = None
        if actor is not None:
            # Asked for now: what a platform gives is good for minutes.
            acts = actor if isinstance(actor, str) else actor(self.url)
            self._check_audience(acts, "the workload's identity", "invalid_client")

        # The connection's client certificate identifies it.
        named = {}
        if acts is None and self.spiffe_id is not None:
            named["client_id"] = self.spiffe_id

        if login is None:
            if named:
                return {"grant_type": "client_credentials", **named}
            if acts is None:
                raise TypeError("pass login, actor or both, to say who asks")
            return {
                "grant_type": "client_credentials",
                "client_assertion": acts,
                "client_assertion_type": _BY_JWT,
            }

        said = {
            "grant_type": _EXCHANGE,
            "subject_token": login,
            "subject_token_type": self._type_of(login),
            **named,
        }
        if acts is not None:
            said |= {"actor_token": acts, "actor_token_type": _JWT}
        return said

    def _type_of(self, login: str) -> str:
        """What a login is called. Raises IssuanceError for what is not to be sent.

        Whom an ID token or a SAML assertion is for is whatever the person logged in at.
        """
        if saml.is_one(login):
            return _SAML
        typ = _read(login, "the login", "invalid_request").header.get("typ")
        kind = _LOGINS.get(typ) if isinstance(typ, str) else None
        if kind is None:
            return _ID_TOKEN
        self._check_audience(login, "the login", "invalid_request")
        return kind

    def _check_audience(self, text: str, what: str, code: str) -> None:
        """Rule 1. Raises IssuanceError for an assertion that is not for this service alone."""
        audience = _read(text, what, code).claims.get("aud")
        if audience != self.url and audience != [self.url]:
            raise IssuanceError(
                f"{what} is for {shown(audience)}, not for {self.url} only, so it is not sent",
                code,
            )


# For people: what is asked for.
_NAMES = {ROOT: "held token", TOKEN_SET: "set of tokens"}


def _task_of(held: Token | TokenSet) -> str:
    """The task that it was minted for."""
    return tokens_of(held)[0].unverified.root.task


def _form(
    kind: str,
    names: Mapping[str, str | None],
    resources: list[str],
    keywords: Mapping[str, Any],
) -> dict[str, str | list[str]]:
    """What is asked for. Raises ValueError for an empty name, TypeError for what is no JSON."""
    for name, value in (*names.items(), *(("resource", one) for one in resources)):
        if value == "":  # which the service would take for one that was left out
            raise ValueError(f"{name} is empty: leave it out")
    details = {"agent": names["agent"], "task": names["task"], **keywords}
    form: dict[str, str | list[str] | None] = {
        "requested_token_type": kind,
        "scope": names["grant"],
        "resource": resources or None,
        "authorization_details": _details(details),
    }
    return {key: one for key, one in form.items() if one is not None}


def _details(stated: Mapping[str, Any]) -> str:
    """`authorization_details`: what is asked of the grant (RFC 9396). Raises TypeError."""
    given = {key: value for key, value in stated.items() if value is not None}
    try:
        return json.dumps([{"type": "captoken", **given}], default=_listed, allow_nan=False)
    except ValueError:
        raise TypeError("keywords: JSON has no NaN or Infinity") from None


def _listed(value: Any) -> Any:
    """A set as JSON has it. Raises TypeError for what JSON has not."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"keywords must be JSON values, not {type(value).__name__}")


def _read(text: Any, what: str, code: str) -> UnverifiedJwt:
    """An assertion, read and not verified. Raises IssuanceError for what is none."""
    try:
        return taken_apart(text)
    except JoseError as error:
        raise IssuanceError(f"{what} is not an assertion: {error}", code) from None


def _without(sent: Iterable[str | list[str]], text: str) -> str:
    """A service's words, escaped and short; what was sent to it is left out (rule 3)."""
    for one in chain.from_iterable([one] if isinstance(one, str) else one for one in sent):
        # Shorter ones are names, and no secrets.
        if len(one) > 64:
            text = text.replace(one, "…")
    return escape(text[:_SAID_CHARS])


# --- the workload's identity ----------------------------------------------------------------------


class PlatformIdentity:
    """The identity that a platform gives to this process: a JWT, fetched at each use.

    `workload()` finds the platform.
    """

    def __init__(self, source: str, get: Callable[[str], str]) -> None:
        self.source = source
        self._get = get

    def __call__(self, audience: str) -> str:
        """The JWT for that audience, not verified. Raises IssuanceError."""
        return self._get(audience)

    def __repr__(self) -> str:
        return f"<Workload by {self.source}>"


def workload(environ: Mapping[str, str] | None = None) -> PlatformIdentity:
    """The identity of this process, from the platform that set its environment variables.

        file     CAPTOKEN_IDENTITY_TOKEN_FILE: for example a volume that Kubernetes projects
        spiffe   SPIFFE_ENDPOINT_SOCKET, if the package `spiffe` is installed
        github   ACTIONS_ID_TOKEN_REQUEST_URL, in a job with the permission `id-token: write`
        gitlab   GITLAB_OIDC_TOKEN, from the job's `id_tokens`, for this service's audience
        google   GCE_METADATA_HOST, K_SERVICE or CLOUD_RUN_JOB: the metadata server

    CAPTOKEN_IDENTITY names one of these. It is required if several are there, and on Google's
    virtual machines, which set no variable: no address is contacted on a guess. Raises
    IssuanceError.
    """
    given = os.environ if environ is None else environ
    named = given.get("CAPTOKEN_IDENTITY")
    found = [named] if named else [name for name, there in _IS_THERE.items() if there(given)]
    if not found:
        raise _nobody("no platform says who this is: CAPTOKEN_IDENTITY names none, and none of "
                      "the variables is there")  # fmt: skip

    # Not the first that there is: an identity is not sent by accident.
    if len(found) > 1:
        raise _nobody(f"several say who this is: CAPTOKEN_IDENTITY says which, {_or(found)}")

    (source,) = found
    if source not in _GETTERS:
        raise _nobody(f"CAPTOKEN_IDENTITY is {_or(_GETTERS)}, not {shown(source)}")
    return PlatformIdentity(source, partial(_GETTERS[source], given))


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)


def _nobody(what: str) -> IssuanceError:
    return IssuanceError(what, "invalid_client")


def _variable(given: Mapping[str, str], name: str) -> str:
    """A variable that has to be there. Raises IssuanceError."""
    value = given.get(name)
    if not value:
        raise _nobody(f"{name} is not set")
    return value


def _by_file(given: Mapping[str, str], audience: str) -> str:
    """The file is read each time: the platform writes it anew before what is in it ends."""
    path = _variable(given, "CAPTOKEN_IDENTITY_TOKEN_FILE")
    try:
        with Path(path).open("rb") as file:
            return file.read(ASSERTION_CHARS + 2).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise _nobody(f"{shown_file(path)}: {type(error).__name__}") from None


def _by_spiffe(given: Mapping[str, str], audience: str) -> str:
    """By the Workload API. Whose word it is, the service checks: the package is a client here."""
    address = _variable(given, "SPIFFE_ENDPOINT_SOCKET")
    with extra("spiffe"):
        from spiffe import WorkloadApiClient  # pyright: ignore[reportMissingImports]
        from spiffe.errors import PySpiffeError  # pyright: ignore[reportMissingImports]

    problem = ""
    try:
        with WorkloadApiClient(socket_path=address, default_timeout=PATIENCE) as client:
            return str(client.fetch_jwt_svid(audience={audience}).token)
    except PySpiffeError as error:
        problem = type(error).__name__
    raise _nobody(f"the Workload API gives no identity: {problem}")


def _by_github(given: Mapping[str, str], audience: str) -> str:
    address = _variable(given, "ACTIONS_ID_TOKEN_REQUEST_URL")
    headers = {"authorization": f"Bearer {_variable(given, 'ACTIONS_ID_TOKEN_REQUEST_TOKEN')}"}
    if not is_safe(address):
        raise _nobody("ACTIONS_ID_TOKEN_REQUEST_URL is no https address")

    # It has a query already, for the version of the API.
    joint = "&" if "?" in address else "?"
    status, body = Web().send("GET", f"{address}{joint}audience={quote(audience, '')}", headers)

    try:
        value = read_json(body).get("value") if status == 200 else None
    except JoseError:
        value = None
    if type(value) is not str:
        raise _nobody(f"GitHub gives no identity: it answers {status}")
    return value


def _by_gitlab(given: Mapping[str, str], audience: str) -> str:
    """The job asked for it, with its audience, before it began."""
    return _variable(given, "GITLAB_OIDC_TOKEN")


def _by_google(given: Mapping[str, str], audience: str) -> str:
    """Of the metadata server, which is on a network of this machine alone, without TLS."""
    host = given.get("GCE_METADATA_HOST") or "metadata.google.internal"
    path = "computeMetadata/v1/instance/service-accounts/default/identity"
    address = f"http://{host}/{path}?audience={quote(audience, '')}&format=full"
    status, body = Web().send("GET", address, {"metadata-flavor": "Google"})
    if status != 200:
        raise _nobody(f"the metadata server gives no identity: it answers {status}")
    return body.decode("ascii", "replace").strip()


def _has(*names: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda given: any(given.get(name) for name in names)


def _has_spiffe(given: Mapping[str, str]) -> bool:
    return bool(given.get("SPIFFE_ENDPOINT_SOCKET")) and find_spec("spiffe") is not None


_IS_THERE: dict[str, Callable[[Mapping[str, str]], bool]] = {
    "file": _has("CAPTOKEN_IDENTITY_TOKEN_FILE"),
    "spiffe": _has_spiffe,
    "github": _has("ACTIONS_ID_TOKEN_REQUEST_URL"),
    "gitlab": _has("GITLAB_OIDC_TOKEN"),
    "google": _has("GCE_METADATA_HOST", "K_SERVICE", "CLOUD_RUN_JOB"),
}
_GETTERS: dict[str, Callable[[Mapping[str, str], str], str]] = {
    "file": _by_file,
    "spiffe": _by_spiffe,
    "github": _by_github,
    "gitlab": _by_gitlab,
    "google": _by_google,
}
