"""`captoken gateway processor` and the configurations of the proxies that ask it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import click

from captoken.cli import gateway_workers as workers
from captoken.cli import serving
from captoken.cli.gateway_demo import check_extra
from captoken.cli.gateway_options import create_option, file_argument
from captoken.cli.options import json_option
from captoken.cli.output import ToStderr, say_exact, say_json, tell
from captoken.cli.postgres import needing

if TYPE_CHECKING:
    from captoken.adapters._gateway.opening import Configuration


@click.command()
@file_argument
@create_option
@click.option("--worker", type=int, hidden=True, help="The number of this process, of several.")
@json_option
def processor(path: str, create: bool, worker: int | None, as_json: bool) -> int:
    """Decide on requests for Envoy, until Ctrl-C or SIGTERM.

    \b
    captoken gateway envoy gateway.toml > envoy.yaml
    captoken gateway processor gateway.toml
    envoy -c envoy.yaml

    Envoy connects to clients and services, and asks here for each request, by `ext_proc`. The
    socket is the one of [proxy] in the file. With --json, it writes one object when it starts.

    With workers = N in [proxy], it starts N processes, and one anew that ends. They share the
    ledger.
    """
    check_extra()
    with needing("envoy"):
        import_module("captoken.adapters._gateway.ext_proc")
    from captoken.adapters._gateway.opening import configured, stores

    serving.refuse_dumps()
    logger = logging.getLogger("captoken")
    logger.addHandler(ToStderr(timed=True))
    logger.setLevel(logging.INFO)  # a line for each denial
    found = configured(path)
    count = found.file.proxy.workers
    if count > 1 and worker is None:
        with stores(found, create=create, readonly=not create):
            pass  # made, or refused, before each of them looks
        announced = partial(_announce, found, as_json)
        return workers.kept(path, count, found.file.gateway.timeout, announced)
    if worker is not None:
        workers.end_with_parent()
        return asyncio.run(_process(found, create, worker, lambda: say_json({}, indent=None)))
    return asyncio.run(_process(found, create, 0, partial(_announce, found, as_json)))


def _announce(found: Configuration, as_json: bool) -> None:
    at = found.asked_at
    if as_json:
        say_json({"services": list(found.services), "address": at[0], "addresses": at}, indent=None)
    tell(f"{', '.join(found.services)}: decided on for Envoy at {', '.join(at)}: Ctrl-C ends that")


async def _process(
    found: Configuration, create: bool, worker: int, announce: Callable[[], None]
) -> int:
    from captoken.adapters._gateway import ext_proc
    from captoken.adapters._gateway.opening import stores
    from captoken.adapters.gateway import Gateway

    # MCP servers and AuthZEN are of the gateway itself: `captoken gateway run`.
    found = found._replace(mcp={}, authzen={})
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    with stores(found, create=create, worker=worker) as parts:
        verifiers = {name: parts.verifier(name) for name in found.services}
        gateway = Gateway(found, verifiers, closing=parts.aclose, kept=parts.kept)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, gateway.reload)
        async with ext_proc.living(gateway):
            begun = await ext_proc.serving(gateway, found, worker)
            announce()
            await ended.wait()
            await begun.drain(found.file.gateway.timeout)
    return 0


_by = click.Choice(("ext_proc", "ext_authz", "ext_authz_http"))


@click.command()
@file_argument
@click.option(
    "--by",
    type=_by,
    default="ext_proc",
    show_default=True,
    help="How Envoy asks. By ext_authz, it sees only the head of each request.",
)
@click.option("--at", metavar="HOST:PORT", help="Where Envoy listens, if not at `listen`.")
def envoy(path: str, by: str, at: str | None) -> int:
    """Write a configuration of Envoy that asks the processor.

    \b
    captoken gateway envoy gateway.toml > envoy.yaml
    envoy -c envoy.yaml

    It has a listener at `listen`, and the services of the file that are no MCP servers. It has no
    key in it. To change it, keep what `captoken gateway check --envoy` looks at.

    With --by ext_authz, it has the services that say `answers = "unseen"`. With ext_authz_http it
    asks `captoken gateway run`, which listens at `listen`: so --at is another address.
    """
    check_extra()
    import yaml

    from captoken.adapters._gateway import proxies
    from captoken.adapters._gateway.opening import configured

    found = configured(path)
    if by == "ext_authz_http" and at in (None, found.file.gateway.listen):
        raise click.UsageError("--at: `gateway run` listens at `listen`, so name another address")
    say_exact(yaml.safe_dump(proxies.envoy(found, by, at), sort_keys=False))
    return 0


_at = click.option(
    "--at",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where the proxy listens.",
)


def _asking(path: str) -> Configuration:
    check_extra()
    from captoken.adapters._gateway.opening import configured

    return configured(path)


@click.command()
@file_argument
@_at
def caddy(path: str, at: str) -> int:
    """Write a Caddyfile that asks the gateway.

    \b
    captoken gateway caddy gateway.toml > Caddyfile
    caddy run --config Caddyfile

    It has the services that say `answers = "unseen"`. Caddy has the secret of [proxy] in its
    environment.
    """
    from captoken.adapters._gateway import asking_proxies

    say_exact(asking_proxies.caddy(_asking(path), at))
    return 0


@click.command()
@file_argument
@_at
def nginx(path: str, at: str) -> int:
    """Write a configuration of nginx that asks the gateway.

    \b
    captoken gateway nginx gateway.toml > nginx.conf

    It has the services that say `answers = "unseen"`. The secret of [proxy] stands in secret.conf
    beside it, which the file's head shows.
    """
    from captoken.adapters._gateway import asking_proxies

    say_exact(asking_proxies.nginx(_asking(path), at))
    return 0


@click.command()
@file_argument
def traefik(path: str) -> int:
    """Write configuration for Traefik that asks the gateway.

    \b
    captoken gateway traefik gateway.toml > captoken.yaml

    It is for Traefik's file provider, and has the services that say `answers = "unseen"`. Traefik
    has the secret of [proxy] in its environment.
    """
    check_extra()
    import yaml

    from captoken.adapters._gateway import asking_proxies

    say_exact(yaml.safe_dump(asking_proxies.traefik(_asking(path)), sort_keys=False))
    return 0
