"""The story of `captoken demo`: six agents write a risk report for user:jane on a real SQLite
database.

`play` acts it out and returns plain data. Everything in it is decided by the library: no verdict is
written down here.
"""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import stdev
from time import time
from typing import Any, Literal

import msgspec
from msgspec import structs

from captoken._format.encoding import encode_json
from captoken._format.entropy import random_bytes
from captoken._format.errors import WideningError
from captoken._format.spelling import named_all, shown
from captoken._format.text import text_of
from captoken._language.access import Access, Caller
from captoken._language.caveats import RIGHTS
from captoken._language.discharge import Discharge, Ticket
from captoken._language.links import BadLink
from captoken._verification.decision import Decision, Denied
from captoken._verification.verifier import Verifier
from captoken._verification.wording import place
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.adapters.sqlite import guarded
from captoken.audit import trail as audit
from captoken.audit._check import check, read
from captoken.cli import words
from captoken.control.feed import Feed
from captoken.control.operator import Operator
from captoken.discharge import Allow, Discharger, Wait
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey, DischargerKey, HolderKey, OperatorKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.testing import FixedClock, fixed_random

Scene = Literal["work", "tricks", "sending", "end"]

REGIONS = ("Americas", "Asia-Pacific", "Central Europe", "Iberia", "Nordics")
ISSUERS = (
    "Alder Steel",
    "Borealis Shipping",
    "Cobalt Foods",
    "Dune Energy",
    "Ember Retail",
    "Fjord Telecom",
    "Gale Airlines",
)
NOTES = (
    (3, "going concern in doubt"),
    (3, "covenant waived for now"),
    (2, "auditor changed"),
    (2, "first quarter restated"),
    (1, "new credit line"),
    (1, "board member resigned"),
    (1, "dividend confirmed"),
)
RATINGS = ("BBB", "BB+", "BB", "B-", "CCC")
WEEKS = 13
_START = 1_759_741_200  # 2025-10-06 09:00:00Z, where a seed is given
_PRICE = 20  # cents that a rating costs


class Agent(msgspec.Struct, frozen=True):
    """An agent of the tree, and what its token says."""

    name: str
    parent: str | None
    says: tuple[str, ...]
    lives: int  # seconds
    characters: int  # of its token


class Call(msgspec.Struct, frozen=True):
    """One thing that was tried, and what the library said to it."""

    scene: Scene
    at: int  # seconds since the task began
    agent: str
    tried: str
    allowed: bool
    code: str
    why: str  # what came back; or the reason, with the link that refuses and who added it
    link: int | None = None
    added_by: str | None = None
    also: tuple[int, ...] = ()  # further links that refuse
    expected: bool = True  # what should have come out


class Region(msgspec.Struct, frozen=True):
    """A line of the report: money in thousands of euros."""

    name: str
    exposure: int
    overdue: int
    volatility: float  # of a week, in percent
    at_risk: int  # value at risk: a week, 95 %
    moves: tuple[float, ...]  # of each week, in percent


class Filing(msgspec.Struct, frozen=True):
    """A flagged filing."""

    issuer: str
    form: str
    filed: str
    note: str
    severity: int
    rating: str


class Used(msgspec.Struct, frozen=True):
    """What an agent did with its token, as the audit trail has it."""

    name: str
    parent: str | None
    basis: str  # how its name is known
    allowed: int
    refused: int


class Story(msgspec.Struct, frozen=True):
    """The whole story as data."""

    subject: str
    task: str
    token_id: str
    agents: tuple[Agent, ...]
    calls: tuple[Call, ...]
    regions: tuple[Region, ...]
    filings: tuple[Filing, ...]
    sources: dict[str, str]  # topic → the agent that found it, as its grant says
    used: tuple[Used, ...]
    unknown: int  # refusals of what no signature vouches for
    records: int  # of the trail, which was checked to be whole


@contextmanager
def database(source: random.Random) -> Generator[sqlite3.Connection, None, None]:
    """A SQLite database in temporary files, with two more attached as `market` and `scratch`.

    Removed at the end.
    """
    with (
        tempfile.TemporaryDirectory(prefix="captoken-demo-") as folder,
        closing(sqlite3.connect(Path(folder) / "main.db", isolation_level=None)) as connection,
    ):
        for schema in ("market", "scratch"):
            connection.execute(f"attach ? as {schema}", (str(Path(folder) / f"{schema}.db"),))
        connection.executescript(
            """
            create table sales (quarter, region, customer, amount, overdue);
            create table filings (issuer, form, filed, note, severity);
            create table hr (employee, region, salary);
            create table market.moves (region, week, percent);
            create table scratch.results (topic, subject, value, agent);
            """
        )
        connection.executemany("insert into sales values (?, ?, ?, ?, ?)", _sales(source))
        connection.executemany("insert into market.moves values (?, ?, ?)", _moves(source))
        connection.executemany("insert into filings values (?, ?, ?, ?, ?)", _filings(source))
        staff = [
            (f"employee {number}", source.choice(REGIONS), source.randrange(40, 180) * 1000)
            for number in range(40)
        ]
        connection.executemany("insert into hr values (?, ?, ?)", staff)
        yield connection


def _sales(source: random.Random) -> Iterator[tuple[Any, ...]]:
    for region in REGIONS:
        size, slack = source.uniform(0.4, 2.4), source.uniform(0.02, 0.3)
        for customer in range(24):
            amount = int(size * source.uniform(40, 260))  # thousands of euros
            late = int(amount * source.uniform(0.4, 1.0)) if source.random() < slack else 0
            yield "Q3", region, f"customer {customer}", amount, late
            yield "Q2", region, f"customer {customer}", int(amount * source.uniform(0.7, 1.2)), 0


def _moves(source: random.Random) -> Iterator[tuple[Any, ...]]:
    for region in REGIONS:
        wild = source.uniform(0.6, 3.2)
        for week in range(WEEKS):
            yield region, week, round(source.gauss(0.1, wild), 2)


def _filings(source: random.Random) -> Iterator[tuple[Any, ...]]:
    for issuer, (severity, note) in zip(ISSUERS, source.sample(NOTES, len(NOTES)), strict=True):
        filed = f"{source.choice(('Jul', 'Aug', 'Sep'))} {source.randrange(1, 29):02}"
        yield issuer, source.choice(("10-Q", "6-K", "8-K")), filed, note, severity


class World:
    """The servers, the clock, and the token that each agent holds."""

    def __init__(self, connection: sqlite3.Connection, seed: int | None) -> None:
        self.connection = connection
        self.clock = FixedClock(int(time()) if seed is None else _START)
        self.random = random_bytes if seed is None else fixed_random(f"demo {seed}")
        self.keyring = Keyring.from_keys({"k1": self.random(32)}, current="k1")
        # Every server hears the operator, and writes down what it decides.
        key, snapshots = OperatorKey(self.random(32)), MemorySnapshots()
        self.operator = Operator(
            key, snapshots, by="operator", clock=self.clock, random=self.random
        )
        self.operator.renew()
        feed = Feed(snapshots, [key.public], every=0, clock=self.clock)
        self.lines: list[bytes] = []
        self.server_key = AuditKey(self.random(32))
        self.trail = audit.AuditTrail(self.lines.append, key=self.server_key)

        def server(name: str, **more: Any) -> Verifier:
            return Verifier(
                self.keyring,
                audience=name,
                clock=self.clock,
                overlay=feed,
                audit=self.trail,
                **more,
            )

        self.warehouse, self.ratings = server("warehouse"), server("ratings")
        self.mail = server("mail", replays=MemoryReplayStore(floor=0))
        # jane decides about what leaves the house; nobody else can answer what is asked of her.
        self.jane = Discharger(
            DischargerKey(self.random(32)), lambda need: Wait(person=True), clock=self.clock
        )
        self.publisher = HolderKey(self.random(32))
        self.start = self.clock()
        self.tokens: dict[str, Token] = {}
        self.agents: list[Agent] = []
        self.calls: list[Call] = []
        self.scene: Scene = "work"
        self.expected = True  # should what is tried now be allowed?

    def wait(self, seconds: int) -> None:
        """Time passes, and the operator says again what stands: servers take no overlay that is
        older than a minute.
        """
        self.clock.advance(seconds)
        self.operator.renew()

    # --- who holds what ---------------------------------------------------------------------------

    def begin(self) -> Token:
        root = Issuer(self.keyring, clock=self.clock, random=self.random).mint(
            subject="user:jane",
            agent="orchestrator",
            task="q3-risk",
            allow={
                "market.*": ["select"],
                "sales": ["select"],
                "filings": ["select"],
                "scratch.results": ["select", "insert"],
            },
            tools={
                "ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 50}},
                "mail.send": {"to": {"in": ["board", "press"]}},
            },
            expires_in=900,
        )
        self._join("orchestrator", None, root)
        return root

    def hand_on(self, giver: str, taker: str, asking: str = "", **caveats: Any) -> None:
        """With `asking`, the token asks jane for consent to that besides."""
        held = self.tokens[giver]
        held = held.require(self.jane.public, need={"consent to": asking}) if asking else held
        self._join(taker, giver, held.delegate(to=taker, **caveats), asking)

    def _join(self, agent: str, parent: str | None, token: Token, asking: str = "") -> None:
        self.tokens[agent] = token
        said = token.unverified
        lives = (said.expires_at or 0) - self.clock()
        says = tuple(_says(token, asking))
        self.agents.append(Agent(agent, parent, says, lives, len(token.serialize())))

    # --- what is tried ----------------------------------------------------------------------------

    def note(self, agent: str, tried: str, code: str, why: str, **where: Any) -> None:
        at, allowed = self.clock() - self.start, code == "allowed"
        self.calls.append(
            Call(self.scene, at, agent, tried, allowed, code, why, expected=self.expected, **where)
        )

    def note_decision(self, agent: str, tried: str, decision: Decision, came: str = "") -> None:
        if decision:
            self.note(agent, tried, decision.code, came)
        else:
            first, *rest = decision.refusals
            alike = first.code != "expired"  # below a dead link all are dead
            also = tuple(refusal.link for refusal in rest if refusal.link is not None and alike)
            self.note(
                agent, tried, first.code, f"{place(first)}: {first.text}",
                link=first.link, added_by=first.added_by, also=also,
            )  # fmt: skip

    def query(self, agent: str, sql: str, rows: list[tuple[Any, ...]] | None = None, *, token: Token | None = None,
              tried: str = "") -> list[tuple[Any, ...]]:  # fmt: skip
        """What the warehouse does with a statement of `agent`: verify what was presented, guard
        the connection, run.

        With `rows`, once for each of them, and the last parameter is the agent's name as the grant
        says it.
        """
        text = (token or self.tokens[agent]).present(audience="warehouse")
        found: list[tuple[Any, ...]] = []
        try:
            grant = self.warehouse.authenticate(text)
            with guarded(self.connection, grant) as db:
                for row in rows if rows is not None else [()]:
                    found += db.execute(
                        sql, (*row, grant.actor.name) if rows is not None else ()
                    ).fetchall()
        except Denied as denied:
            self.note_decision(agent, tried or sql, denied.decision)
        else:
            count = len(found if rows is None else rows)
            self.note(agent, tried or sql, "allowed", f"{count} row{'s' * (count != 1)}")
        return found

    def call(self, agent: str, issuer: str, price: int, *, text: str = "", how: str = "") -> bool:
        """What the ratings server does with a call of its tool."""
        arguments = {"issuer": issuer, "max_price_cents": price}
        decision = self.ratings.check(
            text or self.tokens[agent].present(audience="ratings"),
            Access(tool="ratings.lookup", arguments=arguments),
        )
        self.note_decision(
            agent, f"ratings.lookup({issuer!r}, max_price_cents={price}){how}", decision, "rated"
        )
        return bool(decision)

    def send(self, agent: str, to: str, text: str, how: str) -> None:
        """What the mail server does with a call of its tool.

        The token is bound: its text has to end in a proof by its key.
        """
        decision = self.mail.check(text, _sending(to))
        self.note_decision(agent, f"mail.send({to!r}){how}", decision, "sent")

    def called_by(self, agent: str, tried: str, caller: Caller) -> None:
        """What the warehouse says to a token that comes from somebody whom it knows by its own
        means.
        """
        text = self.tokens[agent].present(audience="warehouse")
        self.note_decision(
            caller.agent or agent,
            tried,
            self.warehouse.check(text, _reading("sales"), caller=caller),
        )


def _says(token: Token, asking: str) -> Iterator[str]:
    """What the last link of a token says, but for how long it lives."""
    link = token.unverified.links[-1]
    if isinstance(link, BadLink):
        return
    yield from words.of_caveats(link.caveats, 0, RIGHTS)
    yield from words.of_position(link.depth, link.delegate_only)
    if link.key is not None:
        yield "bound to its own key"
    if asking:
        yield "only with the consent of user:jane"


def with_link(token: Token, link: dict[str, Any]) -> Token:
    """`token` with a link that no library checked: any holder can write one, since each
    signature is the key of the next.
    """
    return token.with_raw_link(encode_json(link))


def without_link(token: Token) -> str:
    """`token` with its last link cut out and all else as it was, signature included."""
    packet = token.secret_packet
    return text_of(structs.replace(packet, caveats=packet.caveats[:-1]))


def play(seed: int | None = None) -> Story:
    """Act the story out.

    With a seed the clock, the keys and the data are made of it, and the story is always the same.
    """
    source = random.Random(7 if seed is None else seed)  # noqa: S311  sample data, no secrets
    with database(source) as connection:
        world = World(connection, seed)
        root = world.begin()
        _hand_out(world)
        _work(world, source)
        regions, filings, sources = _report(world)
        world.scene, world.expected = "tricks", False
        _tricks(world)
        world.scene = "sending"
        _send(world)
        world.scene, world.expected = "end", False
        _end(world)
    used, unknown, records = _audited(world)
    return Story(
        "user:jane", "q3-risk", root.token_id, tuple(world.agents), tuple(world.calls), regions, filings, sources,
        used, unknown, records,
    )  # fmt: skip


def _audited(world: World) -> tuple[tuple[Used, ...], int, int]:
    """Who did what, out of the trail alone, after it was checked to be whole and signed."""
    head = world.trail.checkpoint()
    verdict = check(world.lines, [world.server_key.public], known=[head])
    found: dict[str, Used] = {}
    unknown = 0
    for record in read(world.lines):
        if record["kind"] != "decision":
            continue
        chain = record.get("chain", [])
        unknown += not chain
        for at, actor in enumerate(chain):
            parent = chain[at - 1]["name"] if at else None
            found.setdefault(actor["name"], Used(actor["name"], parent, actor["basis"], 0, 0))
        if chain:
            last = found[chain[-1]["name"]]
            allowed = last.allowed + record["allowed"]
            found[last.name] = structs.replace(
                last, allowed=allowed, refused=last.refused + (not record["allowed"])
            )
    return tuple(found.values()), unknown, verdict.head.seq


def _hand_out(world: World) -> None:
    write = {"scratch.results": ["insert"]}
    world.hand_on(
        "orchestrator", "market-agent", allow={"market.*": ["select"], **write}, expires_in=300
    )
    world.hand_on(
        "orchestrator", "sales-agent", allow={"sales": ["select"], **write},
        columns={"sales": ["quarter", "region", "amount", "overdue"]}, expires_in=240,
    )  # fmt: skip
    world.hand_on(
        "orchestrator", "publisher-agent", asking="mail.send", key=world.publisher.public,
        tools={"mail.send": {"to": {"in": ["board", "press"]}}}, expires_in=600,
    )  # fmt: skip
    world.hand_on(
        "orchestrator", "filings-agent", allow={"filings": ["select"], **write},
        tools={"ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 25}}}, expires_in=180,
    )  # fmt: skip
    world.wait(5)
    world.hand_on(
        "filings-agent",
        "reader-agent",
        tables=["filings"],
        operations=["select"],
        depth=0,
        expires_in=60,
    )


_INSERT = "insert into scratch.results values (?, ?, ?, ?)"


def _work(world: World, source: random.Random) -> None:
    moves = world.query(
        "market-agent", "select region, week, percent from market.moves order by region, week"
    )
    series: dict[str, list[float]] = {}
    for region, _, percent in moves:
        series.setdefault(region, []).append(percent)
    world.query(
        "market-agent", _INSERT, [("markets", region, json.dumps(percents)) for region, percents in series.items()],
        tried="insert into scratch.results",
    )  # fmt: skip
    world.wait(7)
    sums = world.query(
        "sales-agent",
        "select region, sum(amount), sum(overdue) from sales where quarter = 'Q3' group by region",
    )
    world.query(
        "sales-agent", _INSERT, [("exposure", region, json.dumps([total, late])) for region, total, late in sums],
        tried="insert into scratch.results",
    )  # fmt: skip
    world.wait(4)
    flagged = world.query(
        "reader-agent",
        "select issuer, form, filed, note, severity from filings where severity > 1 order by severity desc, issuer",
    )
    rated: list[tuple[Any, ...]] = []
    for issuer, *rest in flagged:
        rating = source.choice(RATINGS) if world.call("filings-agent", issuer, _PRICE) else "?"
        rated.append(("filings", issuer, json.dumps([*rest, rating])))
    world.query("filings-agent", _INSERT, rated, tried="insert into scratch.results")
    world.wait(9)


def _tricks(world: World) -> None:
    """What must not work. Whether it does is for the library to say."""
    world.query("sales-agent", "select employee, salary from hr")
    world.query("sales-agent", "select customer, overdue from sales")
    world.query("sales-agent", "update sales set overdue = 0")
    world.query("market-agent", "select sum(amount) from sales")
    world.query("market-agent", "select count(*) from market.moves natural join hr")
    world.call("filings-agent", "Dune Energy", 40)
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
    wider = with_link(reader, {"allow": {"hr": ["select"]}})
    tried = "select salary from hr, after writing itself a link for hr"
    world.query("reader-agent", "select salary from hr", token=wider, tried=tried)
    stripped = without_link(world.tokens["sales-agent"])
    world.note_decision(
        "sales-agent",
        "its token, with its restrictions cut out",
        world.warehouse.check(stripped, _reading("sales")),
    )
    forger = Issuer(
        Keyring.from_keys({"k1": world.random(32)}, current="k1"),
        clock=world.clock,
        random=world.random,
    )
    forged = forger.mint(
        subject="user:jane", agent="orchestrator", task="q3-risk", tables=["*"], operations=["*"]
    )
    world.note_decision(
        "mallory",
        "a root token forged under a key of her own",
        world.warehouse.check(forged.present(audience="warehouse"), _reading("hr")),
    )
    world.called_by("sales-agent", "sales-agent's token, as mallory", Caller(agent="mallory"))
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


def _send(world: World) -> None:
    """The report leaves the house: with jane's consent, by whoever has the key, and once."""
    token, mallory = world.tokens["publisher-agent"], HolderKey(world.random(32))

    def proven(text: str, key: HolderKey, to: str) -> str:
        return with_proof(
            text, key, audience="mail", request=_sending(to), clock=world.clock, random=world.random
        )

    text = token.present(audience="mail")
    world.expected = False
    early = proven(text, world.publisher, "board")
    world.send("publisher-agent", "board", early, ", before anybody was asked")
    text = token.with_discharge(_consent(world, token.needs[0], "board")).present(audience="mail")
    sent = proven(text, world.publisher, "board")
    world.expected = True
    world.send("publisher-agent", "board", sent, ", with the consent and a proof by its key")
    world.expected = False
    elsewhere = proven(text, world.publisher, "press")
    world.send("publisher-agent", "press", elsewhere, ", with the same consent")
    world.send("mallory", "board", text, ", with the text that publisher-agent sent")
    world.send("mallory", "board", sent, ", with the text and the proof that it sent")
    forged = proven(text, mallory, "board")
    world.send("mallory", "board", forged, ", with the text, and a proof by a key of her own")


def _consent(world: World, ticket: Ticket, to: str) -> Discharge:
    """jane sees what is asked, and says yes to one recipient for a minute.

    Her answer says no more than that.
    """
    asked = world.jane.need(ticket)["consent to"]
    world.expected = True
    world.note(
        "user:jane", f"asked for consent to {asked}", "allowed", f"yes, to the {to}, for a minute"
    )
    return world.jane.approve(ticket, Allow(expires_in=60, tools={asked: {"to": {"in": [to]}}}))


def _sending(to: str) -> Access:
    return Access(tool="mail.send", arguments={"to": to})


def _reading(table: str) -> Access:
    return Access(table=table, operation="select", columns=())


def _report(world: World) -> tuple[tuple[Region, ...], tuple[Filing, ...], dict[str, str]]:
    """The orchestrator reads what its agents wrote, under its own token, and adds it up."""
    found: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for topic, subject, value, agent in world.query(
        "orchestrator", "select topic, subject, value, agent from scratch.results"
    ):
        found.setdefault(topic, {})[subject] = json.loads(value)
        sources[topic] = agent
    regions: list[Region] = []
    for region, (exposure, overdue) in found.get("exposure", {}).items():
        moves = found.get("markets", {}).get(region, (0, 0))
        spread = stdev(moves)
        regions.append(
            Region(
                region,
                exposure,
                overdue,
                spread,
                round(exposure * spread / 100 * 1.645),
                tuple(moves),
            )
        )
    filings = [Filing(issuer, *fields) for issuer, fields in found.get("filings", {}).items()]
    return tuple(sorted(regions, key=lambda region: -region.exposure)), tuple(filings), sources


def _end(world: World) -> None:
    """Time passes; each token dies with the shortest life above it, and what is left with its
    task.
    """
    world.wait(60)
    world.query("reader-agent", "select count(*) from filings")
    world.expected = True
    world.query("filings-agent", "select count(*) from filings")
    world.expected = False
    world.wait(180)
    world.query("sales-agent", "select count(*) from sales")
    world.expected = True
    world.query("orchestrator", "select count(*) from sales")
    world.operator.end_task("q3-risk", why="the report is out")
    world.note(
        "operator",
        "end_task('q3-risk'), ten minutes early",
        "allowed",
        "told to every server at once",
    )
    world.expected = False
    world.query("orchestrator", "select count(*) from sales")
    world.query("market-agent", "select count(*) from market.moves")
