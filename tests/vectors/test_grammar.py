"""The grammar of the specification takes what verifies, and what it does not take is refused."""

import re

import pytest

from captoken._format.packet import decode
from spec.generate.anatomy import SPECIFICATION
from spec.generate.build import unb64
from tests.vectors import runner
from tests.vectors.abnf import Grammar

GRAMMAR = Grammar("\n".join(re.findall(r"```abnf\n(.*?)```", SPECIFICATION.read_text(encoding="utf-8"), re.DOTALL)))
VECTORS = [runner.given(vector) for vector in runner.vectors()]
LONGEST = 2500  # of what is looked at: what is longer takes long


def passes(vector):
    return vector["expect"]["code"] in runner.PASSING


def texts(kind, field):
    return [(vector, vector[field]) for vector in VECTORS if vector["kind"] == kind and len(vector[field]) <= LONGEST]


def parts(token):
    """The root record and the links of a token as text; those that are none are left out."""
    packet = decode(unb64(token.partition(".")[0].removeprefix("cap1_")), 2048)
    found = [("root", packet.identifier), *(("ticket" if vid else "link", cid) for cid, vid in packet.caveats)]
    for rule, raw in found:
        try:
            yield rule, raw.decode()
        except UnicodeDecodeError:
            continue


def test_every_rule_is_there_and_is_used():
    """One that is named and not there is a KeyError when the grammar is read."""
    starts = {"held", "macaroon", "root", "link", "ticket", "in-the-box", "overlay", "recall", "key-file", "keyring", "trail"}
    assert GRAMMAR.rules.keys() - GRAMMAR.named == starts


def test_what_is_allowed_is_of_the_grammar():
    """One text of each rule that vectors cite, and the root record and the links in it."""
    first = {}
    for vector, text in texts("decision", "token"):
        if passes(vector):
            first.setdefault(vector["rule"], (vector, text))
    assert len(first) > 100
    for vector, text in first.values():
        assert GRAMMAR.takes("presented", text), vector["name"]
        for rule, said in parts(text):
            # A verifier reads no ticket, so that another library's may be anything (32.4).
            assert rule == "ticket" or GRAMMAR.takes(rule, said), (vector["name"], said)


@pytest.mark.parametrize(
    ("kind", "field", "rule"),
    [("holding", "token", "held"), ("snapshot", "snapshot", "overlay"), ("recall", "request", "recall"), ("trail", "trail", "trail"),
     ("discharge", "ticket", "ticket")],
)  # fmt: skip
def test_what_passes_is_of_the_grammar(kind, field, rule):
    found = [(vector, text) for vector, text in texts(kind, field) if passes(vector)]
    found = [(vector, text.encode("latin-1").decode() if rule in ("overlay", "trail") else text) for vector, text in found]
    assert len(found) >= 3
    assert [vector["name"] for vector, text in found if not GRAMMAR.takes(rule, text)] == []


def test_key_files_that_pass_are_of_the_grammar():
    files = [vector for vector, _ in texts("key_file", "content")]
    taken = {v["name"] for v in files if GRAMMAR.takes("keyring" if v["purpose"] == "keyring" else "key-file", v["content"])}
    assert {v["name"] for v in files if passes(v)} <= taken
    assert len(taken) < len(files) / 2


def test_deltas_that_pass_are_of_the_grammar():
    rows = [v for v in VECTORS if v["kind"] == "delta" and passes(v)]
    texts_ = ["\n".join((v["known"], *v["deltas"])).encode("latin-1").decode() for v in rows]
    assert len(rows) >= 10 and all(GRAMMAR.takes("overlay", text) for text in texts_ if len(text) <= LONGEST)


def test_texts_that_are_spelled_otherwise_are_not_of_the_grammar():
    spelled = {"1.1", "1.2", "1.3", "8.1", "30.1"}
    rows = [(v, text) for v, text in texts("decision", "token") if v["rule"] in spelled and v["expect"]["code"] == "malformed"]
    assert len(rows) >= 80
    # A proof that is called a discharge, or follows on base64url without a full stop: its bytes tell.
    assert {v["name"] for v, text in rows if GRAMMAR.takes("presented", text)} == {
        "discharges_with_a_proof_in_the_discharge", "proof_of_possession_prefix_of_a_discharge",
        "proof_of_possession_text_joined_to_the_token",
    }  # fmt: skip


def test_json_that_is_spelled_otherwise_is_not_of_the_grammar():
    """White space, numbers and strings in another spelling: the root record or the link is not taken."""
    spelled = {"2.3", "2.4", "2.5"}
    rows = [(v, text) for v, text in texts("decision", "token") if v["rule"] in spelled and not passes(v)]
    assert len(rows) >= 40
    assert [v["name"] for v, text in rows if all(GRAMMAR.takes(rule, said) for rule, said in parts(text))] == []


@pytest.mark.parametrize(
    ("rule", "text", "taken"),
    [("a", "b", True), ("a", "bb", False), ("c", "bc", True), ("c", "bbbc", True), ("c", "bbbbc", False), ("d", "xbx", True),
     ("d", "xx", True), ("d", "x", False), ("e", "bz", True), ("e", "z", False), ("f", "AB", True), ("f", "A", False)],
)  # fmt: skip
def test_how_a_grammar_is_read(rule, text, taken):
    made = Grammar('''
    a = %s"b"   ; "a" comment
    c = 1*3a ( %s"c" / %s"d" )
    d = %s"x"
        [ a ] %s"x"
    e = 2b / a %x7A
    b = %s"q"
    f = %x41.42
    ''')
    assert made.takes(rule, text) is taken
