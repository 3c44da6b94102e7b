"""The models as data: each claim has a variant that falls, each clause is one, each word is known. Needs no prover.

Whether the claims hold is for the provers: `python -m spec.models`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from captoken import Issuer
from captoken import proof as possession
from captoken._format import chain, primitives
from captoken._format.parts import Packet
from captoken._format.text import packet_of
from captoken.keys import PairwiseKey
from spec.models import __main__ as command
from spec.models import chain as model
from spec.models import coq, custody, discharge, horn, keys, proof, spin, terms, traces
from spec.models.cases import Broken, Reach, Secure, World
from spec.models.report import Outcome

CASES = [case for family in horn.FAMILIES.values() for case in family]
SECURE = [case for case in CASES if isinstance(case, Secure)]
WORLDS = [world for case in CASES for world, _, _ in horn.variants(case)]


def named(values: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", values, ids=lambda case: case.name)


# --- reading TPTP ----------------------------------------------------------------------------------------------------

Tree = tuple[str, list[Any]]  # a symbol or a variable, and its arguments
_token = re.compile(r"[A-Za-z][A-Za-z0-9_]*|[(),|~=]")


def tokens_of(text: str) -> list[str]:
    tokens = _token.findall(text)
    assert "".join(tokens) == text, f"something that is no TPTP: {text}"
    return tokens


def term(tokens: list[str]) -> Tree:
    """The term that the tokens begin with, which are used up."""
    name, arguments = tokens.pop(0), []
    assert name[0].isalpha(), name
    if tokens[:1] == ["("]:
        while tokens.pop(0) != ")":
            arguments.append(term(tokens))
            assert tokens[0] in ",)", tokens
    return name, arguments


def literals(clause: str) -> list[tuple[bool, list[Tree]]]:
    """The literals of a clause: positive or not, and the atom, or both sides of an equation."""
    tokens, found = tokens_of(clause), []
    while True:
        positive = tokens[0] != "~"
        if not positive:
            tokens.pop(0)
        sides = [term(tokens)]
        if tokens[:1] == ["="]:
            tokens.pop(0)
            sides.append(term(tokens))
        found.append((positive, sides))
        if not tokens:
            return found
        assert tokens.pop(0) == "|"


def spelled(tree: Tree) -> str:
    name, arguments = tree
    return f"{name}({','.join(map(spelled, arguments))})" if arguments else name


def subterms(tree: Tree) -> list[Tree]:
    return [tree, *(inner for argument in tree[1] for inner in subterms(argument))]


CONSTANTS = terms.PUBLIC.keys() | terms.SECRET.keys() | terms.NUMBERS.keys()


def check_term(tree: Tree) -> None:
    for name, arguments in subterms(tree):
        if name[0].isupper():
            assert not arguments, name
        elif arguments:
            assert terms.FUNCTIONS.get(name) == len(arguments), name
        else:
            assert name in CONSTANTS, name


def check_clause(clause: str) -> None:
    """Horn, and in words that are written down."""
    found = literals(clause)
    assert sum(positive for positive, _ in found) == 1, clause
    for _, sides in found:
        if len(sides) == 2:
            for side in sides:
                check_term(side)
        else:
            name, arguments = sides[0]
            assert terms.PREDICATES.get(name) == len(arguments), name
            for argument in arguments:
                check_term(argument)


def predicates(world: World) -> set[str]:
    """The predicates that some clause concludes."""
    return {sides[0][0] for rule in (*terms.ATTACKER, *world.rules) for positive, sides in literals(rule) if positive}


def words(*texts: str) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z][A-Za-z0-9_]*", text)}


@named(WORLDS)
def test_every_clause_is_horn_and_spelled_in_known_words(case: World) -> None:
    for clause in (*terms.ATTACKER, *case.rules, case.goal):
        check_clause(clause)


@named(WORLDS)
def test_the_problem_is_one_clause_a_line(case: World) -> None:
    lines = case.problem().splitlines()
    assert all(re.fullmatch(r"cnf\(\w+,(axiom|negated_conjecture),\(.+\)\)\.", line) for line in lines)
    assert all(line.count("(") == line.count(")") for line in lines)
    assert [line for line in lines if "negated_conjecture" in line] == [f"cnf(goal,negated_conjecture,(~{case.goal}))."]
    assert len({line.split(",")[0] for line in lines}) == len(lines) == len(terms.ATTACKER) + len(case.rules) + 1


@named(WORLDS)
def test_the_goal_is_one_that_something_could_conclude(case: World) -> None:
    """A goal about a predicate that no clause concludes would be out of reach whatever the protocol is."""
    assert literals(case.goal)[0][1][0][0] in predicates(case)


@pytest.mark.parametrize(
    "clause", ["att(kroof)", "att(mac(kroot))", "at(kroot)", "att(mac(kroot,zero)", "att(K)|att(M)", "~att(K)"]
)
def test_a_slip_is_found(clause: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_clause(clause)


# --- cases -----------------------------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [world.name for world in WORLDS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_what_is_claimed_is_said_once() -> None:
    claims = [case.claim for case in CASES]
    assert len(set(claims)) == len(claims)


def test_a_claim_without_a_broken_variant_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="no broken variant"):
        Secure(name="n", claim="c", rules=(), goal="att(kroot)", broken=())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="broken"):
        Secure(name="n", claim="c", rules=(), goal="att(kroot)")  # type: ignore[call-arg]


@named(SECURE)
def test_broken_variants_are_named_for_their_case_and_differ_from_it(case: Secure) -> None:
    """And ask the same question: the goal is of the same predicate."""
    assert case.broken
    for broken in case.broken:
        assert isinstance(broken, Broken) and broken.fault
        assert broken.name.startswith(f"{case.name}_")
        assert broken.problem() != case.problem()
        assert broken.goal.split("(")[0] == case.goal.split("(")[0]


@named(SECURE)
def test_no_claim_is_given_away(case: Secure) -> None:
    """No clause says outright that the goal is reached."""
    assert case.goal not in case.rules
    assert terms.at(case.goal) not in {terms.at(rule) for rule in case.rules}


def test_there_are_as_many_as_there_should_be() -> None:
    """Twelve claims and five attacks were the least."""
    assert len(SECURE) >= 40
    assert len(WORLDS) - len(SECURE) >= 60
    assert {family for family, cases in horn.FAMILIES.items() if not any(isinstance(case, Reach) for case in cases)} == set()


def test_no_word_is_idle() -> None:
    used = words(*(text for world in WORLDS for text in (*world.rules, world.goal)))
    assert (CONSTANTS | terms.FUNCTIONS.keys() | terms.PREDICATES.keys()) - used == set()


# --- the messages of the models are those of the code ----------------------------------------------------------------

TAG, BEFORE, CID, VID = (bytes([number]) * 32 for number in (1, 2, 3, 4))
LABELS = {
    "lgen": b"macaroons-key-generator",
    "zero": bytes(32),
    **{f"l{purpose}": primitives.label(purpose) for purpose in ("state", "link", "audience", "custody", "proof", "pairwise")},
}


def bytes_of(text: str, known: dict[str, bytes]) -> bytes:
    """What a term stands for: pairs are joined, `mac` and `h` computed, and everything else is looked up."""
    tokens = tokens_of(text)
    tree = term(tokens)
    assert not tokens
    return computed(tree, LABELS | known)


def computed(tree: Tree, known: dict[str, bytes]) -> bytes:
    name, arguments = tree
    if spelled(tree) in known:
        return known[spelled(tree)]
    parts = [computed(argument, known) for argument in arguments]
    match name, parts:
        case "pair", [first, second]:
            return first + second
        case "h", [message]:
            return primitives.sha256(message)
        case "mac", [key, message]:
            return primitives.hmac_sha256(key, message)
    raise AssertionError(f"no bytes are given for {spelled(tree)}")


def test_tags_are_those_of_the_code() -> None:
    key = bytes(range(32))
    known = {"kroot": key, "id(N)": b"{}", "csales": b'{"tables":["sales"]}', "vid": VID, "cid": CID, "tag": TAG}
    first = chain.mint_tag(chain.derive(key), b"{}")
    assert bytes_of(model.ROOT, known) == first
    assert bytes_of(model.SALES, known) == chain.link_tag(first, b'{"tables":["sales"]}')
    assert bytes_of(terms.third_party("tag", "vid", "cid"), known) == chain.third_party_tag(TAG, VID, CID)


def test_names_and_keys_are_those_of_the_code() -> None:
    known = {"tag": TAG, "kroot": BEFORE, "here": b"sales-db"}
    assert bytes_of(terms.state("tag"), known) == primitives.state(TAG)
    assert bytes_of(terms.link_id("tag"), known)[:16] == primitives.link_id(TAG)
    assert bytes_of(keys.HERE, known) == primitives.audience_key(BEFORE, "sales-db")


def test_discharges_are_those_of_the_code() -> None:
    caveat_key, ticket, end = BEFORE, CID, b'{"exp":1}'
    known = {"tag": TAG, "ticket": ticket, discharge.KEY: caveat_key, "cexp": end}
    answered = chain.link_tag(chain.mint_tag(chain.derive(caveat_key), ticket), end)
    assert bytes_of(discharge.discharge("ticket"), known) == answered
    assert bytes_of(discharge.bind("tag", discharge.discharge("ticket")), known) == chain.bind(TAG, answered)


def test_what_is_signed_is_that_of_the_code() -> None:
    known = {"tag": TAG, "body": b'{"key":"K"}'}
    assert bytes_of(custody.message(terms.state("tag"), "body"), known) == possession.custody_message(
        primitives.state(TAG), b'{"key":"K"}'
    )
    made = {"token": "tag", "audience": "here", "time": "early", "nonce": "unused", "request": "asked"}
    known |= {"here": b"sales-db", "early": (7).to_bytes(8, "big"), "unused": bytes(16), "asked": CID}
    signed = proof.proof(made).removeprefix("sign(kholder,").removesuffix(")")
    asked: list[bytes] = []

    class Asked:
        """A signer that keeps what it was asked to sign."""

        public = ""

        def sign(self, message: bytes) -> bytes:
            asked.append(message)
            return bytes(64)

    packet = Packet(b"", (), TAG)
    possession.prove(packet, Asked(), "sales-db", CID, lambda: 7, bytes)
    assert asked == [bytes_of(signed, known)]


def test_pairwise_keys_are_those_of_the_code() -> None:
    """By a token that is minted: its signature is what the model says. HKDF ends its info with a byte 01."""
    issuer, server = PairwiseKey(bytes(range(32))), PairwiseKey(bytes(range(1, 33)))
    keyring = issuer.issuing(server=server.public, audience="sales-db")
    packet = packet_of(Issuer(keyring).mint(subject="s", agent="a", task="t", unrestricted=True).serialize())
    public = {name: primitives.exchange_public(key.reveal()) for name, key in (("kissuer", issuer), ("kserver", server))}
    shared = primitives.shared_secret(issuer.reveal(), public["kserver"])
    assert shared is not None
    known = {f"pk({name})": key for name, key in public.items()} | {
        "dh(kissuer,kserver)": shared,
        "here": b"sales-db\x01",
        "id(N)": packet.identifier,
        "csales": packet.caveats[0][0],
    }
    tag = bytes_of(terms.mac(terms.first_tag(key=keys.KEY), "csales"), known)
    for cid, _ in packet.caveats[1:]:
        tag = chain.link_tag(tag, cid)
    assert tag == packet.signature


# --- theorems --------------------------------------------------------------------------------------------------------

SOURCES = {file: (coq.FOLDER / f"{file}.v").read_text("ascii") for file in coq.FILES}


def test_every_theorem_of_the_files_is_asked_about_and_no_other() -> None:
    in_files = {(file, name) for file, text in SOURCES.items() for name in re.findall(r"^ *Theorem (\w+)", text, re.MULTILINE)}
    asked = [(theorem.file, theorem.name) for theorem in coq.theorems()]
    assert sorted(asked) == sorted(in_files)


@pytest.mark.parametrize("file", coq.FILES)
def test_nothing_is_assumed_in_them(file: str) -> None:
    """coqc is asked about each theorem; this finds the words that would make it say so."""
    assert not re.findall(r"\b(Axiom|Admitted|admit|Parameter|Conjecture|Abort)\b", SOURCES[file])


def test_every_claim_about_chains_has_theorems_about_its_faults() -> None:
    assert all(claim.broken and all(broken.file == "Broken" for broken in claim.broken) for claim in coq.CLAIMS)


# --- searches ---------------------------------------------------------------------------------------------------------

SEARCHES = {path.stem: path.read_text("ascii") for path in spin.FOLDER.glob("*.pml")}
QUESTIONS = list(spin.questions())


def asked_of(text: str) -> set[str]:
    """The macros that a model depends on."""
    conditions = re.findall(r"^#(?:if|ifdef|ifndef|elif)\b(.*)$", text, re.MULTILINE)
    return {word for condition in conditions for word in re.findall(r"[A-Z][A-Z_]+", condition)}


@pytest.mark.parametrize("model", SEARCHES)
def test_every_macro_of_a_model_is_asked_about_and_no_other(model: str) -> None:
    """A macro that is misspelled on either side would change nothing, and a fault that changes nothing shows nothing."""
    asked = {macro for question in QUESTIONS if question.model == model for macro in question.macros}
    traced = {"TRACE"} if (spin.FOLDER / f"{model}.runs").exists() else set[str]()
    assert asked | traced == asked_of(SEARCHES[model])


def test_every_model_makes_a_claim_and_shows_something_that_happens() -> None:
    assert {claim.model for claim in spin.CLAIMS} == SEARCHES.keys() == {model for model, _ in spin.REACHED}
    assert all(claim.broken for claim in spin.CLAIMS)


def test_searches_are_named_and_claimed_once() -> None:
    names = [question.name for question in QUESTIONS]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z_]+", name) for name in names)
    assert len({claim.asks.says for claim in spin.CLAIMS}) == len(spin.CLAIMS)


@pytest.mark.parametrize("model", SEARCHES)
def test_every_question_turns_on_an_assertion_of_its_own(model: str) -> None:
    """One at a time, right after the macro that asks it."""
    asks = {claim.asks.macro for claim in spin.CLAIMS if claim.model == model}
    asks |= {reached.macro for where, reached in spin.REACHED if where == model}
    turned_on = re.findall(r"^#ifdef (\w+)\n\s*assert\(", SEARCHES[model], re.MULTILINE)
    assert sorted(turned_on) == sorted(asks) and SEARCHES[model].count("assert(") == len(asks)


SEARCHED = "Full statespace search for:\n\tassertion violations\t+\nState-vector 36 byte, depth reached 64, errors: 0\n"
FAILED = "pan:1: assertion violated (n<=1) (at depth 9)\nWarning: Search not completed\n"
FOUND = FAILED + SEARCHED.replace("errors: 0", "errors: 1")


@pytest.mark.parametrize(
    ("prints", "answer"),
    [
        (SEARCHED, "secure"),
        (FOUND, "attack"),
        ("", "undecided"),
        ("error: max search depth too small\n" + SEARCHED, "undecided"),
        ("pan: out of memory\n" + SEARCHED, "undecided"),
        ("Warning: Search not completed\n" + SEARCHED, "undecided"),
        (SEARCHED.replace("Full statespace", "Bit statespace"), "undecided"),
        (FOUND.replace("assertion violated (n<=1)", "invalid end state"), "undecided"),
        (SEARCHED.replace("errors: 0", "errors: 0 or so"), "undecided"),
    ],
)
def test_only_a_whole_search_is_an_answer(prints: str, answer: str) -> None:
    assert spin.answer_of(prints) == answer


def test_a_search_that_does_not_compile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool, says in (("spin", "syntax error"), ("gcc", "never run")):
        (tmp_path / tool).write_text(f"#!/bin/sh\necho {says}\nexit 1\n", "ascii")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = next(spin.run())
    assert not outcome.passed and outcome.said == {"spin": "undecided"} and outcome.detail == "syntax error\n"


# --- the runner ------------------------------------------------------------------------------------------------------


def prover(prints: str) -> horn.Prover:
    return horn.Prover("P", (sys.executable, "-c", f"print({prints!r})"), saturated="no goal", refuted="goal!")


@pytest.mark.parametrize(
    ("prints", "answer"),
    [
        ("no goal", "secure"),
        ("goal!", "attack"),
        ("no goal goal!", "undecided"),
        ("", "undecided"),
        ("out of time", "undecided"),
    ],
)
def test_what_a_prover_prints_is_read_as_one_answer_or_none(tmp_path: Path, prints: str, answer: str) -> None:
    assert prover(prints).ask(tmp_path / "problem.p") == answer


def test_a_prover_that_is_missing_says_nothing_about_a_case(tmp_path: Path) -> None:
    missing = horn.Prover("P", ("no-prover-of-this-name",), saturated="", refuted="")
    assert missing.ask(tmp_path / "problem.p") == "missing"


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ({"E": "secure", "SPASS": "secure"}, True),
        ({"E": "secure", "SPASS": "attack"}, False),
        ({"E": "secure", "SPASS": "undecided"}, False),
        ({"E": "secure", "SPASS": "missing"}, False),
        ({"E": "attack", "SPASS": "attack"}, False),
        ({}, False),
    ],
)
def test_a_case_passes_if_all_provers_say_what_was_expected(said: dict[str, str], passed: bool) -> None:
    outcome = Outcome("case", "claim", "secure", said, 0.5)
    assert outcome.passed is passed
    assert outcome.line().startswith("ok" if passed else "FAILED")


def test_provers_that_are_missing_fail_every_case_and_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["spec.models"])
    assert command.main() == 1
    out = capsys.readouterr().out
    assert "not installed: E, SPASS, coqc, coqchk, gcc, spin (" in out
    asked = len(WORLDS) + len(coq.FILES) + len(list(coq.theorems())) + len(QUESTIONS) + len(traces.MODELS)
    assert f"0 passed, {asked} failed" in out


def test_one_part_alone_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(horn, "PROVERS", (prover("no goal"),))
    monkeypatch.setattr(horn, "FAMILIES", {"one": (SECURE[0],)})
    monkeypatch.setattr(sys, "argv", ["spec.models", "--only", "horn"])
    assert command.main() == 1
    assert f"1 passed, {len(SECURE[0].broken)} failed" in capsys.readouterr().out
