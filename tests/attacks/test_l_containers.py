"""L: containers that answer differently each time they are read. What was checked is what counts, everywhere one is taken.

The public signatures say where a mapping is taken: each has its case here, or a reason why it needs none.
"""

import asyncio
import importlib
import inspect
import pkgutil
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing, contextmanager
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from starlette.testclient import TestClient

import captoken
from captoken import Access, Issuer, Keyring, Token, TokenSet, current
from captoken._format import text as wire
from captoken.adapters import a2a, asgi, fastapi, fastmcp, grpc, mcp, mcp_client, sqlite
from captoken.adapters import httpx as httpx_adapter
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.discharge_client import obtain, obtain_async
from captoken.adapters.postgres import Role, plan_sql
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.keys import ApproverKey, DischargerKey, OperatorKey
from captoken.rows import sql
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.testing import fixed_random
from captoken.tools import ToolGuard, guarded_tool
from tests.fixtures import KEY, KEYRING, WHO, clock, mint, verifier

PARTY = DischargerKey.from_bytes(bytes(range(2, 34)))
NAN = float("nan")


class Changing(Mapping):
    """Says `first` to the first question, and `then` to each one after, whatever is asked."""

    def __init__(self, first, then):
        self.answers = iter([first])
        self.then = then

    def now(self):
        return next(self.answers, self.then)

    def __getitem__(self, key):
        return self.now()[key]

    def __iter__(self):
        return iter(self.now())

    def __len__(self):
        return len(self.now())

    def __bool__(self):
        return bool(self.now())

    def __eq__(self, other):
        return self.now() == other

    __hash__ = None

    def __contains__(self, key):
        return key in self.now()

    def keys(self):
        return self.now().keys()

    def values(self):
        return self.now().values()

    def items(self):
        return self.now().items()

    def get(self, key, default=None):
        return self.now().get(key, default)


class ChangingDict(dict):
    """The same, as a dict that holds the second answer."""

    def __init__(self, first, then):
        super().__init__(then)
        self.answers = iter([first])

    def items(self):
        return next(self.answers, super()).items()


# --- where they are taken ----------------------------------------------------------------------------------------------


def stated(fact):
    of_table = {"table": "t", "operation": "select"}
    beside = {"arguments": {"tool": "t"}, "row": of_table, "becomes": of_table}.get(fact, {})
    return lambda given: getattr(Access(**beside, **{fact: given}), fact)


def held(given):
    return Access(table="t", operation="select", rows=[given]).rows


def counted():
    """A verifier with a ledger, and an access whose five cents are taken of it."""
    ledger = MemoryLedger(floor=0)
    judge = verifier(ledger=ledger, audience="shop")
    token = mint(tools={"t": {}}, budget={"cents": 100}, audience="shop")
    return judge, judge.authenticate(token), ledger, Access(tool="t", cost={"cents": 5})


def left(ledger):
    return sorted(ledger._spent.values())


def settled(given):
    _, grant, ledger, access = counted()
    grant.reserve(access).settle(given)
    return left(ledger)


def settled_async(given):
    async def run():
        _, grant, ledger, access = counted()
        await (await grant.awaited.reserve(access)).settle(given)
        return left(ledger)

    return asyncio.run(run())


def settled_by_id(given):
    judge, grant, ledger, access = counted()
    (taken,) = grant.check(access).effects
    judge.settle(taken.id, given)
    return left(ledger)


def settled_by_id_async(given):
    judge, grant, ledger, access = counted()
    (taken,) = grant.check(access).effects
    asyncio.run(judge.awaited.settle(taken.id, given))
    return left(ledger)


def minted(keyword):
    beside = {
        "allow": {},
        "columns": {"allow": {"sales": ["select"]}},
        "tools": {},
    }.get(keyword, {"allow": {"sales": ["select"]}})
    return lambda given: mint(**beside, **{keyword: given}).serialize()


def minted_ext(given):
    issuer = Issuer(KEYRING, clock=clock(), random=fixed_random("world"))
    return issuer.mint(**WHO, unrestricted=True, ext=given).serialize()


def set_minted(**given):
    """For one server: of several, each reads what holds for all."""
    issuer = Issuer(KEYRING, clock=clock(), random=fixed_random("world"))
    return issuer.mint_set(**{"subject": "user:jane", "agent": "a", "task": "t", "servers": {"shop": {}}} | given).serialize()


def set_minted_with(keyword):
    beside = {"columns": {"allow": {"sales": ["select"]}}, "rows": {"allow": {"sales": ["select"]}}, "where": {"tools": {}}}.get(keyword, {})
    return lambda given: set_minted(**beside, **{keyword: given})


def set_narrowed(how):
    def place(keyword):
        def run(given):
            issuer = Issuer(KEYRING.for_audience("shop"), clock=clock(), random=fixed_random("world"))
            held = TokenSet.of(issuer.mint(subject="user:jane", agent="a", task="t", unrestricted=True))
            return how(held, **{keyword: given})

        return run

    return place


set_attenuated = set_narrowed(lambda held, **given: held.attenuate(**given).serialize())
set_delegated = set_narrowed(lambda held, **given: held.delegate(to="clerk", **given).serialize())
set_presented = set_narrowed(lambda held, **given: held.present(audience="shop", clock=clock(), **given))
ONLY = {"shop": {"tools": {"t": {}}}}, {"shop": {"expires_in": 5}}


def narrowed(how):
    def place(keyword):
        def run(given):
            held = Issuer(KEYRING, clock=clock(), random=fixed_random("world")).mint(**WHO, unrestricted=True)
            return how(held, **{keyword: given})

        return run

    return place


attenuated = narrowed(lambda held, **given: held.attenuate(**given).serialize())
delegated = narrowed(lambda held, **given: held.delegate(to="clerk", **given).serialize())
presented = narrowed(lambda held, **given: held.present(audience="shop", clock=clock(), **given))


shown = narrowed(lambda held, **given: held.presentation(audience="shop", **given).text())


def held_delegated(keyword):
    return narrowed(lambda token, **given: current.Held(token).delegate(to="clerk", **given).token.serialize())(keyword)


def held_presented(keyword):
    return narrowed(lambda token, **given: current.Held(token).present(audience="shop", **given))(keyword)


def handed_on(keyword):
    def how(token, **given):
        with current.use(token), current.delegate(to="clerk", **given) as held:
            return held.token.serialize()

    return narrowed(how)(keyword)


def required(given):
    token = mint().require(PARTY.public, need=given)
    return Discharger(PARTY, lambda need: Allow(expires_in=60), clock=clock()).need(token.needs[0])


def answered(keyword):
    def run(given):
        token = mint().require(PARTY.public, need={"a": 1})
        policy = Discharger(PARTY, lambda need: Allow(expires_in=60, **{keyword: given}), clock=clock())
        discharge = policy.discharge(token.needs[0])
        return [cid for cid, _ in discharge.packet.caveats]

    return run


def operated(keyword):
    def run(given):
        store = MemorySnapshots()
        operator = Operator(OperatorKey.from_bytes(KEY), store, by="ops", clock=clock(), random=fixed_random("o"))
        operator.narrow(why="now", task="task-123", **{keyword: given})
        return [entry.link for entry in operator.entries()]

    return run


def ring(make, given):
    made = make(given, "k1")
    return {key_id: made.reveal(key_id) for key_id in ("k1", "k2") if made.derived(key_id, None) is not None}


def decided(given):
    with current.use(mint(tools={"t": {"a": {"in": [1]}}})):
        found = ToolGuard(verifier()).check("t", given)
    return found.code, found.access and found.access.arguments


def decided_async(given):
    with current.use(mint(tools={"t": {"a": {"in": [1]}}})):
        found = asyncio.run(ToolGuard(verifier()).check_async("t", given))
    return found.code, found.access and found.access.arguments


APPROVER = ApproverKey.from_bytes(bytes(range(2, 34))).public


def requested(ask):
    """What a person would be asked about a call."""

    def run(given):
        token = mint(tools={"t": {}}, audience=["server"], consent=[{"by": APPROVER, "for": {"tools": ["t"]}}])
        with current.use(token):
            return ask(ToolGuard(verifier(audience="server")), given)

    return run


def asked_at_once(guard, given):
    return guard.request("t", given)


def asked_async(guard, given):
    return asyncio.run(guard.request_async("t", given))


def declared(fact):
    beside = {"tool": "t.{name}"}

    def run(given):
        needs = fastapi.require(**beside, **{fact: given})
        connection = type("Connection", (), {"path_params": {"name": "x"}})
        asked = [asyncio.run(needs._statement(needs._stated, connection)) for _ in range(2)]
        return [getattr(access, fact) for access, _ in asked]

    return run


def metadata(given):
    async def app(scope, receive, send):
        raise AssertionError

    guard = CaptokenMiddleware(app, verifier(audience="shop"), origin="http://127.0.0.1", resource_metadata=given)
    client = TestClient(guard, base_url="http://127.0.0.1")
    return [client.get("/.well-known/oauth-protected-resource").json() for _ in range(2)]


def metadata_of_app(given):
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    fastapi.protect(app, verifier(audience="shop"), origin="http://127.0.0.1", resource_metadata=given)
    client = TestClient(app, base_url="http://127.0.0.1")
    return [client.get("/.well-known/oauth-protected-resource").json() for _ in range(2)]


def ruled(guard):
    return lambda given: guard(verifier(audience="shop"), given)._methods


def shown_to(given):
    auth = httpx_adapter.auth(given, held=Token.parse(mint().serialize()))
    sent = auth(httpx.Request("GET", "http://127.0.0.1:1/")).headers["Authorization"]
    return links_of({mcp_client.TOKEN: sent.removeprefix("Bearer ")})


def meta(keyword):
    held = mint(tools={"t": {}, "resources/read": {}})

    def run(given):
        if keyword == "arguments":
            made = mcp_client.meta_for("shop", "t", given, held=held)
        else:
            made = mcp_client.meta_for_request("shop", "resources/read", given, held=held)
        return links_of(made)

    return run


def links_of(sent):
    """What was added to a token for one request, but for the moment that it ends."""
    packet = wire.parts_of(sent[mcp_client.TOKEN], wire.PREFIX).packet
    return re.sub(rb'"exp":\d+', b"", packet.caveats[-1][0])


class Recording:
    """A client that keeps what it is told to send."""

    async def call_tool(self, name, arguments, *, meta):
        return name, arguments, links_of(meta), sorted(meta)

    async def send_request(self, request, result):
        dumped = request.root.model_dump(by_alias=True)
        sent = dumped["params"].pop("_meta")
        return dumped, links_of(sent), sorted(key for key in sent if sent[key] is not None)

    def __getattr__(self, name):
        if name.startswith("_") or name in ("session", "cache"):
            raise AttributeError(name)

        async def ask(*args, meta=None, params=None, **options):
            if params is not None:
                meta = params.model_dump(by_alias=True)["_meta"]
            return name, args, links_of(meta), sorted(key for key in meta if meta[key] is not None)

        return ask


def client(method, keyword, *args):
    held = mint(tools={"t": {}, "resources/read": {}, "prompts/get": {}})

    def run(given):
        presenting = mcp_client.Presenting(Recording(), audience="shop", held=held)
        return asyncio.run(getattr(presenting, method)(*args, **{keyword: given}))

    return run


class Sent(Exception):
    """What a client was about to send a ticket to."""


def asked_of(given):
    def send(method, url, body):
        raise Sent(url)

    return obtain(mint().require(PARTY.public, need={"a": 1}).needs[0], send, service=given)


def asked_of_async(given):
    async def send(method, url, body):
        raise Sent(url)

    return asyncio.run(obtain_async(mint().require(PARTY.public, need={"a": 1}).needs[0], send, service=given))


@contextmanager
def sales_database():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("create table sales (id)")
        connection.execute("insert into sales values (1), (2)")
        yield connection


def rows(given, execute="execute"):
    grant = verifier().authenticate(mint(tables=["sales"], operations=["select"]).serialize())
    with sales_database() as connection, sqlite.guarded(connection, grant) as db:
        return getattr(db, execute)("select id, :id from sales where id = :id", given).fetchall()


def charged(given):
    """What a statement takes of a ledger, twice, by a guard that was told so once."""
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(tables=["sales"], operations=["select"], budget={"cents": 100})
    grant = verifier(ledger=ledger).authenticate(token)
    with sales_database() as connection, sqlite.guarded(connection, grant, cost=given) as db:
        return [db.execute("select id from sales where id = 0").fetchall() or left(ledger) for _ in range(2)]


def charged_by_tool(given):
    guard = ToolGuard(verifier(), cost=given)
    with current.use(mint(tools={"t": {}})):
        return [guard.check("t", {}).access.cost for _ in range(2)]


def charged_by_function(given):
    seen = []
    trail = SimpleNamespace(record=lambda decision: seen.append(decision.access.cost))
    tool = guarded_tool(verifier(audit=trail), name="t", cost=given)(lambda: None)
    with current.use(mint(tools={"t": {}})):
        return [tool() for _ in range(2)] and seen


def named_by_function(given):
    tool = guarded_tool(verifier(), name="t", names=given)(lambda *args: args)
    with current.use(mint(tools={"t": {"a": {"each": {"in": [1]}}}})):
        return [tool(1) for _ in range(2)]


def charged_by(make):
    """What the accesses of a guard's rule cost, twice."""

    def run(given):
        rule = make(given)
        return [(rule if isinstance(rule, Access) else rule(None)).cost for _ in range(2)]

    return run


def gated(make):
    def run(given):
        gate = make(verifier(audience="shop"), cost=given)._gate
        return [gate._stated.access(Access(tool="t")).cost for _ in range(2)]

    return run


def role(field):
    def run(given):
        rights = {"allow": {"sales": ["select"]}, field: given}
        return plan_sql("agents", Role("reader", **rights))

    return run


CENTS = {"cents": 3}, {"cents": NAN}
FACTS = {"a": 1}, {"a": NAN}
TAKEN = {"sales": ["select"]}, {"*": ["*"]}
RIGHTS = {
    "allow": TAKEN,
    "columns": ({"sales": ["id"]}, {"*": ["*"], "hr": [5]}),
    "rows": ({"sales": {"a": {"in": [1]}}}, {"*": {}}),
    "tools": ({"t": {"a": {"in": [1]}}}, {"*": {}}),
    "where": ({"x": {"in": [1]}}, {"x": {"any": True}}),
    "budget": ({"cents": 5}, {"cents": -1}),
    "marks": ({"a": {"tables": ["sales"]}}, {"a": {"tables": ["hr"]}, "b": 5}),
}
OF_REQUESTS = ("allow", "columns", "rows", "tools", "where")
OFFICES = {"http://127.0.0.1:1": "shop"}, {"http://127.0.0.1:1": "other", "https://evil.example": "shop"}
META = {"a": 1}, {mcp_client.TOKEN: "stolen"}


def keywords(place, run, which=RIGHTS):
    return {f"{place}({keyword})": (run(keyword), *RIGHTS[keyword]) for keyword in which}


PLACES = {
    "captoken.Access(arguments)": (stated("arguments"), *FACTS),
    "captoken.Access(attributes)": (stated("attributes"), *FACTS),
    "captoken.Access(cost)": (stated("cost"), *CENTS),
    "captoken.Access(row)": (stated("row"), *FACTS),
    "captoken.Access(becomes)": (stated("becomes"), *FACTS),
    "captoken.Access(rows)": (held, {"a": {"in": [1]}}, {"a": {"in": [2]}}),
    "captoken.Verifier.settle(taken)": (settled_by_id, *CENTS),
    "captoken.AsyncVerifier.settle(taken)": (settled_by_id_async, *CENTS),
    "captoken._verification.decision.Reserved.settle(cost)": (settled, *CENTS),
    "captoken._verification.decision.AsyncReserved.settle(cost)": (settled_async, *CENTS),
    "captoken.Issuer.mint(ext)": (minted_ext, {"acme:a": 1}, {"acme:a": 2.5}),
    **keywords("captoken.Issuer.mint", minted),
    "captoken.Issuer.mint_set(ext)": (lambda given: set_minted(tools={}, ext=given), {"acme:a": 1}, {"acme:a": 2.5}),
    "captoken.Issuer.mint_set(servers)": (lambda given: set_minted(servers=given), {"shop": {"tools": {}}}, {"mail": {"tools": {}}}),
    **keywords("captoken.Issuer.mint_set", set_minted_with, OF_REQUESTS),
    **keywords("captoken.TokenSet.attenuate", set_attenuated),
    **keywords("captoken.TokenSet.delegate", set_delegated),
    **keywords("captoken.TokenSet.present", set_presented),
    "captoken.TokenSet.attenuate(only)": (set_attenuated("only"), *ONLY),
    "captoken.TokenSet.delegate(only)": (set_delegated("only"), *ONLY),
    **keywords("captoken.Token.attenuate", attenuated),
    **keywords("captoken.Token.delegate", delegated),
    **keywords("captoken.Token.present", presented),
    **keywords("captoken.Token.presentation", shown),
    **keywords("captoken.current.Held.delegate", held_delegated),
    **keywords("captoken.current.Held.present", held_presented),
    **keywords("captoken.current.delegate", handed_on),
    "captoken.Token.require(need)": (required, {"approve": 1}, {"approve": 2}),
    **keywords("captoken.discharge.Allow", answered, OF_REQUESTS),
    **keywords("captoken.control.Operator.narrow", operated, OF_REQUESTS),
    "captoken.Keyring(_keys)": (partial(ring, lambda keys, current: Keyring(keys, current)), {"k1": KEY}, {"k1": bytes(32), "k2": KEY[::-1]}),
    "captoken.Keyring.from_keys(keys)": (partial(ring, Keyring.from_keys), {"k1": KEY}, {"k1": bytes(32), "k2": KEY[::-1]}),
    "captoken.tools.ToolGuard.check(arguments)": (decided, {"a": 1}, {"a": 2}),
    "captoken.tools.ToolGuard.check_async(arguments)": (decided_async, {"a": 1}, {"a": 2}),
    "captoken.tools.ToolGuard.request(arguments)": (requested(asked_at_once), {"a": 1}, {"a": 2}),
    "captoken.tools.ToolGuard.request_async(arguments)": (requested(asked_async), {"a": 1}, {"a": 2}),
    "captoken.adapters.fastapi.require(arguments)": (declared("arguments"), *FACTS),
    "captoken.adapters.fastapi.require(attributes)": (declared("attributes"), *FACTS),
    "captoken.adapters.fastapi.require(cost)": (declared("cost"), *CENTS),
    "captoken.adapters.sqlite.guarded(cost)": (charged, *CENTS),
    "captoken.tools.ToolGuard(cost)": (charged_by_tool, *CENTS),
    "captoken.tools.guarded_tool(cost)": (charged_by_function, *CENTS),
    "captoken.tools.guarded_tool(names)": (named_by_function, {"args": "a"}, {"args": "b"}),
    "captoken.adapters.asgi.Requires(cost)": (charged_by(lambda cost: asgi.Requires(None, Access(), cost=cost)._access), *CENTS),
    "captoken.adapters.grpc.Guard(cost)": (
        charged_by(lambda cost: grpc.Guard(verifier(), {"/a.B/C": Access()}, cost=cost)._methods["/a.B/C"]),
        *CENTS,
    ),
    "captoken.adapters.grpc.AsyncGuard(cost)": (
        charged_by(lambda cost: grpc.AsyncGuard(verifier(), {"/a.B/C": lambda _: Access()}, cost=cost)._methods["/a.B/C"]),
        *CENTS,
    ),
    "captoken.adapters.a2a.admission(cost)": (
        charged_by(lambda cost: a2a.admission(None, Access(), cost=cost)["request_context_builder"]._rule),
        *CENTS,
    ),
    "captoken.adapters.a2a.GuardedHandler(cost)": (
        charged_by(lambda cost: a2a.GuardedHandler(None, other=Access(), cost=cost)._other),
        *CENTS,
    ),
    "captoken.adapters.mcp.Guard(cost)": (gated(mcp.Guard), *CENTS),
    "captoken.adapters.fastmcp.Guard(cost)": (gated(fastmcp.Guard), *CENTS),
    "captoken.adapters.fastapi.protect(resource_metadata)": (metadata_of_app, {"a": 1}, {"a": 2}),
    "captoken.adapters.asgi.CaptokenMiddleware(resource_metadata)": (metadata, {"a": 1}, {"a": 2}),
    "captoken.adapters.grpc.Guard(methods)": (ruled(grpc.Guard), {"/a.B/C": Access()}, {"/a.B/C": "open"}),
    "captoken.adapters.grpc.AsyncGuard(methods)": (ruled(grpc.AsyncGuard), {"/a.B/C": Access()}, {"/a.B/C": "open"}),
    "captoken.adapters.httpx.auth(servers)": (shown_to, *OFFICES),
    "captoken.adapters.mcp_client.meta_for(arguments)": (meta("arguments"), {"a": 1}, {"a": 2}),
    "captoken.adapters.mcp_client.meta_for_request(params)": (meta("params"), {"uri": "a:b"}, {"uri": "a:c"}),
    "captoken.adapters.mcp_client.Presenting.call_tool(arguments)": (client("call_tool", "arguments", "t"), {"a": 1}, {"a": 2}),
    "captoken.adapters.mcp_client.Presenting.get_prompt(arguments)": (client("get_prompt", "arguments", "t"), {"a": "1"}, {"a": "2"}),
    **{
        f"captoken.adapters.mcp_client.Presenting.{method}(meta)": (client(method, "meta", *args), *META)
        for method, args in {
            "call_tool": ("t",),
            "get_prompt": ("t",),
            "read_resource": ("a:b",),
            "list_tools": (),
            "list_prompts": (),
            "list_resources": (),
            "list_resource_templates": (),
        }.items()
    },
    "captoken.adapters.discharge_client.obtain(service)": (
        asked_of,
        {PARTY.public: "https://a.example"},
        {PARTY.public: "https://b.example"},
    ),
    "captoken.adapters.discharge_client.obtain_async(service)": (
        asked_of_async,
        {PARTY.public: "https://a.example"},
        {PARTY.public: "https://b.example"},
    ),
    "captoken.adapters.sqlite.Database.execute(parameters)": (rows, {"id": 1}, {"id": 2}),
    "captoken.adapters.sqlite.Database.execute_once(parameters)": (partial(rows, execute="execute_once"), {"id": 1}, {"id": 2}),
    "captoken.rows.sql(conditions)": (lambda given: condition_of([given]), {"a": {"in": ["x"]}}, {"a": {"in": ["y"]}}),
    "captoken.rows.sql(columns)": (lambda given: condition_of([{"a": {"in": [True]}}], given), {"a": "boolean"}, {"a": "integer"}),
    "captoken.adapters.postgres.Role(allow)": (role("allow"), {"sales": ["select"]}, {"hr": ["select"]}),
    "captoken.adapters.postgres.Role(columns)": (role("columns"), {"sales": ["id"]}, {"sales": ["ssn"]}),
}


# --- all of them -------------------------------------------------------------------------------------------------------

# Where a mapping is taken and needs no case: by a pattern, and why.
WITHOUT = {
    r"captoken\.audit\..*": "decides nothing: says what was recorded",
    r"captoken\.current\.from_environment\(environ\)": "is emptied, by one `pop`",
    r"captoken\.proof\.Evidence\.from_dict\(stated\)": "an exact dict alone",
    r"captoken\.discharge\.Allow\((budget|marks|forbid|consent)\)": "no discharge has one",
    r"captoken\.[\w.]+\((forbid|consent)\)": "a list: each entry is copied as the mappings of `marks` are",
    r"captoken\.consent\.Asked\(accesses\)": "made by the library alone, of the text that it has read",
    r"captoken\.(control\.Operator\.narrow|Issuer\.mint_set)\(marks\)": "read by what reads them for `mint`",
    r"captoken\.Issuer\.mint_set\(budget\)": "is for one server, within `servers`",
    r"captoken\.adapters\.gateway\.Gateway\(verifiers\)": "asked once for each service, when the gateway is made",
    r"captoken\.stores\..*\(amounts\)": "a port: the verifier gives it what it has read and checked",
    r"captoken\.adapters\.\w+\.(delegate_to|handoff_to|run_delegated)\(\w+\)": "goes to `delegate` at each hand-over, which reads it once",
    r"captoken\.adapters\.pydantic_ai\.TokenGuard\.wrap_tool_\w+\(args\)": "the framework calls it, with what it has validated",
    r"captoken\.adapters\.postgres\.guarded(_async)?\(cost\)": "is what SQLite's guard takes, and read by the same class",
    r"captoken\.adapters\.fastapi\.Required\(cost\)": "made by `require`, which reads it",
    r"captoken\.adapters\.(fast)?mcp\.Guard\.challenging\(resource_metadata\)": "becomes a document when the guard is made, and decides nothing",
    r"captoken\.local\.Office\.mint(_set)?\(\w+\)": "goes to the `Issuer`, which reads it once",
    r"captoken\.testing\.Scenario\(\w+\)": "of whoever tests: nobody else's",
    r"captoken\.issuance\.(events|identity|jose|policy|registry|saml|signed_xml|registry\.ports)\.\w+\(\w+\)": "made by the library alone, of what it has read",
    r"captoken\.issuance\.(desk|minting|keys|web)\.[\w.]+\(\w+\)": "of the service's or the client's own",
    r"captoken\.issuance\.(oidc|saml_login)\.[\w.]+\(\w+\)": "read once, in one call, of what a provider has answered",
    r"captoken\.issuance\.client\.workload\(environ\)": "of the process itself: each name is looked up once",
    r"captoken\.adapters\.issuance\.IssuanceService\(reviews\)": "copied when the service is made, and all that counts from then on",
    r"captoken\.tools\.stated_of\(cost\)": "for guards, which have read it",
    r"captoken\.(current\.Held\(_(shown|at)\)|Keyring\(_derived\)|Capability\(held\)|TokenSet\(secret_tokens\)|control\.Overlay\(links\)|control\.Entry\(link\))": "made by the library alone",
    r"captoken\.adapters\.(httpx\.Presenting\(audiences\)|a2a\.GrantedUser\(state\)|(discharge|consent)_service\.Pending\(need\))": "made by the library alone",
}


# Their frameworks stand in environments of their own. A framework calls what takes a mapping there.
APART = {"captoken.adapters.google_adk", "captoken.adapters.claude_agent"}


def public_modules():
    yield captoken
    for found in pkgutil.walk_packages(captoken.__path__, "captoken."):
        hidden = any(part.startswith("_") for part in found.name.split("."))
        is_apart = found.name in APART
        if not hidden and not is_apart and not found.name.startswith("captoken.cli"):
            yield importlib.import_module(found.name)


def callables(module):
    """What a public module gives: by name, its functions and the methods of its classes."""
    for name in getattr(module, "__all__", None) or vars(module):
        made = getattr(module, name)
        is_own = getattr(made, "__module__", "") == module.__name__ or hasattr(module, "__all__")
        if name.startswith("_") or not is_own:
            continue
        if inspect.isfunction(made):
            yield f"{module.__name__}.{name}", made
        elif inspect.isclass(made):
            for method in dir(made):
                if not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", getattr(made, method)
            yield f"{module.__name__}.{name}", made


def taken_by(call):
    """The parameters of a public callable that take a mapping, those among its keywords included."""
    call = inspect.unwrap(getattr(call, "__func__", call))
    if not callable(call) or not (getattr(call, "__module__", None) or "").startswith("captoken"):
        return
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return
    room = vars(importlib.import_module(call.__module__))
    for parameter in parameters:
        said = str(parameter.annotation)
        keywords = re.match(r"Unpack\[(\w+)\]", said)
        if keywords and keywords[1] in room:
            for keyword, kind in inspect.get_annotations(room[keywords[1]]).items():
                if "Mapping" in str(kind) or "Cost" in str(kind):
                    yield keyword
        elif "Cost" in said or (re.search(r"\bMapping|\bdict\[|Services", said) and "Callable" not in said):
            yield parameter.name


def test_every_public_place_that_takes_a_mapping_has_its_case() -> None:
    found = {f"{name}({keyword})" for module in public_modules() for name, call in callables(module) for keyword in taken_by(call)}
    assert [place for place in sorted(found - PLACES.keys()) if not re.fullmatch("|".join(WITHOUT), place)] == []


def condition_of(conditions, columns=None):
    return sql(conditions, dialect="sqlite", columns={"a": "text"} if columns is None else columns)


def outcome(place, given):
    try:
        return place(given)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("changing", [Changing, ChangingDict])
@pytest.mark.parametrize("name", PLACES)
def test_what_is_read_first_is_all_that_counts(name, changing) -> None:
    place, first, then = PLACES[name]
    assert outcome(place, first) != outcome(place, then)
    assert outcome(place, changing(first, then)) == outcome(place, first)
    assert outcome(place, changing(then, first)) == outcome(place, then)


@pytest.mark.parametrize("keyword", ["allow", "columns", "rows", "tools", "where"])
def test_what_lies_inside_is_read_once_as_well(keyword) -> None:
    """The specification's rule 7.10."""
    def changing(first):
        if not isinstance(first, dict):
            return first
        return Changing({key: changing(value) for key, value in first.items()}, {"*": {}})

    first, _ = RIGHTS[keyword]
    assert minted(keyword)(changing(first)) == minted(keyword)(first)


def test_the_accesses_of_one_step_are_read_once() -> None:
    class Posing(Access, frozen=True):
        """What is no Access to a verifier: it could answer one thing to the plan and another to the record."""

    class Accesses(list):
        def __iter__(self):
            now = [self[0]]
            self[0] = Posing(tool="all")
            return iter(now)

    _, grant, _, access = counted()
    assert grant.check_all(Accesses([access])).access == access
