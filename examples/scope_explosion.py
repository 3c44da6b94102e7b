"""How many permissions must exist before anybody works? Scopes beside caveats.

    python examples/scope_explosion.py --tables 20 --operations 4 --lifetimes 5 --agents 12

Further options: --branching, --depth, --request-ms. And how often must an issuer be asked? The
OAuth figures are counted, under assumptions that are printed with them. The captoken figures are
measured here and now, on a tree of tokens that is really minted, narrowed and verified.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from captoken import Access, Issuer, Keyring, Token, Verifier

Result = TypeVar("Result")

WIDTH = 44  # columns of the longest bar

COUNTS = {
    "tables": 20,
    "operations": 4,
    "lifetimes": 5,
    "agents": 12,
    "branching": 3,
    "depth": 4,
}
parser = argparse.ArgumentParser(description="Scopes beside caveats.")
for name, default in COUNTS.items():
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument(
    "--request-ms", type=float, default=5.0, help="assumed: one token request within a data centre"
)
args = parser.parse_args()
if min(getattr(args, name) for name in COUNTS) < 1 or args.depth > 12:
    parser.error("each at least 1, and at most 12 levels")


def plot(rows: list[tuple[str, float, str]], longest: float | None = None) -> None:
    """Bars on a log scale, one a row of (label, log10 of the count, the count as text).

    They are cut off at `longest`.
    """
    longest = longest or max(log for _, log, _ in rows)
    for label, log, text in rows:
        bar = ""
        if log > -1:
            share = (min(log, longest) + 0.3) / (longest + 0.3)
            bar = "#" * max(1, round(WIDTH * share))
        beyond = " >>>" if log > longest else ""
        print(f"  {label:<34}{text:>14}  {bar}{beyond}".rstrip())


def counted(label: str, count: int) -> tuple[str, float, str]:
    """A row with a count; none at all has no bar."""
    return label, math.log10(count) if count else -1, f"{count:,}"


# --- What has to be registered --------------------------------------------------------------------

tables = args.tables
operations = args.operations
lifetimes = args.lifetimes
agents = args.agents
pairs = tables * operations

print(f"{tables} tables, {operations} operations, {lifetimes} lifetimes, {agents} kinds of agent")
print("\nWhat must be registered before the first request (log scale)\n")
plot(
    [
        counted("captoken: caveats, composed freely", 0),
        counted("RFC 9396: one type for the API", 1),
        counted("clients, one for agent x lifetime", agents * lifetimes),
        counted("scopes, one for table x operation", pairs),
        counted("... x lifetime", pairs * lifetimes),
        counted("... x agent: scopes assigned", pairs * lifetimes * agents),
        ("one scope for each set of pairs", pairs * math.log10(2), f"2^{pairs:,} - 1"),
    ],
    longest=max(1, math.log10(pairs * lifetimes * agents)),
)
print("""
  Assumed: a scope is one string that the server must know (RFC 6749, 3.3), with no parameters
  inside. In its favour: a token lists many scopes, so any set of pairs needs no more than
  table x operation of them. The last bar is what a design pays where one string must stand for all
  that an agent may do (roles, one scope a token).
  A lifetime is no scope in OAuth: servers set it by policy or by client (RFC 7591), or else
  somebody names it in a scope.
  Better OAuth: RFC 9396 authorization_details says tables and operations as JSON, and nothing is
  registered but its type. What stays is whom to ask: each narrower token comes from the
  authorization server.
  captoken registers no permission. It needs a key, at the issuer and (derived for its name) at
  each server.""")

# --- How often an issuer is asked: really build the tree ------------------------------------------

keyring = Keyring.generate().for_audience("warehouse")
verifier = Verifier(keyring, audience="warehouse")
names = [f"table{number}" for number in range(min(tables, 40))]  # in these tokens

# By level of the tree: microseconds to hand on, characters, microseconds to verify and authorize.
spent: dict[int, list[float]] = defaultdict(list)
sizes: dict[int, list[int]] = defaultdict(list)
checks: dict[int, list[float]] = defaultdict(list)


def timed(into: list[float], call: Callable[[], Result]) -> Result:
    """What the call gives back, once its time is noted."""
    begin = time.perf_counter()
    result = call()
    into.append((time.perf_counter() - begin) * 1e6)
    return result


def grow(token: Token, level: int, path: str, held: list[str]) -> None:
    """Measure `token`, and hand it on to as many children as there are branches.

    Each gets half of the tables.
    """
    sizes[level].append(len(token.serialize()))
    text = token.present(audience="warehouse")
    access = Access(table=held[0], operation="select")
    timed(checks[level], lambda: verifier.authorize(text, access))
    if level == args.depth:
        return
    for branch in range(args.branching):
        rest = held[branch % len(held) :]
        half = rest[: max(1, len(held) // 2)]
        hand_on = partial(
            token.delegate,
            to=f"agent{path}.{branch}",
            tables=half,
            operations=["select"],
            expires_in=600 - 40 * level,
        )
        child = timed(spent[level + 1], hand_on)
        grow(child, level + 1, f"{path}.{branch}", half)


mint = partial(
    Issuer(keyring).mint,
    subject="user:jane",
    agent="agent0",
    task="report",
    tables=names,
    operations=["select"],
    expires_in=600,
)
mint().delegate(to="agent1", tables=names[:1])  # warms up
root = timed(spent[0], mint)
grow(root, 0, "0", names)

hops = sum(len(times) for level, times in spent.items() if level)
total = sum(map(sum, spent.values())) / 1000
assert hops == sum(args.branching**level for level in range(1, args.depth + 1))

shape = f"{args.branching} children each, {args.depth} levels, {hops + 1:,} tokens"
print(f"\n\nA tree of delegations: {shape}\n")
plot(
    [
        counted("captoken: requests to an issuer", 1),
        counted("RFC 8693: requests to an issuer", hops + 1),
    ]
)
print()
wait = (hops + 1) * args.request_ms
least = (args.depth + 1) * args.request_ms
plot(
    [
        ("captoken: measured here", math.log10(total) if total > 1 else 0, f"{total:,.1f} ms"),
        ("RFC 8693: in requests, one by one", math.log10(wait), f"{wait:,.0f} ms"),
    ]
)
print(f"""
  Assumed: token exchange is one request for each hop (RFC 8693, 2.1), of {args.request_ms:g} ms
  (--request-ms). Asked side by side they still take {least:g} ms, level by level; and for
  {hops + 1:,} requests the issuer must be there.
  In its favour: the issuer hears of each hand-over, and may refuse or record it. Here the resource
  server does, on use.
  captoken: one mint, by whoever has the key; all else without a key, a network or a server.
""")


def median(values: Sequence[float]) -> float:
    """The one in the middle."""
    return sorted(values)[len(values) // 2]


print("  level   tokens   characters   delegate, us   verify and authorize, us      (medians)")
for level in range(args.depth + 1):
    size = median(sizes[level])
    delegating = median(spent[level])
    checking = median(checks[level])
    print(
        f"  {level:>5}   {len(sizes[level]):>6}   {size:>10,}   {delegating:>12,.0f}"
        f"   {checking:>24,.0f}"
    )
