"""`captoken issue`: the service that starts tasks, and the policy that it decides by."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from time import time
from typing import TYPE_CHECKING, Any

import click

from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown_file, span
from captoken.cli import files, serving, words
from captoken.cli.groups import InOrder
from captoken.cli.operate import operators
from captoken.cli.options import clock, json_option, now_option, seconds
from captoken.cli.output import ToStderr, answer, say_json, tell, warn
from captoken.cli.postgres import connected, needing
from captoken.cli.values import DURATION, FILE, OBJECT
from captoken.keys.secret import DischargerKey, OperatorKey

if TYPE_CHECKING:
    from captoken.issuance.desk import Desk
    from captoken.issuance.identity import Identity
    from captoken.issuance.policy import Policy
    from captoken.issuance.registry.postgres import PostgresRegistry
    from captoken.issuance.registry.sqlite import SQLiteRegistry


@click.group(cls=InOrder)
def issue() -> None:
    """Start tasks for people and workloads that log in.

    A policy file says who may start which task, and what that task may do.
    """


_policy = click.argument("policy", type=FILE, metavar="POLICY.toml")


@issue.command()
@_policy
@json_option
def check(policy: str, as_json: bool) -> int:
    """Load a policy, and run its own tests.

    \b
    captoken issue check policy.toml
    """
    loaded = _loaded(policy)
    lines = [f"policy {loaded.digest}: {words.counted(len(loaded.tests), 'test')} passed"]
    for name, grant in loaded.grants.items():
        servers = ", ".join(grant.resources)
        life = span(grant.expires_in)
        lines.append(f"  {name}: {', '.join(grant.agents)} at {servers}, for {life}")
    data = {
        "policy": loaded.digest,
        "grants": list(loaded.grants),
        "tests": len(loaded.tests),
    }
    answer(as_json, data, *lines)
    secret = None if loaded.login is None else loaded.login.secret_file
    if secret is not None and not os.path.isfile(secret):
        tell(f"note: login.secret_file {shown_file(secret)} is not here: nobody can log in yet")
    return 0


@issue.command()
@_policy
@click.option(
    "--subject",
    type=OBJECT,
    metavar="JSON",
    help='Who started it: claims, with the provider. {"provider": "acme", "groups": ["finance"]}',
)
@click.option(
    "--actor",
    type=OBJECT,
    metavar="JSON",
    help="The claims of the workload that acts, in the same form.",
)
@click.option(
    "--client",
    metavar="ID",
    help="The application that the subject logs in with: the address of its document, or a name.",
)
@click.option("--grant", metavar="NAME", help="The grant to ask for.")
@click.option(
    "--resource",
    metavar="NAME",
    help="The server that the token is for. The default is the grant's first.",
)
@click.option("--agent", metavar="NAME", help="The agent that will hold the token.")
@click.option(
    "--ask",
    type=OBJECT,
    metavar="JSON",
    help='What is asked of the grant, in the keywords of attenuate: {"tables": ["sales"]}',
)
@now_option
@json_option
def explain(
    policy: str,
    subject: dict[str, Any] | None,
    actor: dict[str, Any] | None,
    client: str | None,
    grant: str | None,
    resource: str | None,
    agent: str | None,
    ask: dict[str, Any] | None,
    now: int | None,
    as_json: bool,
) -> int:
    """Show which grants match somebody, and why others do not.

    It also shows what a request would get.

    \b
    captoken issue explain policy.toml \\
        --subject '{"provider": "acme", "groups": ["finance"]}'

    Nothing is verified, and nobody gets a token. Exit 1 if the service would issue none.
    """
    from captoken.issuance.minting import Ask

    loaded = _loaded(policy)
    desk = _desk(loaded, now)
    starts = _imagined(loaded, subject, "--subject")
    acts = _imagined(loaded, actor, "--actor")
    fits = {fit.grant.name: fit.misses for fit in desk.fits(starts, acts, client)}
    asked = Ask(
        grant=grant,
        resources=() if resource is None else (resource,),
        agent=agent,
        keywords=ask or {},
        held=True,
        client=client,
        by_login=client is not None,
    )
    try:
        gives, refused = _given(desk, asked, starts, acts), None
    except IssuanceError as error:
        gives, refused = None, error

    why = None if refused is None else f"{refused.code}: {refused}"
    data = {"grants": fits, "gives": gives, "refused": why}
    answer(as_json, data, *_explained(fits, gives, refused, now))
    return 0 if refused is None else 1


def _given(
    desk: Desk,
    asked: Any,
    subject: Identity | None,
    actor: Identity | None,
) -> dict[str, Any]:
    """What a request would get. Raises IssuanceError."""
    from msgspec import structs

    from captoken.issuance.minting import granted_keywords, tokens_of

    grant = desk.chosen(asked, subject, actor)
    some_key = _SOME_KEY if grant.bound else None
    resources = asked.resources or grant.resources[:1]
    agent = asked.agent or grant.agents[0]
    whole = structs.replace(asked, key=some_key, resources=resources, agent=agent)
    plan = desk.plan(whole, subject, actor)
    (root,) = tokens_of(plan.root)
    rights = granted_keywords(root)
    # Each task has an id of its own, and there is none yet.
    del rights["task"]
    return {"grant": grant.name, "subject": plan.entry.subject, "agent": agent, **rights}


# A public key that nobody uses: whoever really asks proves one of its own.
_SOME_KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def _explained(
    fits: Mapping[str, str | None],
    gives: Mapping[str, Any] | None,
    refused: IssuanceError | None,
    now: int | None,
) -> Iterator[str]:
    for name, misses in fits.items():
        yield f"{name}: {'fits' if misses is None else misses}"
    if gives is not None:
        yield f"gives {gives['grant']} to {gives['agent']} for {gives['subject']}"
        at = seconds(now)
        for line in words.of_rights(gives, at) + words.of_rules(gives, at):
            yield f"  {line}"
    if refused is not None:
        why = f" ({refused.why})" if refused.why else ""
        yield f"refused, {refused.code}: {refused}{why}"


@issue.command()
@click.argument("policy", type=FILE, metavar="POLICY.toml", required=False)
@click.option(
    "--try",
    "is_trial",
    is_flag=True,
    help="Try a login: a provider with two people, and an MCP server at /mcp. Needs no file.",
)
@click.option(
    "--keyring",
    type=FILE,
    metavar="FILE",
    help="The file of root keys. Give servers only their own: `captoken keygen audience`.",
)
@click.option(
    "--registry",
    type=FILE,
    metavar="FILE.db",
    help="The SQLite file that stores the tasks, or a database: postgresql://…",
)
@click.option("--create", is_flag=True, help="Create the registry, which must not exist yet.")
@click.option(
    "--lease",
    type=FILE,
    metavar="FILE",
    help="The discharger's key that confirms which tasks are alive.",
)
@click.option(
    "--operator",
    type=FILE,
    metavar="FILE",
    help="An operator's key, to revoke the tokens of ended tasks in the overlay.",
)
@click.option(
    "--overlay",
    type=FILE,
    metavar="FILE.db",
    help="The SQLite file of the overlay. Needs --operator.",
)
@click.option(
    "--trail",
    type=FILE,
    metavar="FILE",
    help="The audit trail for issued tokens and for refusals of verified clients.",
)
@click.option(
    "--trail-key",
    type=FILE,
    metavar="FILE",
    help="The audit key that signs checkpoints of the trail, each minute. Needs --trail.",
)
@click.option(
    "--every",
    type=DURATION,
    metavar="TIME",
    default="5s",
    show_default=True,
    help="How often to check for changes of the policy, the keyring or the operator's key.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--port", default=8700, show_default=True, metavar="NUMBER", type=int)
@json_option
def serve(
    policy: str | None,
    is_trial: bool,
    keyring: str | None,
    registry: str | None,
    create: bool,
    lease: str | None,
    operator: str | None,
    overlay: str | None,
    trail: str | None,
    trail_key: str | None,
    every: int,
    host: str,
    port: int,
    as_json: bool,
) -> None:
    """Run the service, until Ctrl-C or SIGTERM.

    \b
    captoken keygen keyring --out keyring.json
    captoken keygen discharger --out lease.json
    captoken issue serve policy.toml --keyring keyring.json --registry tasks.db \\
        --lease lease.json --create

    Or try a login first: captoken issue serve --try

    It speaks plain HTTP, so put a proxy with TLS in front of it. Without --operator, the end of a
    login stops only the leases of its tasks. With --trail, a token that cannot be recorded is not
    issued: see `captoken audit log`. Needs uvicorn. With --json, it writes one object when it
    starts.

    The service loads the policy, the keyring and the operator's key again when a file changes, and
    on SIGHUP. If a new file does not load or fails its own tests, the service keeps the old one,
    and logs why. On SIGHUP, a trail that was moved goes on in a new file.
    """
    if is_trial:
        if policy is not None or keyring is not None or registry is not None:
            raise click.UsageError("--try keeps everything in memory: give it no file")
        return _serve_trial(host, port, as_json)
    if policy is None or keyring is None or registry is None:
        raise click.UsageError("it needs POLICY.toml, --keyring and --registry; or --try alone")
    _check_together(operator, overlay, trail, trail_key)
    try:
        import uvicorn
    except ImportError:
        raise click.ClickException("serve needs uvicorn: pip install uvicorn") from None
    from captoken.adapters.issuance import IssuanceService, Setup
    from captoken.cli.reloading import Reloading, Watched  # which needs asyncio
    from captoken.issuance.identity import names_of
    from captoken.issuance.policy import read

    watched = Watched([policy, keyring, *([] if operator is None else [operator])])
    loaded = _loaded(policy)
    keys = files.keyring(keyring)
    leasing = None if lease is None else files.key(DischargerKey, lease)
    opened = _registry(registry, create)
    opened.keep_names(names_of(loaded))
    with ExitStack() as stack:
        ends = None
        if operator is not None and overlay is not None:
            ends = stack.enter_context(operators(operator, overlay, None, by="issuer"))
        kept = None if trail is None else stack.enter_context(files.trail(trail, trail_key))
        service = IssuanceService(
            loaded,
            keys,
            opened,
            lease=leasing,
            operator=None if ends is None else ends.newest,
            trail=kept,
        )

        def load() -> Setup:
            """The same files again. The policy's tests are run by whoever takes it."""
            if kept is not None:
                kept.reopen()
            anew = None
            if ends is not None and operator is not None:
                anew = ends.taken_over(files.key(OperatorKey, operator))
            return Setup(read(files.data(policy)), files.keyring(keyring), anew)

        reloading = Reloading(service, load, watched, every, kept)

        def announce() -> None:
            if as_json:
                say_json({"policy": loaded.digest, "host": host, "port": port}, indent=None)
            tell(f"{loaded.origin} is served at http://{host}:{port}: Ctrl-C ends that")

        _log_to_stderr()
        server = uvicorn.Server(_config(reloading, host, port))
        serving.run(server, begin=announce, reload=reloading.tell)


def _check_together(
    operator: str | None,
    overlay: str | None,
    trail: str | None,
    trail_key: str | None,
) -> None:
    """Raise UsageError for an option without the one that it needs."""
    if (operator is None) != (overlay is None):
        raise click.UsageError("--operator and --overlay go together")
    if trail is None and trail_key is not None:
        raise click.UsageError("--trail-key goes with --trail")


def _config(app: Any, host: str, port: int) -> Any:
    """How an application is served. A proxy is known by its address, and not by one it tells."""
    import uvicorn

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )


def _registry(place: str, create: bool) -> SQLiteRegistry | PostgresRegistry:
    """The registry in a file, or in a database."""
    if place.startswith(("postgresql://", "postgres://")):
        with needing("postgres"):
            from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
            from captoken.stores.postgres import create_tables
        if not create:
            return PostgresRegistry(place)
        with connected(place) as connection:
            create_tables(connection, tables=WITH_REGISTRY)
        return PostgresRegistry.create(place)
    from captoken.issuance.registry.sqlite import SQLiteRegistry

    return SQLiteRegistry.create(place) if create else SQLiteRegistry(place)


# What calls a tool of the trial, with Node 22.19 or newer.
INSPECTOR = (
    "MCP_AUTO_OPEN_ENABLED=true npx @modelcontextprotocol/inspector@2 --cli {origin}/mcp "
    "--client-id inspector --method tools/call --tool-name read_note --tool-arg name=milk"
)


def _serve_trial(host: str, port: int, as_json: bool) -> None:
    """A login to try, on this computer alone."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise click.UsageError("--try is for this computer alone: leave --host out")
    try:
        import uvicorn
    except ImportError:
        raise click.ClickException("serve needs uvicorn: pip install uvicorn") from None
    from captoken.cli.trial.command import Trial

    origin = f"http://127.0.0.1:{port}"

    def announce() -> None:
        if as_json:
            say_json({"mcp": f"{origin}/mcp", "client": "inspector"}, indent=None)
        tell(f"A trial: an MCP server is at {origin}/mcp, and a login at {origin}")
        tell("Anybody on this computer can log in as anybody. Ctrl-C ends it, and forgets all")
        tell("Next, in another terminal (for a client in Python: captoken docs mcp-login):")
        warn(f"  {INSPECTOR.format(origin=origin)}")

    _log_to_stderr()
    serving.run(uvicorn.Server(_config(Trial(origin), "127.0.0.1", port)), begin=announce)


def _log_to_stderr() -> None:
    """What callers are not told: keys that cannot be had, and why somebody was refused."""
    logger = logging.getLogger("captoken")
    logger.addHandler(ToStderr())
    logging.getLogger("captoken.issuance").setLevel(logging.INFO)


def _loaded(path: str) -> Policy:
    """The policy of a file, whose tests hold. Raises IssuanceError."""
    from captoken.issuance import desk
    from captoken.issuance.policy import read

    policy = read(files.data(path))
    desk.check_policy(policy)
    return policy


def _desk(policy: Policy, now: int | None) -> Desk:
    """A desk whose tokens nobody gets: its keys are made up."""
    from captoken.issuance.desk import Desk
    from captoken.keys.keyring import Keyring

    return Desk(policy, Keyring.generate(), lease=DischargerKey.generate().public, clock=clock(now))


def _imagined(policy: Policy, claims: dict[str, Any] | None, option: str) -> Identity | None:
    """Somebody with these claims. Raises UsageError for a provider that is not there."""
    from captoken.issuance.desk import imagined

    if claims is not None and claims.get("provider") not in policy.providers:
        known = ", ".join(policy.providers)
        raise click.UsageError(f'{option} names a provider: {{"provider": "…"}}, one of {known}')
    return imagined(policy, claims, int(time()))
