"""Whatever a command has to say, it says to machines as well: `--json`, one object, with these keys and no others.

A new command stands here, or a test fails. Who adds a key adds it here; to take one away breaks the programs that read it.
"""

import json
import re
import shutil
import subprocess

import pytest

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.testing import FixedClock
from tests.cli.test_transcripts import HERE, environment, every_command

TOKEN = {"token", "token_id", "link_id", "expires_at", "characters"}
DISCHARGE = {"discharge", "expires_at"}
PUBLIC = {"file", "purpose", "public"}
KEYS = {"file", "current", "key_ids", "audience"}
ENTRY = {"at", "by", "id", "select", "why"}
DECISION = {
    "allowed", "code", "id", "now", "access", "refusals", "subject", "task", "token_id", "chain", "steps", "committed",
}  # fmt: skip

# What is behind a command in these sessions, in a folder that `world` has filled.
OPERATING = "--key operator.json --store overlay.db"
SERVING = "--keyring keyring.json --table sales --operation select"
CASES = {
    "keygen keyring": ("--out new.json", KEYS),
    "keygen rotate": ("--keyring spare.json", KEYS),
    "keygen retire": ("k1 --keyring rotated.json", KEYS),
    "keygen audience": ("sales-db --keyring keyring.json --out sales-db.json", KEYS),
    "keygen holder": ("--out holder.json", PUBLIC),
    "keygen approver": ("--out approver.json", PUBLIC),
    "keygen discharger": ("--out discharger.json", PUBLIC),
    "keygen operator": ("--out second.json", PUBLIC),
    "keygen audit": ("--out second-audit.json", PUBLIC),
    "keygen pairwise": ("--out pairwise.json", PUBLIC),
    "keygen public": ("operator.json", PUBLIC),
    "mint": ("--keyring keyring.json --subject user:jane --agent a --task t --unrestricted", TOKEN),
    "attenuate": ("--operations select < root.token", TOKEN),
    "delegate": ("--to clerk < root.token", TOKEN),
    "require": ('--discharger "$(cat approvals.public)" --need a=1 < root.token', TOKEN),
    "attach": ("--discharge discharge < asking.token", TOKEN),
    "present": ("--audience sales-db < root.token", TOKEN),
    "tickets": ("< asking.token", {"tickets"}),
    "discharge": ("--key approvals.json --expires-in 60s < ticket", DISCHARGE),
    "approve": ("--key approvals.json < ticket", DISCHARGE),
    "inspect": (
        "< root.token",
        {
            "verified", "root", "links", "holders", "key", "task", "expires_at", "capability", "permits_nothing",
            "characters", "link_id",
        },
    ),
    "verify": (f"{SERVING} < root.token", DECISION),
    "explain": (f"{SERVING} < root.token", DECISION),
    "audit verify": ("trail.jsonl", {"whole", "head", "signed", "decisions"}),
    "audit export": (
        "trail.jsonl --out evidence.html", {"file", "decisions", "proved", "not_sealed", "records", "hash"}
    ),
    "audit log": ("trail.jsonl", {"decisions", "issuances"}),
    "audit tree": ("trail.jsonl", {"trees", "marked", "not_vouched_for"}),
    "audit unused": ("trail.jsonl", {"hops"}),
    "audit propose": ("trail.jsonl", {"proposals"}),
    "audit replay": ('trail.jsonl --overlay proposal --operator "$(cat operator.public)"', {"decisions", "changed"}),
    "blast-radius": ("trail.jsonl --agent clerk", {"agent", "now", "reach"}),
    "end-task": (f"q3 {OPERATING}", ENTRY),
    "revoke": (f"{OPERATING} --agent clerk --why lost", ENTRY),
    "narrow": (f"{OPERATING} --agent clerk --operations select --tables '*' --why lost", ENTRY | {"link"}),
    "lift": (f'{OPERATING} --entry "$(cat entry)"', {"lifted", "by", "why"}),
    "renew": (OPERATING, {"seq", "issued_at", "entries"}),
    "overlay": (
        '--store overlay.db --operator "$(cat operator.public)"', {"seq", "issued_at", "expires_at", "entries", "resumed"}
    ),
    "react run": ("rules.toml --trail trail.jsonl --replay", {"decisions", "causes", "troubles"}),
    "react check": ("rules.toml", {"rules", "most"}),
    "react level": ("high --state react.db --why odd", {"levels"}),
    "upgrade": ("overlay.db", {"stores", "applied"}),
    "postgres plan": ("--login agents --role reader --allow sales=select", {"sql", "applied", "found"}),
    "completion show": ("bash", {"shell", "script"}),
    "completion install": ("bash", {"shell", "file", "written"}),
    "docs": ("", {"folder", "pages"}),
    "skill": ("", {"text"}),
    "try": ("", {"beats"}),
    "test": ("scenarios.toml", {"scenarios", "failed"}),
    "issue check": ("policy.toml", {"policy", "grants", "tests"}),
    "issue explain": (
        """policy.toml --subject '{"provider": "ci", "repository_id": "42"}'""", {"grants", "gives", "refused"}
    ),
    "gateway check": ("gateway.toml", {"services", "problems"}),
    "gateway tools": ("gateway.toml", {"tools"}),
    "gateway explain": ("gateway.toml GET /shop/v1/orders/7", {"tool", "arguments", "cost", "sends"}),
    "gateway demo": ("", {"agents", "trail", "agent_held_key", "service_saw_key", "service_saw_token"}),
    "demo": ("--seed 1", None),  # the story, whose keys are those of its structs
}  # fmt: skip
# Of servers that are not there, some that do not end, and one that asks a person, which have tests of their own; and groups.
NOT_RUN = {
    "postgres audit", "operate", "issue serve", "gateway run", "gateway stdio", "gateway config", "gateway processor", "gateway envoy", "gateway caddy", "gateway nginx", "gateway traefik", "gateway", "console", "login", "exchange", "audit", "completion", "issue", "keygen", "postgres",
    "react", "react listen", "consent",
}  # fmt: skip

WORLD = """
captoken keygen --out keyring.json
captoken keygen discharger --out approvals.json > approvals.public
captoken keygen operator --out operator.json > operator.public
captoken keygen audit --out audit.json
captoken mint --keyring keyring.json --subject user:jane --agent a --task t --tables '*' --operations '*' > root.token
captoken require --discharger "$(cat approvals.public)" --need a=1 < root.token > asking.token
captoken tickets < asking.token > ticket
captoken discharge --key approvals.json --expires-in 60s < ticket > discharge
captoken renew --key operator.json --store overlay.db --create
captoken overlay --store overlay.db --operator "$(cat operator.public)" --raw > proposal
captoken revoke --key operator.json --store overlay.db --agent b --why lost --json | sed -n 's/.*"id": "\\(.*\\)",/\\1/p' > entry
python keep_trail.py audit.json > trail.jsonl
printf 'version = 1\\n[gateway]\\nkeyring = "keyring.json"\\n[service.shop]\\nurl = "https://shop.example"\\ncredential = "env:K"\\n' > gateway.toml
printf '[service.shop.operations."orders.get"]\\nrequest = "GET /v1/orders/{id}"\\n' >> gateway.toml
printf 'version = 1\\n[rule.a]\\nwhen = { codes = ["table"] }\\nthen = "alert"\\nwhy = "odd"\\n' > rules.toml
printf 'captoken = 1\\n[[scenario]]\\nname = "a"\\ntoken.tools.pay = {}\\ncall = [{ tool = "pay", code = "allowed" }]\\n' > scenarios.toml
"""


def sh(command, folder):
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment(folder), capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    for helper in ("keep_trail.py", "at_terminal.py", "policy.toml"):
        shutil.copy(HERE / helper, folder)
    old, new = {"k1": bytes(range(1, 33))}, {"k2": bytes(range(2, 34))}
    Keyring.from_keys(old, current="k1").save(folder / "spare.json")
    Keyring.from_keys(old | new, current="k2").save(folder / "rotated.json")
    done = sh(f"set -e\n{WORLD}", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_command_answers_in_json():
    """All that print have the option; and each of them is run below."""
    every = dict(every_command())
    assert {*CASES, *NOT_RUN} == set(every)
    groups = {name for name, command in every.items() if hasattr(command, "commands")}
    without = {name for name, command in every.items() if "as_json" not in {one.name for one in command.params}}
    # One speaks MCP on its output, and the others write settings of somebody else's.
    assert without == groups | {"gateway stdio", "gateway config", "gateway envoy", "gateway caddy", "gateway nginx", "gateway traefik"}


def test_the_docs_list_what_every_command_answers():
    page = (HERE.parent.parent / "docs" / "cli.md").read_text("utf-8")
    listed = page.partition("## For machines")[2].partition("## Values")[0]
    for name, (_, keys) in CASES.items():
        assert [key for key in sorted(keys or ()) if f"`{key}`" not in listed] == [], name


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_one_object_of_these_keys(name, world):
    arguments, keys = CASES[name]
    command = f"captoken {name} --json {arguments}"
    if name == "approve":
        command = f"python at_terminal.py y {command}"
    done = sh(command, world)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert type(answer) is dict and answer.keys() == (keys or answer.keys())
    assert done.stdout.isascii()


@pytest.mark.parametrize("name", [name for name, (_, keys) in CASES.items() if keys == TOKEN])
def test_the_token_in_it_is_what_is_written_without_it(name, world):
    """And what is said of it is what it says."""
    answer = json.loads(sh(f"captoken {name} --json {CASES[name][0]}", world).stdout)
    assert re.fullmatch(r"cap1_[A-Za-z0-9_.-]+", answer["token"]) and answer["characters"] == len(answer["token"])
    (world / "written").write_text(answer["token"])
    seen = json.loads(sh("captoken inspect --json < written", world).stdout)
    assert (seen["link_id"], seen["expires_at"]) == (answer["link_id"], answer["expires_at"])
    assert seen["root"]["token_id"] == answer["token_id"]


def test_a_no_is_an_answer_too(world):
    """Of the person who is asked, and of a verifier: exit 1, and what it is about."""
    done = sh("python at_terminal.py n captoken approve --json --key approvals.json < ticket", world)
    assert done.returncode == 1 and json.loads(done.stdout) == {"discharge": None, "expires_at": None}
    done = sh("captoken verify --json --keyring keyring.json --token-only --audience other < root.token", world)
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == "unaddressed"


def test_each_ticket_and_each_decision_is_an_object(world):
    ticket = json.loads(sh("captoken tickets --json < asking.token", world).stdout)["tickets"][0]
    assert ticket == {
        "ticket": (world / "ticket").read_text().strip(),
        "discharger": (world / "approvals.public").read_text().strip(),
        "location": None,
    }
    decisions = json.loads(sh("captoken audit log trail.jsonl --json --denied", world).stdout)["decisions"]
    assert [decision["code"] for decision in decisions] == ["table", "operation", "malformed"]
    assert decisions[0]["chain"][-1] == {"name": "clerk", "basis": "vouched"}
    assert decisions[2]["chain"] == [] and decisions[2]["subject"] is None and decisions[2]["refusals"]


def test_a_page_of_the_docs_is_an_object_too(world):
    page = json.loads(sh("captoken docs --json cli", world).stdout)
    assert page.keys() == {"page", "text"} and page["text"].startswith("# The command line\n")


@pytest.mark.parametrize(
    "command",
    ["overlay --store overlay.db --operator $(cat operator.public) --raw", "inspect --mermaid < root.token"],
)
def test_two_forms_at_once_are_a_mistake(command, world):
    done = sh(f"captoken {command} --json" if "<" not in command else f"captoken {command.replace('<', '--json <')}", world)
    assert done.returncode == 2 and done.stdout == b"" and b"does not go with --json" in done.stderr


def test_what_went_wrong_is_no_answer(world):
    """Nothing on standard output: a program that reads JSON there reads none of it as a verdict."""
    done = sh("captoken verify --json --keyring no-such-file --token-only < root.token", world)
    assert done.returncode == 2 and done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_the_log_is_in_the_order_of_time(world):
    """What was decided first may be written last, by a thread that waited; within a second the records' order stays."""
    keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
    clock = FixedClock(1_764_061_200)
    with open(world / "mixed.jsonl", "wb") as file:
        trail = AuditTrail(file.write)
        server = Verifier(keyring, clock=clock, audit=trail)
        token = Issuer(keyring, clock=clock).mint(subject="s", agent="a", task="t", unrestricted=True)
        for seconds, tool in ((5, "third"), (2, "first"), (2, "second")):
            clock.now = 1_764_061_200 + seconds
            server.check(token, Access(tool=tool))
    logged = sh("captoken audit log mixed.jsonl", world).stdout.decode()
    assert re.findall(r"tool (\w+)", logged) == ["first", "second", "third"]
    assert sh("captoken audit log mixed.jsonl --agent nobody", world).stderr == b"captoken: no recorded decision matches\n"


def test_the_log_has_fractions_of_seconds_where_they_were_recorded(world):
    """And is in their order: what was recorded before the next second began comes first."""
    keyring = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
    clock = FixedClock(1_764_061_200)
    late = iter([1.25, 0.5, 0.0071])
    with open(world / "fractions.jsonl", "wb") as file:
        trail = AuditTrail(file.write, clock=lambda: clock() + next(late))
        server = Verifier(keyring, clock=clock, audit=trail)
        token = Issuer(keyring, clock=clock).mint(subject="s", agent="a", task="t", unrestricted=True)
        for tool in ("third", "second", "first"):
            server.check(token, Access(tool=tool))
    logged = sh("captoken audit log fractions.jsonl", world).stdout.decode()
    assert re.findall(r"^(\S+ \S+) .*tool (\w+)", logged, re.MULTILINE) == [
        ("2025-11-25 09:00:00.007Z", "first"),
        ("2025-11-25 09:00:00.500Z", "second"),
        ("2025-11-25 09:00:01.250Z", "third"),
    ]
    decisions = json.loads(sh("captoken audit log fractions.jsonl --json", world).stdout)["decisions"]
    assert [(one["at"], one["ms"]) for one in decisions] == [(1_764_061_200, ms) for ms in (7, 500, 1250)]


def test_what_a_decision_cannot_say_is_refused_by_its_number(world):
    (world / "odd.jsonl").write_text('{"at":"noon","kind":"decision","prev":"%s","seq":1}\n' % ("A" * 43))
    done = sh("captoken audit log odd.jsonl", world)
    assert done.returncode == 2 and done.stderr.startswith(b"captoken: odd.jsonl: record 1 cannot be read")
