"""Every example runs as a reader would run it, and so does the demo; what they show is looked at."""

import io
import itertools
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captoken.cli.demo import command
from captoken.cli.demo.data import Call, Cast, Report
from captoken.cli.demo.story import play
from tests.program import CAPTOKEN

HERE = Path(__file__).parent.parent
EXAMPLES = sorted((HERE / "examples").glob("*.py"))

# They need large packages, and are run by `.ci/nightly large`.
ELSEWHERE = {"agents_claude.py", "agents_crewai.py", "agents_google_adk.py", "consent_claude.py", "consent_google_adk.py"}
STORY = [
    "sales-agent   query_sales(select salary from hr)\n                  Not permitted: table hr is not among the tables of this task",
    "filings-agent send_mail(mallory@example, salaries)\n                  Not permitted: tool send_mail is not among the tools of this task",
    "Q3 risk: eu 41 overdue, market down 7 percent, cedar a going concern.",
    'argument orchestrator > filings-agent: argument issuer of tool read_filing does not satisfy {"in": ["cedar"]} (orchestrator)',
    "caller   orchestrator: filings-agent calls with the token of orchestrator (the verifier)",
    "filings-agent (vouched): 1 allowed, 3 denied",
]
WITH_NODE = {"login_to_report.py"}  # run with -m node
KEY_LINES = {
    "login_to_report.py": [
        "jane has logged in at the provider",
        "started a task for acme:jane",
        "  filings-agent  north: Alder, new credit line; rated BBB\n  orchestrator   north is done: 3 findings\n\njane logs out at the provider, in the middle",
        "The next call of each\n  market-agent   revoked\n  sales-agent    revoked\n  reader-agent   revoked\n"
        "  rating-agent   revoked\n  filings-agent  revoked\n  orchestrator   revoked\n",
        "and the same login starts nothing more: invalid_grant",
        "orchestrator > filings-agent > reader-agent  1 allowed, 1 denied: revoked",
        "+00:00: the login that started it has ended",
        "captoken                           2   one for each server",
        "OAuth token exchange (RFC 8693)   12   one for each agent at each",
    ],
    **{f"consent_{name}.py": [
        "      mail to = 'ann@example.com'\n", "      refund cents = 900000\n",
        "What has run:\n      lookup o-1\n      mail ann@example.com: Your refund is on its way.\n",
    ] for name in ("langgraph", "openai", "pydantic_ai")},
    "consent_mcp.py": [
        "    ends with -9: it was killed\nJane reads:\n      server = desk\n      tool = mail\n",
        "the second client goes on from what was stored:\n    sent\n",
        "the third client goes on from what was stored:\n    is told where a person decides\n",
        "What was sent:\n      ann@example.com: Your refund is on its way.\n",
    ],
    "quarterly_risk.py": [
        "Cedar: going concern in doubt; rated B-  (filings-agent)",
        "  sales-agent: select customer from sales\n      name           the database: A name in the statement does not exist",
        "(at customer). Nothing was done. sales has region, amount, overdue here.",
        "  filings-agent: lookup(Alder, 40)\n      argument       link 1, added by orchestrator",
        "bad_signature  the verifier",
        "caller         the verifier: mallory calls with the token of sales-agent",
        "expired        link 2, added by filings-agent",
        "expired        link 0, added by the issuer",
    ],
    "reactions.py": [
        "west   sales      table\n\nprobing revokes link ",
        "west   orders     revoked, in less than 5 seconds\nnorth  orders     allowed\nsouth  orders     allowed\n",
        "react:probing: five refusals of rights in a minute (west, 5 records",
        "west   orders     allowed, once the entry is lifted",
    ],
    "stolen_token.py": [
        "clerk, proven",
        "proof_missing the text alone",
        "replayed      the text and the clerk's proof, again",
        "bad_proof     the clerk's proof behind another text",
        "bad_proof     her own library",
        "bad_proof     the token, bound to her key by her own hand",
        "the key of orchestrator signed that clerk may select from salaries",
    ],
    "row_budgets.py": [
        "it got 160 rows of 5000",
        "json_group_array(email) from customers               budget_exhausted",
        "select id from customers where town = 'Bergen'              556 rows",
    ],
    "human_approval.py": [
        "  bank.pay(to='paper-mill.example', cents=83000)\n      denied, missing_discharge",
        "pay 830.00 to paper-mill.example? yes",
        "paid, by clerk-agent for user:jane",
        "refused: the approver said no",
        'denied, argument: argument to of tool bank.pay does not satisfy {"in": ["paper-mill.example"]}',
    ],
    "lease_kill_switch.py": [
        "q3-risk: not renewed, the score of q3-risk is",
        "+ 60 s  q3-risk: select on table customers, refused by all: expired",
        "+119 s  newsletter: still at work",
        "From the supervisor's decision to the last permitted read: 4 s, of at most 10.",
    ],
    "kill_switch.py": [
        "None goes by an overlay that is older than 20 s.",
        "+28 s  tickets  update on table tickets    narrowed       operation update is not among",
        '+30 s  files    tool files.upload(to)      narrowed       tool files.upload is not among ["files.read"]',
        "+48 s  tickets  select on table tickets    revoked        revoked by oncall:sam at",
        "+65 s  files    tool files.read()          stale_overlay  the newest overlay is from",
        "+70 s  files    tool files.read()          revoked        revoked by oncall:sam at",
        "files                   2 s       17 s             5 s       20 s",
    ],
    "object_storage.py": [
        "GET head    200     112 bytes\n    GET whole   200  104,826 bytes\n  each server begins",
        "    GET head    304       0 bytes\n    GET head    304       0 bytes\n  they look again: nothing is new",
        "    PUT head    200       0 bytes\n  the operator ends task q3",
        "  they look again: the delta came in the head",
        "  somebody puts the old head back: they load it, and keep to what they know",
    ],
    "shared_budget.py": [
        "The ledger is a SQLite file",
        "scout-5         100",
        "told no: search.query, of 1 cent at most: budget_exhausted, by link 0 of the issuer",
        "promised 500, allowed 100, spent 100",
    ],
    "agents_pydantic_ai.py": STORY,
    "agents_openai.py": STORY,
    "agents_langchain.py": [
        "filings-agent query_hr(salary)\n                  Not permitted: tool query_hr is not among the tools of this task",
        "Q3 risk: eu 41 overdue, market down 7 percent, cedar a going concern.",
        "filings-agent read_filing(cedar)\n                  Not permitted: the credential was handed to another agent",
        "caller   orchestrator: filings-agent calls with the token of orchestrator",
        "filings-agent (vouched): 1 allowed, 3 denied",
    ],
    "a2a_agents.py": [
        "sales desk: takes captoken",
        "eu: 41 overdue  (asked by orchestrator > risk-agent, for user:jane)",
        "risk-agent: salaries of all           The token does not permit this request.",
        "nobody, with no token: overdue in eu  HTTP Error 401",
    ],
    "grpc_service.py": [
        "['eu 5', 'us 7'], for sales-agent",
        "a method without a rule                      PERMISSION_DENIED",
        "['eu 5', 'us 7'], then ['eu 5', 'us 7'], then PERMISSION_DENIED",
        "no token at all                              UNAUTHENTICATED: The token was not accepted.",
        "over a channel that is not encrypted         UNAUTHENTICATED",
        "the same token, stolen without the key       UNAUTHENTICATED: The request needs a fresh proof",
    ],
    "start_here.py": [
        "pay('acct-1', 120)\n    paid 120 to acct-1",
        "pay('acct-1', 9000)\n    denied argument pay.cents: 9000 is more than 500, link 0 by the issuer",
        "pay('acct-1', 120)\n    denied domain: the token is for tables only",
        "select * from sales natural join hr\n    denied table: table hr is not among",
        "pay('acct-1', 120)\n    denied revoked: revoked by office at ",
        "    orchestrator > sales-agent: 1 allowed, 2 denied",
    ],
    "fastapi_sqlite.py": [
        "select sum(amount) from sales 200  [[12]]",
        "select pay from hr            403  ",
        "delete from sales             403  ",
    ],
    "two_tenants.py": [
        "200  [[1, 'acme', 'eu', 500], [2, 'acme', 'us', 700]]",
        "select count(*), sum(cents) from orders where tenant = 'globex'   200  [[0, None]]",
        "insert into orders values (4, 'globex', 'eu', 1)                  403  row",
        "eu-agent\n    select * from orders                                              200  [[1, 'acme', 'eu', 501]]",
    ],
    "rule_of_two.py": [
        "  send_mail   sent to ops@example.com\n  read_page   Closed on the 24th\n  query       [('Alder', '4012 1111')",
        "  send_mail   Not permitted any more in this task",
        "a sub-agent, started before     forbidden_after\n  a second token                  forbidden_after",
        "the same token, another process forbidden_after",
        "another task                    allowed",
    ],
    "gateway_refunds.py": [
        "  support-2    200  refunded\n  support-3    403  budget_exhausted",
        "  support-11   403  budget_exhausted",
        "The service saw its key, and no token; the agents had tokens, and no key:",
        "  POST /v1/refunds  charge=ch_1&amount=500",
        "  support > support-3, for user:jane: budget_exhausted",
    ],
    "gateway_mcp.py": [
        "The client's settings have the key: False\nIt lists: list_tickets, answer, show_settings",
        "  list_tickets(returns)                      3 tickets in returns\n  list_tickets(salaries)                     Not permitted: argument `queue`",
        "  answer(T-2, On its way.)                   T-2 is answered\n  answer(T-3, On its way.)                   Not permitted: this needs more than is left",
        "  show_settings()                            error: The server's answer is withheld.",
        "It lists: list_tickets\n  answer(T-4, On its way.)                   Not permitted: tool tickets.answer",
    ],
    "fastapi_service.py": [
        "200  eu-agent      GET /market/eu             1200 in eu, for user:jane: eu-agent (vouched)",
        "403  eu-agent      GET /market/us             The token does not permit this request.",
        "401  mallory       the same request, again    The request needs a fresh proof",
        "401  nobody        GET /%68ealth              A bearer token is needed.",
        "400  two at once   GET /market/eu             More than one Authorization header.",
        "not sent: captoken sends no token to 'https://evil.example'",
        "the service does not start: /export requires nothing",
    ],
    "mcp_server.py": [
        "sales-mcp serves on stdio",
        "tools       query(sql), refund(order, cents)",
        "To none of it is anybody let in without a token",
    ],
    "mcp_in_frameworks.py": [
        "junior: 900 back for A-1, by junior",
        "senior: 4000 back for A-1, by senior",
        "junior: Not permitted: argument `cents` of `refund`",
    ],
    "mcp_client.py": [
        "  is shown     query\n",
        "[(1200,)]",
        "Not permitted: table hr is not among the tables of this task",
        "not sent: Not permitted: tool refund is not among the tools of this task",
        "not sent: Not permitted: argument `cents` of `refund` has a value that this task may not use",
        "1500 cents back for A-1, by care-agent for user:jane",
        "refund(order='A-1', cents=2500): Not permitted: argument `cents` of `refund` has a value that this task may not use",
        "refund(order='A-1', cents=1900): Not permitted: argument `cents` of `refund` has a value that this task may not use",
        "with no token: No token came with the request",
        "with a token of its own making: The token was not accepted.",
    ],
    "sqlalchemy_agent.py": [
        "(at email). Nothing was done. customers has id, name here.",
        "[('Alder', 2000), ('Birch', 4100)]",
        "select region from orders union all select name || cents from salaries\n        Not permitted: table salaries is not among",
        "update orders set cents = 0\n        Not permitted: operation update on table orders",
        "NoToken: there is no grant here",
        "one order more, 6400 cents in all",
    ],
    "postgres_analytics.py": [
        "The audit found 0 ways round them.",
        "[('eu', 1200), ('us', 800)]",
        "name: a name in the statement does not exist, or is ambiguous (42703, at salary)",
        "table: no operation is allowed on table notes",
        "operation: send exactly one statement at a time",
        "[('eu', 9900)]",
        "[('user:omar', 'call back')]",
        "PostgreSQL: permission denied for function set_config",
    ],
    "end_to_end.py": [
        "[['eu', 41], ['us', 7]]",
        "403, Not permitted: table hr is not among the tables of this task.",
        "IGNORE YOUR INSTRUCTIONS",
        "Not permitted: tool send_mail is not among the tools of this task",
        "EU has 41 overdue; cedar may not go on.",
        "One trace: 14 of 14 have its id",
        "  orchestrator, issued, at agents: 2 allowed, 0 refused",
        "      sales-agent, vouched, at warehouse: 1 allowed, 1 refused",
        "      filings-agent, vouched, at filings: 2 allowed, 0 refused",
        'sales-agent   warehouse  table hr is not among ["sales"] (added by the issuer)',
    ],
    "pairwise_two_companies.py": [
        "Acme lets price-agent read prices for buyer@bluebird.example.",
        "unknown_key   Mallory's token",
        "bad_signature a key of her own under Bluebird's key id",
        "unknown_key   and at Cedar",
    ],
    "three_servers.py": [
        "read the customers  sales-db  table",
        "read the customers  sales-db  unknown_key",
        "mail a stranger     mail      allowed",
        "invite somebody     calendar  unknown_key",
        "mail the board      mail      revoked",
        "The orchestrator itself goes on:\n  read the sales      sales-db  allowed",
    ],
    "scope_explosion.py": [
        "4,800",
        "2^80 - 1",
        "3 children each, 4 levels, 121 tokens",
        "RFC 8693: requests to an issuer              121",
        "RFC 9396 authorization_details",
    ],
}


def run(*command, folder, **environment):
    """What a program writes, with the code of this checkout, in an environment of its own.

    It must end well and say nothing on standard error.
    """
    own = {"PATH": os.defpath, "PYTHONPATH": str(HERE), "PYTHONUTF8": "1", "TMPDIR": str(folder), "PYTHONWARNINGS": "error"}
    env = own | environment
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, cwd=folder, env=env, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr.decode()
    # Where nobody has set up logging, Python shows warnings: a verifier warns of a wrong key.
    said = [line for line in done.stderr.splitlines() if not line.startswith(b"refused: unknown_key: ")]
    assert said == [] and list(folder.iterdir()) == []
    return done.stdout.decode()


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.name not in ELSEWHERE | WITH_NODE], ids=lambda path: path.name
)
def test_an_example_runs_and_shows_what_it_is_for(path, tmp_path):
    text = run(path, folder=tmp_path)
    for line in KEY_LINES[path.name]:
        assert line in text


@pytest.mark.node
@pytest.mark.parametrize("name", sorted(WITH_NODE))
def test_an_example_with_node_runs_and_shows_what_it_is_for(name, tmp_path):
    text = run(HERE / "examples" / name, folder=tmp_path, PATH=os.environ["PATH"])
    for line in KEY_LINES[name]:
        assert line in text


def test_every_example_passes_a_strict_type_checker(tmp_path):
    """But for those of `ELSEWHERE`, which subclass what is not installed here: mypy takes no class whose base it cannot see."""
    checked = [path for path in EXAMPLES if path.name not in ELSEWHERE]
    # The checkout may be read-only.
    options = ["--strict", "--no-error-summary", "--cache-dir", str(tmp_path)]
    asked = [sys.executable, "-m", "mypy", *options, *map(str, checked)]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_example_is_in_the_list():
    listed = (HERE / "examples" / "README.md").read_text("utf-8")
    assert all(f"[`{path.name}`]({path.name})" in listed for path in EXAMPLES)


def demo(*options, folder, **environment):
    return run(CAPTOKEN, "demo", *options, folder=folder, **environment)


def test_a_socket_that_is_handed_to_a_server_sends_small_pieces_at_once():
    """Servers see to that for sockets that they open themselves: else each request waits for 40 ms."""
    made, option = "= socket.create_server(", "setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)"
    found = 0
    for path in [*HERE.glob("docs/*.md"), *HERE.glob("examples/*.py"), *HERE.glob("tests/adapters/*.py")]:
        lines = path.read_text().splitlines()
        for line, following in itertools.pairwise(lines):
            if made in line:
                found += 1
                assert option in following, path.name
    assert found >= 5


def test_the_demo_with_a_seed_is_the_same_each_time(tmp_path):
    first = demo("--seed", "7", folder=tmp_path, PYTHONHASHSEED="1", COLUMNS="100")
    assert demo("--seed", "7", folder=tmp_path, PYTHONHASHSEED="2", COLUMNS="100") == first
    assert demo("--seed", "8", folder=tmp_path, COLUMNS="100") != first
    for line in (
        "user:jane started task q3-risk",
        "└── orchestrator  15m",
        "        └── reader-agent  1m",
        "table  link 1, added by orchestrator: no operation is allowed on table sales",
        "quarter, region, amount, overdue here.",
        "argument  link 1, added by orchestrator",
        "caller  the verifier: mallory calls with the token of sales-agent",
        "╭─ Quarterly risk report, Q3",
        "missing_discharge  link 1, added by orchestrator",
        "bad_proof  the verifier: not signed by the key",
        "revoked  the verifier: revoked by operator at",
        "└── orchestrator, issued  3 allowed, 2 refused",
        "    └── publisher-agent, vouched  1 allowed, 5 refused",
        "records                   82  63 decisions, 18 tokens described, 1 signature",
        "1 mint, 5 hand-overs, 0 requests to an issuer",
        "the time: the clock is put forward",
        "captoken docs tools ",
    ):
        assert line in first


def test_the_demo_tells_its_story_as_data(tmp_path):
    story = json.loads(demo("--json", folder=tmp_path))
    calls = story["calls"]
    codes = "allowed table name operation argument widening bad_signature forbidden_after caller wrong_audience expired"
    bound = "missing_discharge proof_missing bad_proof replayed revoked"
    assert {call["code"] for call in calls} == {*codes.split(), *bound.split()}
    assert all(call["allowed"] == (call["code"] == "allowed") == call["expected"] for call in calls)
    working = {call["agent"] for call in calls if call["scene"] == "work"}
    assert {*working, "publisher-agent"} == {agent["name"] for agent in story["agents"]}
    assert [call["code"] for call in calls if call["agent"] == "mallory" and call["scene"] == "sending"] == [
        "proof_missing", "replayed", "bad_proof",
    ]  # fmt: skip
    refused = {call["tried"]: call for call in calls if not call["allowed"]}
    assert refused["select count(*) from market.moves natural join hr"]["link"] == 0
    assert refused["select salary from hr, after writing itself a link for hr"]["also"] == [1, 2]
    assert refused["select customer, overdue from sales"]["code"] == "name"
    assert "sales has quarter, region, amount, overdue here" in refused["select customer, overdue from sales"]["why"]
    assert [call["agent"] for call in calls if call["code"] == "expired"] == ["reader-agent", "sales-agent"]
    assert [call["agent"] for call in calls if call["code"] == "revoked"] == ["orchestrator", "market-agent"]
    used = {agent["name"]: (agent["basis"], agent["allowed"]) for agent in story["used"]}
    assert used["orchestrator"][0] == "issued" and used["reader-agent"] == ("vouched", 1)
    assert len(story["regions"]) == 5 and len(story["filings"]) == 4
    assert story["sources"] == {"exposure": "sales-agent", "filings": "filings-agent", "markets": "market-agent"}


def test_what_the_demo_counts_adds_up(tmp_path):
    story = json.loads(demo("--json", folder=tmp_path))
    totals = story["totals"]

    def counted(name):
        return totals[name]["allowed"], totals[name]["refused"]

    def both(*names):
        return tuple(map(sum, zip(*map(counted, names), strict=True)))

    calls, used = story["calls"], story["used"]
    tried = [sum(call["allowed"] == allowed for call in calls) for allowed in (True, False)]
    asked = [sum(call["allowed"] == allowed and call["server"] is not None for call in calls) for allowed in (True, False)]
    faults = sum(call["code"] == "name" for call in calls)  # the statement's own: no decision
    assert faults == 1
    assert [*counted("tried")] == tried and [*counted("at_servers")] == asked and tried != asked
    assert both("accesses", "tokens") == counted("decisions")
    assert sum(counted("decisions")) + totals["described"] + totals["checkpoints"] == totals["records"]
    assert counted("accesses")[0] == sum(agent["allowed"] for agent in used)
    assert counted("decisions")[1] == sum(agent["refused"] for agent in used) + totals["unknown"] == asked[1] - faults
    assert totals["unknown"] == 2 and counted("statements") == (21, 6)


def test_the_demo_tells_its_story_while_it_happens():
    """Piece by piece, and not at its end: whoever watches knows of no later one."""
    told, done = [], []

    def watch(piece):
        told.append(piece)
        if isinstance(piece, Call):
            done.append(piece.tried)
            assert ("the report is out" in piece.why) <= ("end_task('q3-risk'), ten minutes early" in done)

    story = play(7, watch)
    assert [type(piece) for piece in told if not isinstance(piece, Call)] == [Cast, Report]
    assert [piece for piece in told if isinstance(piece, Call)] == [*story.calls]
    work = len([call for call in story.calls if call.scene == "work"])
    assert isinstance(told[0], Cast) and isinstance(told[1 + work], Report)


def test_a_terminal_sees_the_demo_begin_before_it_ends():
    ours, theirs = pty.openpty()
    env = {"PATH": os.defpath, "PYTHONPATH": str(HERE), "PYTHONUTF8": "1", "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, CAPTOKEN, "demo"], stdout=theirs, stderr=theirs, stdin=theirs, env=env) as running:
        os.close(theirs)
        shown = b""
        while b"market-agent" not in shown:
            shown += os.read(ours, 65536)
        assert running.poll() is None and b"mallory" not in shown  # it stops for whoever reads along
        running.kill()
    os.close(ours)


def test_at_a_terminal_the_demo_stops_for_whoever_reads_along_unless_it_is_told_to_go_on(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def seconds(stream, *options):
        rested = []
        monkeypatch.setattr(time, "sleep", rested.append)
        monkeypatch.setattr(sys, "stdout", stream)
        assert command.demo.main(list(options), standalone_mode=False) == 0 and "What to try next" in stream.getvalue()
        return sum(rested)

    assert seconds(Terminal(), "--fast") == seconds(io.StringIO()) == 0
    assert 1 < seconds(Terminal(), "--brief") < seconds(Terminal()) < 9


@pytest.mark.parametrize("options", [[], ["--brief"]])
@pytest.mark.parametrize("columns", [40, 76, 80, 100, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_demo_fits_its_terminal(columns, encoding, options, tmp_path):
    text = demo("--seed", "7", *options, folder=tmp_path, COLUMNS=str(columns), PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    assert max(map(len, text.splitlines())) <= max(76, min(columns, 100))
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert text.isascii() == (encoding == "ascii") and "\\u" not in text
