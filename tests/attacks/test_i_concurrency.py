"""Class I: threads, processes, forks, kills and interrupts change no decision, and give no proof a second use.

Use counters (I1, I2) come with the ledger; what is counted here is the one use of a proof.
"""

import contextlib
import gc
import inspect
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from threading import Thread

import pytest

from captoken.stores.memory import MemoryReplayStore
from captoken.stores.sqlite import SQLiteReplayStore
from tests.bound import AUDIENCE, CHILD, EU_AGENT, GRANDCHILD, KEYS, ORCHESTRATOR, TOKEN, bound, handed, proof, server, stated
from tests.fixtures import sent
from tests.library_code import is_library_code
from tests.racing import process, race
from tests.reference.fixtures import ASK, KEY, NOW, access, append, hop, random_access, random_token, verifier
from tests.stores.begun import begun

ROUNDS = 1000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hurried():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def nonces(count, start=0):
    return [proof(CHILD, nonce=(start + number).to_bytes(16, "big")) for number in range(count)]


def once_each(rounds, of):
    """Was each proof allowed to one, and replayed to the others?"""
    return all(sorted(codes) == ["allowed"] + ["replayed"] * (of - 1) for codes in rounds)


def test_h1_of_32_threads_one_is_allowed_in_memory(hurried):
    """H1, I1: 1,000 rounds of 32 threads that present one proof at the same moment: exactly one of them is allowed."""
    rounds = race(server(), CHILD, access(ASK), nonces(ROUNDS), 32)
    assert len(rounds) == ROUNDS and once_each(rounds, 32)


def test_h1_of_32_threads_one_is_allowed_by_a_file(tmp_path):
    """H1, I1: 60 rounds of 32 threads on one SQLite file, half of them after it was closed and opened again; and each proof is
    still known to a store that is opened later."""
    proofs, ask = nonces(60), access(ASK)
    for half in (proofs[:30], proofs[30:]):
        with closing(begun(SQLiteReplayStore, tmp_path / "proofs.db")) as store:
            assert once_each(race(server(replays=store), CHILD, ask, half, 32), 32)
    with closing(begun(SQLiteReplayStore, tmp_path / "proofs.db")) as store:
        again = server(replays=store)
        assert {again.check(sent(CHILD, made), ask).code for made in proofs} == {"replayed"}


def test_h1_of_four_processes_one_thread_is_allowed(tmp_path):
    """H1, I1: 40 rounds of four fresh processes of eight threads each, at one gate, on one file: exactly one of 32 is allowed."""
    spawn, proofs, path = multiprocessing.get_context("spawn"), nonces(40), str(tmp_path / "proofs.db")
    gate, ends = spawn.Barrier(4), []
    for _ in range(4):
        mine, theirs = spawn.Pipe(duplex=False)
        one = spawn.Process(target=process, args=(path, KEY, AUDIENCE, NOW, CHILD, ASK, proofs, 8, gate, theirs))
        one.start()
        theirs.close()
        ends.append((one, mine))
    told = [mine.recv() if mine.poll(120) else [] for _, mine in ends]
    for one, mine in ends:
        one.join(60)
        mine.close()
        assert one.exitcode == 0
        one.close()
    rounds = [[code for one in codes for code in one] for codes in zip(*told, strict=True)]
    assert len(rounds) == 40 and once_each(rounds, 32)


def test_i1_a_store_that_fails_in_the_midst_of_a_race_allows_no_second_use(hurried):
    """H1, G2: 200 rounds of 16 threads on a store that raises every third time, before or after it remembers: at most one."""

    class Flaky(MemoryReplayStore):
        calls = 0

        def add(self, use, now):
            self.calls += 1
            kind = self.calls % 6
            if kind == 0:
                raise OSError("before")
            first = super().add(use, now)
            if kind == 3:
                raise OSError("after")
            return first

    rounds = race(server(replays=Flaky(floor=0)), CHILD, access(ASK), nonces(200), 16)
    assert all(codes.count("allowed") <= 1 and set(codes) <= {"allowed", "replayed", "store_unavailable"} for codes in rounds)
    assert sum(codes.count("allowed") for codes in rounds) > 50


# ---- I2: killed between the check and the answer -------------------------------------------------------------------

SERVING = """
import sys
from captoken.stores.sqlite import SQLiteReplayStore
from tests.bound import CHILD, server
from tests.reference.fixtures import ASK, access
from tests.stores.begun import begun
from tests.fixtures import sent
one = server(replays=begun(SQLiteReplayStore, sys.argv[1]))
for line in sys.stdin:
    print(one.check(sent(CHILD, line.strip()), access(ASK)).code, flush=True)
"""


def test_i2_a_proof_that_was_accepted_is_used_though_the_server_is_killed(tmp_path):
    """I2: five servers, killed with -9 right after an answer and with requests under way: what was allowed is replayed at the
    next one, and what was not answered is allowed at most once."""
    path, ask = str(tmp_path / "proofs.db"), access(ASK)
    for number in range(5):
        proofs = nonces(20, 100 * number)
        command = [sys.executable, "-c", SERVING, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            process.stdin.write("\n".join(proofs) + "\n")
            process.stdin.flush()
            answers = [process.stdout.readline().strip() for _ in range(number + 1)]
            process.send_signal(signal.SIGKILL)
            answers += process.stdout.read().split()
        assert set(answers) == {"allowed"} and process.returncode == -signal.SIGKILL
        with closing(begun(SQLiteReplayStore, path)) as store:
            after = [server(replays=store).check(sent(CHILD, made), ask).code for made in proofs]
            assert after[: len(answers)] == ["replayed"] * len(answers)
            assert after[len(answers) + 1 :] == ["allowed"] * (19 - len(answers)) and set(after) <= {"allowed", "replayed"}
            assert {server(replays=store).check(sent(CHILD, made), ask).code for made in proofs} == {"replayed"}


# ---- I3: forks -----------------------------------------------------------------------------------------------------

FORKING = """
import json, os, sys
from captoken import Token
from captoken.keys import DischargerKey
from captoken.keys import HolderKey
from tests.bound import AUDIENCE, CHILD, SALES_AGENT, holder
from tests.fixtures import KEYRING, SALES, WHO, prove, sent
from captoken import Issuer
issuer, key, token = Issuer(KEYRING), holder(SALES_AGENT), Token.parse(CHILD)
HolderKey.generate(), issuer.mint(**WHO, **SALES), prove(CHILD, key, audience=AUDIENCE)  # everything is warm before the fork
readers = []
for number in range(3):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        break
    os.close(writer)
    readers.append((child, reader))
else:
    child, writer = None, None
made = {
    "ids": [issuer.mint(**WHO, **SALES).unverified.root.token_id for _ in range(int(sys.argv[1]))],
    "hops": [issuer.mint(**WHO, **SALES).delegate(to="b").unverified.bodies[1].decode() for _ in range(int(sys.argv[1]) // 5)],
    "nonces": [prove(CHILD, key, audience=AUDIENCE)[16:39] for _ in range(int(sys.argv[1]) // 5)],
    "keys": [HolderKey.generate().public for _ in range(200)] + [DischargerKey.generate().public for _ in range(200)],
}
if child == 0:
    with os.fdopen(writer, "w") as out:
        json.dump(made, out)
    os._exit(0)
for one, reader in readers:
    with os.fdopen(reader) as stream:
        for name, values in json.load(stream).items():
            made[name] += values
    assert os.waitpid(one, 0)[1] == 0
print(json.dumps({name: [len(values), len(set(values))] for name, values in made.items()}))
"""


def test_i3_after_a_fork_nothing_random_is_the_same():
    """I3: a parent and three children that were forked when everything was warm: 10,000 token ids, 2,000 nonces of hand-overs,
    2,000 of proofs and 1,600 keys, none twice."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, "2500"], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        name: [count, count] for name, count in (("ids", 10000), ("hops", 2000), ("nonces", 2000), ("keys", 1600))
    }


SHARED = """
import os, sys
from captoken.stores.sqlite import SQLiteReplayStore
from tests.bound import CHILD, proof, server
from tests.reference.fixtures import ASK, access
from tests.stores.begun import begun
from tests.fixtures import sent
one = server(replays=begun(SQLiteReplayStore, sys.argv[1]))
proofs = [proof(CHILD, nonce=bytes([number]) * 16) for number in range(40)]
assert one.check(sent(CHILD, proof(CHILD)), access(ASK)).code == "allowed"  # the file is open, the hand-over is remembered
children = []
for _ in range(3):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, bytes(one.check(sent(CHILD, made), access(ASK)).code == "allowed" for made in proofs))
        os._exit(0)
    os.close(writer)
    children.append((child, reader))
rows = [bytes(one.check(sent(CHILD, made), access(ASK)).code == "allowed" for made in proofs)]
for child, reader in children:
    rows.append(os.read(reader, 100))
    assert os.waitpid(child, 0)[1] == 0
print([sum(column) for column in zip(*rows, strict=True)] == [1] * 40)
"""


def test_i3_a_server_that_forks_takes_each_proof_once(tmp_path):
    """I3, H1: a server is forked with its file open, three times; of the four that then take forty proofs one allows each."""
    ran = subprocess.run(
        [sys.executable, "-c", SHARED, str(tmp_path / "proofs.db")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "True"), ran.stderr


# ---- I4: one verifier for all --------------------------------------------------------------------------------------


def work(rng, count):
    """Texts, accesses and proofs of every kind: bearer and bound, good and not."""
    keys, made = list(KEYS.items()), []
    for number in range(count):
        token_text, given, ask = random_token(rng), None, access(random_access(rng))
        if rng.random() < 0.6:
            token_text, key = rng.choice(keys)
            nonce = number.to_bytes(16, "big")
            ask = access(rng.choice([ASK, ASK, ASK, {"table": "hr", "operation": "select"}]))
            given = rng.choice([None, "cap1p_", *[proof(token_text, rng.choice([key, key, key, EU_AGENT]), nonce=nonce)] * 6])
            token_text = rng.choice([token_text, token_text, token_text, append(token_text, hop("b")), token_text[:-3]])
        made.append((token_text, ask, given))
    return made


def outcome(one, text, ask, given):
    """All that a decision says, without what it was asked."""
    decision = one.explain(sent(text, given), ask)
    known = decision.attribution
    return decision.code, decision.refusals, known and [(actor.name, actor.basis) for actor in known.chain]


def in_threads(run, count):
    threads = [Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_i4_one_verifier_in_32_threads_decides_as_alone(hurried):
    """I4: 32 threads share one verifier and decide 32 x 250 requests, bearer and bound, as one thread decides them; nothing is
    committed, so that the proofs can be the same."""
    rng = random.Random(20260707)
    tasks, one = work(rng, 250), server(allow_unaddressed=True)
    alone = [outcome(one, *task) for task in tasks]
    rows = {}

    def run(number):
        order = list(range(len(tasks)))
        random.Random(number).shuffle(order)
        rows[number] = {at: outcome(one, *tasks[at]) for at in order}

    in_threads(run, 32)
    assert len(rows) == 32 and all([row[at] for at in range(len(tasks))] == alone for row in rows.values())
    assert {"allowed", "bad_proof", "proof_missing", "table"} <= {code for code, _, _ in alone}


def test_i4_hand_overs_checked_in_many_threads_are_checked_right(hurried):
    """I4: what one thread has found to hold, another does not take for what it looks at: 16 threads, 40 chains, every second of
    them forged, on a verifier that remembers three."""
    chains = []
    for number in range(40):
        good = handed(bound(iat=NOW - number), ORCHESTRATOR, f"agent-{number}", EU_AGENT)
        chains.append((good, "allowed"))
        chains.append((handed(bound(iat=NOW - number), EU_AGENT, f"agent-{number}", EU_AGENT), "bad_proof"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captoken._verification.memory.STATES_REMEMBERED", 3)
        one = server()
    wrong = []

    def run(seed):
        order = chains[:]
        random.Random(seed).shuffle(order)
        for text, expected in order:
            if one.explain(sent(text, proof(text, EU_AGENT)), access(ASK)).code != expected:
                wrong.append((seed, text))

    in_threads(run, 16)
    assert wrong == []


# ---- I5: interrupted anywhere --------------------------------------------------------------------------------------


class Interrupt:
    """Raises KeyboardInterrupt at the n-th step of captoken's own code: a call or a return, also of what it calls in C.

    But not where Python itself lets no signal in: before a lock is released, and while a generator hands out a value or is
    closed.
    """

    def __init__(self, at):
        self.left = at

    def __call__(self, frame, event, argument):
        code, called = frame.f_code, getattr(argument, "__name__", "")
        spared = called == "__exit__" or (code.co_flags & inspect.CO_GENERATOR and event in ("call", "return"))
        if not spared and (is_library_code(code) or code.co_filename == contextlib.__file__):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def interrupted(call, at):
    """What `call` gives when it is interrupted at its n-th step: its answer, or KeyboardInterrupt."""
    before = sys.getprofile()
    sys.setprofile(Interrupt(at))
    try:
        return call()
    except KeyboardInterrupt:
        return KeyboardInterrupt
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_i5_an_interrupt_anywhere_allows_nothing_twice(kind, tmp_path):
    """I5: KeyboardInterrupt at each call and each return of a verification, hundreds of them, one after the other: never an answer
    that is not the right one, no lock held, no transaction open, and the proof counts at most once."""
    ask = access(ASK)
    store = MemoryReplayStore(floor=0) if kind == "memory" else begun(SQLiteReplayStore, tmp_path / "proofs.db", timeout=0)
    with closing(store) if kind == "sqlite" else nullcontext():
        if kind == "sqlite":
            store._connection.execute("pragma synchronous = off")  # the disk is not what is tried here
        one = server(replays=store)
        assert one.check(sent(GRANDCHILD, proof(GRANDCHILD)), ask).code == "allowed"
        for at in range(1, 5000):
            made = proof(GRANDCHILD, nonce=at.to_bytes(16, "big"))
            first = interrupted(lambda made=made: one.check(sent(GRANDCHILD, made), ask).code, at)
            if first == "allowed":
                break
            assert first is KeyboardInterrupt
            assert one.check(sent(GRANDCHILD, made), ask).code in ("allowed", "replayed")
            assert one.check(sent(GRANDCHILD, made), ask).code == "replayed"
        assert first == "allowed" and 200 < at < 5000, "interrupted at every step, and then at none"


@pytest.mark.parametrize("kind", ["refused", "forged", "without proof"])
def test_i5_an_interrupt_never_turns_a_denial_round(kind):
    """I5: the same at each step of three requests that are to be denied: interrupted or denied, and never allowed."""
    made = {
        "refused": (GRANDCHILD, {"table": "hr", "operation": "select"}, "table"),
        "forged": (handed(TOKEN, EU_AGENT, "b", EU_AGENT), ASK, "bad_proof"),
        "without proof": (TOKEN, ASK, "proof_missing"),
    }
    text, facts, code = made[kind]
    given = None if code == "proof_missing" else proof(text, EU_AGENT, stated(facts))
    one, ask = server(), access(facts)
    for at in range(1, 5000):
        got = interrupted(lambda: one.check(sent(text, given), ask).code, at)
        if got is not KeyboardInterrupt:
            break
    assert got == code and 100 < at < 5000


def test_i5_collecting_garbage_at_every_allocation_changes_nothing():
    """I5: with the collector at its most eager, thirty proofs, each allowed and then replayed."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        one = server()
        for made in nonces(30):
            assert [one.check(sent(CHILD, made), access(ASK)).code for _ in range(2)] == ["allowed", "replayed"]
    finally:
        gc.set_threshold(*before)


def test_i5_a_signal_handler_that_verifies_does_not_wait_for_the_store_it_interrupted(tmp_path):
    """I5: a signal that arrives between requests is served like any other request."""
    one, ask, told = server(), access(ASK), []
    first, second = nonces(2)
    before = signal.signal(signal.SIGUSR1, lambda *_: told.append(one.check(sent(CHILD, second), ask).code))
    try:
        assert one.check(sent(CHILD, first), ask).code == "allowed"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.check(sent(CHILD, first), ask).code == "replayed"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told == ["allowed"]


def test_a_bearer_token_is_decided_alike_with_and_without_a_store():
    """Control: nothing of all this touches a token that is bound to no key."""
    rng = random.Random(20260708)
    plain, stored = verifier(), verifier(replays=MemoryReplayStore(floor=0))
    tasks = [(random_token(rng), access(random_access(rng))) for _ in range(300)]
    assert [plain.check(*task).code for task in tasks] == [stored.check(*task).code for task in tasks]
