"""The story of `captoken demo`: six agents write a risk report for user:jane.

They do so on a real SQLite database. `play` acts it out and returns plain data. Everything in it is
decided by the library: no verdict is written down here.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import stdev
from typing import Any

from msgspec import structs

from captoken._format.encoding import encode_json
from captoken._format.errors import WideningError
from captoken._format.spelling import named_all, shown
from captoken._format.text import text_of
from captoken._language.access import Caller
from captoken._language.discharge import Discharge, Ticket
from captoken._verification.telling import quietly
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.audit._check import check, read
from captoken.cli.demo.data import Cast, Count, Filing, Region, Report, Story, Totals, Used, Watch
from captoken.cli.demo.database import RATINGS, database
from captoken.cli.demo.world import Row, World, sending
from captoken.discharge import Allow
from captoken.keys.keyring import Keyring
from captoken.keys.secret import HolderKey
from captoken.proof import with_proof

_PRICE = 20  # cents that a rating costs
_BAD_WEEK = 1.645  # standard deviations: no more in 19 weeks of 20


def _nobody(piece: object) -> None:
    """Nobody watches."""


@quietly()  # the story tells each refusal itself
def play(
    seed: int | None = None,
    watch: Watch = _nobody,
    begin: Callable[[World], None] = _nobody,
) -> Story:
    """Act the story out, and tell `watch` of each piece as soon as it has happened.

    `begin` is told of the servers before anything happens. With a seed the clock, the keys and the
    data are made of it, and the story is always the same.
    """
    source = random.Random(7 if seed is None else seed)  # noqa: S311  sample data, no secrets
    with database(source) as connection:
        world = World(connection, seed, watch)
        begin(world)
        root = world.begin()
        _hand_out(world)
        cast = Cast("user:jane", "q3-risk", tuple(world.agents))
        watch(cast)
        _work(world, source)
        report = _report(world)
        watch(report)

        world.turns_to("tricks", expected=False)
        _tricks(world)
        world.turns_to("sending", expected=False)
        _send(world)
        world.turns_to("end", expected=False)
        _end(world)
    # Out of the trail alone, once it was checked to be whole and signed.
    verdict = check(world.lines, [world.server_key.public], known=[world.trail.checkpoint()])
    records = list(read(world.lines))
    return Story(
        subject=cast.subject,
        task=cast.task,
        token_id=root.token_id,
        agents=cast.agents,
        calls=tuple(world.calls),
        regions=report.regions,
        filings=report.filings,
        sources=report.sources,
        used=_used(records),
        totals=_totals(world, records, verdict.head.seq),
    )


def _used(records: Sequence[dict[str, Any]]) -> tuple[Used, ...]:
    """What each agent did: accesses, and what was refused before it came to one."""
    known: dict[str, tuple[str | None, str]] = {}
    counted: Counter[tuple[str, bool]] = Counter()
    for record in records:
        above = None
        for actor in record.get("chain", ()):
            known.setdefault(actor["name"], (above, actor["basis"]))
            above = actor["name"]
        if above is not None and ("access" in record or not record["allowed"]):
            counted[above, record["allowed"]] += 1
    return tuple(
        Used(name, *its, counted[name, True], counted[name, False]) for name, its in known.items()
    )


def _totals(world: World, records: Sequence[dict[str, Any]], last: int) -> Totals:
    """What was tried, as the story has it, and what the servers have on record of it."""
    kinds = [record["kind"] for record in records]
    decisions = [record for record in records if record["kind"] == "decision"]
    answers = [("access" in record, record["allowed"]) for record in decisions]
    return Totals(
        tried=Count.of(call.allowed for call in world.calls),
        at_servers=Count.of(call.allowed for call in world.calls if call.server),
        statements=Count.of(world.statements),
        accesses=Count.of(allowed for is_access, allowed in answers if is_access),
        tokens=Count.of(allowed for is_access, allowed in answers if not is_access),
        decisions=Count.of(allowed for _, allowed in answers),
        unknown=sum(not record.get("chain") for record in decisions),
        described=kinds.count("token"),
        checkpoints=kinds.count("checkpoint"),
        records=last,
    )


# --- the acts -------------------------------------------------------------------------------------


def _hand_out(world: World) -> None:
    """Each agent gets what it needs and no more; no server is asked for that."""
    write = {"scratch.results": ["insert"]}
    world.hand_on(
        "orchestrator",
        "market-agent",
        allow={"market.*": ["select"], **write},
        expires_in=300,
    )
    world.hand_on(
        "orchestrator",
        "sales-agent",
        allow={"sales": ["select"], **write},
        columns={"sales": ["quarter", "region", "amount", "overdue"]},
        expires_in=240,
    )
    world.hand_on(
        "orchestrator",
        "publisher-agent",
        asking="mail.send",
        key=world.publisher.public,
        tools={"mail.send": {"to": {"in": ["board", "press"]}}},
        expires_in=600,
    )
    world.hand_on(
        "orchestrator",
        "filings-agent",
        allow={"filings": ["select"], **write},
        tools={"ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 25}}},
        expires_in=180,
    )
    world.wait(5)
    world.hand_on(
        "filings-agent",
        "reader-agent",
        tables=["filings"],
        operations=["select"],
        depth=0,
        expires_in=60,
    )


def _work(world: World, source: random.Random) -> None:
    """Each agent reads what it may, and writes what it found."""
    moves = world.select(
        "market-agent",
        "select region, week, percent from market.moves order by region, week",
    )
    series: dict[str, list[float]] = {}
    for region, _, percent in moves:
        series.setdefault(region, []).append(percent)
    world.insert(
        "market-agent",
        [("markets", region, json.dumps(percents)) for region, percents in series.items()],
    )

    world.wait(7)
    sums = world.select(
        "sales-agent",
        "select region, sum(amount), sum(overdue) from sales where quarter = 'Q3' group by region",
    )
    world.insert(
        "sales-agent",
        [("exposure", region, json.dumps([total, late])) for region, total, late in sums],
    )

    world.wait(4)
    flagged = world.select(
        "reader-agent",
        "select issuer, form, filed, note, severity from filings where severity > 1 "
        "order by severity desc, issuer",
    )
    rated: list[Row] = []
    for issuer, *rest in flagged:
        rating = source.choice(RATINGS) if world.call("filings-agent", issuer, _PRICE) else "?"
        rated.append(("filings", issuer, json.dumps([*rest, rating])))
    world.insert("filings-agent", rated)
    world.wait(9)


def _tricks(world: World) -> None:
    """What must not work. Whether it does is for the library to say."""
    for agent, statement in (
        ("sales-agent", "select employee, salary from hr"),
        ("sales-agent", "select customer, overdue from sales"),
        ("sales-agent", "update sales set overdue = 0"),
        ("market-agent", "select sum(amount) from sales"),
        ("market-agent", "select count(*) from market.moves natural join hr"),
    ):
        world.select(agent, statement)
    world.call("filings-agent", "Dune Energy", 40)
    _write_tokens(world)
    _go_on(world)
    _pretend(world)


def _write_tokens(world: World) -> None:
    """With a library, without one, and with a key of one's own."""
    reader = world.tokens["reader-agent"]
    try:
        reader.attenuate(tables=["hr"])
    except WideningError as error:
        excess = named_all(shown(table).strip("'") for table in error.excess)
        world.note(
            "reader-agent",
            "attenuate(tables=['hr'])",
            error.code,
            f"its own library, at once: {excess} is not held",
        )

    world.select(
        "reader-agent",
        "select salary from hr",
        token=_with_link(reader, {"allow": {"hr": ["select"]}}),
        tried="select salary from hr, after writing itself a link for hr",
    )
    stripped = _without_link(world.tokens["sales-agent"])
    world.read("sales-agent", "its token, with its restrictions cut out", stripped, "sales")

    forger = Issuer(
        Keyring.from_keys({"k1": world.random(32)}, current="k1"),
        clock=world.clock,
        random=world.random,
    )
    forged = forger.mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-risk",
        tables=["*"],
        operations=["*"],
    )
    text = forged.present(audience="warehouse")
    world.read("mallory", "a root token forged under a key of her own", text, "hr")


def _go_on(world: World) -> None:
    """Two calls that a token permits, and not one after the other: it has a rule over marks."""
    held = world.tokens["orchestrator"].attenuate(
        marks={"read": {"tables": ["filings"]}, "sent": {"tools": ["*"]}},
        forbid=[{"in": ["sent"], "after": ["read"]}],
    )
    with world.expecting():
        sql = "select count(*) from filings"
        world.select("orchestrator", sql, token=held, tried=f"{sql}, under a rule")
    world.call(
        "orchestrator",
        "Dune Energy",
        _PRICE,
        text=held.present(audience="ratings"),
        how=", after it has read filings",
    )


def _pretend(world: World) -> None:
    """A genuine token, by somebody else, for another task, and at another server."""
    world.called_by(
        "sales-agent",
        "sales-agent's token, as mallory",
        Caller(agent="mallory"),
    )
    world.called_by(
        "sales-agent",
        "the token, in task q4-forecast",
        Caller(agent="sales-agent", task="q4-forecast"),
    )
    stray = world.tokens["filings-agent"].present(audience="warehouse")
    world.call(
        "filings-agent",
        "Dune Energy",
        _PRICE,
        text=stray,
        how=", with the text that it presented to the warehouse",
    )


def _with_link(token: Token, link: dict[str, Any]) -> Token:
    """`token` with a link that no library checked.

    Any holder can write one, since each signature is the key of the next.
    """
    return token.with_raw_link(encode_json(link))


def _without_link(token: Token) -> str:
    """`token` with its last link cut out and all else as it was, signature included."""
    packet = token.secret_packet
    return text_of(structs.replace(packet, caveats=packet.caveats[:-1]))


def _send(world: World) -> None:
    """The report leaves the house: with jane's consent, by whoever has the key, and once."""
    token = world.tokens["publisher-agent"]
    text = token.present(audience="mail")
    early = _proven(world, text, world.publisher, "board")
    world.send("publisher-agent", "board", early, ", before anybody was asked")

    with world.expecting():
        consent = _consent(world, token.needs[0], "board")
        text = token.with_discharge(consent).present(audience="mail")
        sent = _proven(world, text, world.publisher, "board")
        world.send("publisher-agent", "board", sent, ", with the consent and a proof by its key")

    elsewhere = _proven(world, text, world.publisher, "press")
    world.send("publisher-agent", "press", elsewhere, ", with the same consent")
    forged = _proven(world, text, HolderKey(world.random(32)), "board")
    for shown_text, how in (
        (text, "with the text that publisher-agent sent"),
        (sent, "with the text and the proof that it sent"),
        (forged, "with the text, and a proof by a key of her own"),
    ):
        world.send("mallory", "board", shown_text, f", {how}")


def _proven(world: World, text: str, key: HolderKey, to: str) -> str:
    """A presented text with a proof by `key`, for one mail."""
    return with_proof(
        text,
        key,
        audience="mail",
        request=sending(to),
        clock=world.clock,
        random=world.random,
    )


def _consent(world: World, ticket: Ticket, to: str) -> Discharge:
    """jane sees what is asked, and says yes to one recipient for a minute.

    Her answer says no more than that.
    """
    asked = world.jane.need(ticket)["consent to"]
    world.note(
        "user:jane",
        f"asked for consent to {asked}",
        "allowed",
        f"yes, to the {to}, for a minute",
    )
    return world.jane.approve(ticket, Allow(expires_in=60, tools={asked: {"to": {"in": [to]}}}))


def _report(world: World) -> Report:
    """The orchestrator reads what its agents wrote, under its own token, and adds it up."""
    found: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    results = world.select(
        "orchestrator",
        "select topic, subject, value, agent from scratch.results",
    )
    for topic, subject, value, agent in results:
        found.setdefault(topic, {})[subject] = json.loads(value)
        sources[topic] = agent

    markets = found.get("markets", {})
    regions = [
        _region(
            name,
            exposure,
            overdue,
            markets.get(name, (0, 0)),
        )
        for name, (exposure, overdue) in found.get("exposure", {}).items()
    ]
    regions.sort(key=lambda region: -region.exposure)
    filings = [Filing(issuer, *fields) for issuer, fields in found.get("filings", {}).items()]
    return Report(tuple(regions), tuple(filings), sources)


def _region(name: str, exposure: int, overdue: int, moves: Sequence[float]) -> Region:
    """A line of the report: what is owed, and what of it may be lost in a bad week."""
    volatility = stdev(moves)
    return Region(
        name,
        exposure,
        overdue,
        volatility,
        at_risk=round(exposure * volatility / 100 * _BAD_WEEK),
        moves=tuple(moves),
    )


def _end(world: World) -> None:
    """Time passes: each token dies with the shortest life above it, the rest with its task."""
    world.wait(60)
    world.select("reader-agent", "select count(*) from filings")
    with world.expecting():
        world.select("filings-agent", "select count(*) from filings")
    world.wait(180)
    world.select("sales-agent", "select count(*) from sales")
    with world.expecting():
        world.select("orchestrator", "select count(*) from sales")
        world.operator.end_task("q3-risk", why="the report is out")
        world.note(
            "operator",
            "end_task('q3-risk'), ten minutes early",
            "allowed",
            "told to every server at once",
        )
    world.select("orchestrator", "select count(*) from sales")
    world.select("market-agent", "select count(*) from market.moves")
