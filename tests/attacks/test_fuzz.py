"""B6 at the size of CI: seeded random and mutated bytes and texts. Decoding garbage raises TokenFormatError and nothing else,
and `check` never raises."""

from collections import Counter

import pytest

from captoken import Access, Caller, Decision, Denied, Token, TokenFormatError, interop
from captoken._format.packet import decode, encode
from tests.longer import drawing, times
from tests.reference import evaluator
from tests.reference.fixtures import (
    ASK,
    KEY,
    NOW,
    ROOT,
    SALES,
    access,
    assemble,
    from_wire,
    hop,
    random_access,
    random_caller,
    random_facts,
    random_odd_link,
    random_token,
    text,
    to_wire,
    verifier,
)

INVALID = {"malformed", "unsupported_version", "unknown_key", "bad_signature"}


def mutated(rng, data):
    """A few random changes: bits, bytes, cuts, repeats, moved blocks, varint edges."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice([0, 1, 2, 4, 6, 0x20, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 4:
            data[at:at] = data[at : at + rng.randint(1, 60)]
        elif kind == 5:
            data[at:at] = rng.choice(
                [b"\x80\x00", b"\xff\xff\xff\xff\x7f", b"\0", b"\2\0", b"\4\0", b"\4\x48" + bytes(72), b"\6\x20" + bytes(32)]
            )
        else:
            other = rng.randrange(len(data) + 1)
            data[at : at + 10] = data[other : other + 10]
    return bytes(data)


def random_bytes(rng, sources):
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return b"\2" + bytes(rng.choice([0, 1, 2, 4, 6, 32, 72, 0x80, 65]) for _ in range(rng.randrange(80)))
    return mutated(rng, rng.choice(sources))


@pytest.fixture(scope="module")
def sources():
    rng = drawing(20260601)
    return [to_wire(random_token(rng)) or b"\2" for _ in range(200)] + [to_wire(text(SALES, hop("sales-agent")))]


def test_b6_decoding_random_bytes_raises_one_exception(sources):
    """B6: 20,000 random and mutated byte strings as a token: TokenFormatError or a token that gives the same text back; the
    reference agrees which."""
    rng, parsed = drawing(20260602), 0
    for _ in range(times(20_000)):
        hostile = from_wire(random_bytes(rng, sources))
        try:
            token = Token.parse(hostile)
        except TokenFormatError as error:
            assert error.code in ("malformed", "unsupported_version")
            assert evaluator.evaluate(hostile, {}, ASK, now=NOW) == error.code
        else:
            parsed += 1
            assert token.serialize() == hostile
            assert evaluator.evaluate(hostile, {}, ASK, now=NOW) == "unknown_key"
    assert parsed > 500


def test_b6_check_never_raises(sources):
    """B6: 20,000 mutated tokens against random accesses, callers and facts: a Decision each time, and none of the changed ones
    is allowed."""
    rng = drawing(20260603)
    genuine = {from_wire(source) for source in sources}
    for _ in range(times(20_000)):
        hostile, caller = from_wire(random_bytes(rng, sources)), random_caller(rng)
        decision = verifier(**random_facts(rng)).check(
            hostile, access(random_access(rng)), caller=None if caller is None else Caller(**caller)
        )
        assert isinstance(decision, Decision) and isinstance(str(decision), str)
        assert hostile in genuine or decision.code in INVALID


def test_b6_links_of_random_content_never_raise():
    """B6: 4,000 properly signed tokens with random, odd and mutated link bodies: a decision that is the reference's."""
    rng = drawing(20260604)
    for _ in range(times(4000)):
        link = random_odd_link(rng, "orchestrator")
        body = link if isinstance(link, bytes) else evaluator.canonical(link).encode()
        body = mutated(rng, body) if rng.random() < 0.7 else body
        token_text, facts = text(SALES, body or b"x"), random_access(rng)
        decision = verifier().check(token_text, access(facts))
        assert decision.code == evaluator.evaluate(token_text, {"k1": KEY}, facts, now=NOW), body
        assert isinstance(str(decision), str) and isinstance(decision.for_model(), str)


def test_b6_root_records_of_random_content_never_raise():
    """B6: 4,000 properly signed tokens with a mutated root record: the reference's code, and never an exception."""
    rng, root = drawing(20260605), evaluator.canonical(ROOT).encode()
    for _ in range(times(4000)):
        token_text = evaluator.mint(KEY, mutated(rng, root) or b"x", [SALES])
        assert verifier().check(token_text, access(ASK)).code == evaluator.evaluate(token_text, {"k1": KEY}, ASK, now=NOW), (
            token_text
        )


def test_b6_random_texts_raise_one_exception():
    """B6: 10,000 random strings, of any characters and lengths, with and without the prefix: TokenFormatError, and `check`
    says the same."""
    rng, one, ask = drawing(20260606), verifier(), access(ASK)
    pool = "cap1_-ABCxyz09=+/ \n\0\u00e9\u0661\ud800\U0001f600"
    for _ in range(times(10_000)):
        hostile = rng.choice(["", "cap1_", "cap1_Ag", "cap2_", "CAP1_"]) + "".join(rng.choices(pool, k=rng.randrange(60)))
        with pytest.raises(TokenFormatError) as raised:
            Token.parse(hostile)
        assert one.check(hostile, ask).code == raised.value.code


def test_b6_authorize_raises_denied_and_nothing_else(sources):
    """B6: 3,000 mutated tokens: `authorize` and `authenticate` raise Denied with a decision, and nothing else."""
    rng, one, ask, raised = drawing(20260608), verifier(), access(ASK), Counter()
    for _ in range(times(3000)):
        hostile = from_wire(random_bytes(rng, sources))
        for call in (lambda hostile=hostile: one.authorize(hostile, ask), lambda hostile=hostile: one.authenticate(hostile)):
            try:
                call()
            except Denied as denied:
                raised[denied.decision.code] += 1
                assert len(hostile) < 20 or hostile not in f"{denied} {denied.public}"
    assert {"malformed", "bad_signature", "unknown_key"} <= set(raised)


def test_b6_normalize_raises_one_exception(sources):
    """B6: 5,000 random byte strings and texts to `interop.normalize`: TokenFormatError, or a text that parses and normalizes
    to itself."""
    rng, normal = drawing(20260608), 0
    for _ in range(times(5000)):
        data = random_bytes(rng, sources)
        for form in (data, evaluator.base64text(data), "cap1_" + evaluator.base64text(data)):
            try:
                found = interop.normalize(form)
            except TokenFormatError:
                continue
            normal += 1
            assert Token.parse(found).serialize() == found == interop.normalize(found)
    assert normal > 100


def test_b5_wire_round_trips():
    """B5: 10,000 random macaroons encode to bytes that decode to the same parts; 10,000 mutations decode to what encodes back,
    or raise."""
    rng, accepted = drawing(20260609), 0
    for _ in range(times(10_000)):
        identifier, signature = rng.randbytes(rng.randint(1, 300)), rng.randbytes(32)
        caveats = [
            (rng.randbytes(rng.choice([1, 10, 127, 128, 300])), rng.randbytes(72) if rng.random() < 0.2 else None)
            for _ in range(rng.randrange(1, 8))
        ]
        data = evaluator_wire(identifier, caveats, signature)
        assert encode(decode(data)) == data
        hostile = mutated(rng, data)
        try:
            assert encode(decode(hostile)) == hostile
        except TokenFormatError:
            continue
        accepted += 1
    assert accepted > 500


def evaluator_wire(identifier, caveats, signature):
    """The reference's bytes for these parts."""
    minted = evaluator.mint(KEY, identifier, caveats)
    return to_wire(minted)[:-32] + signature


def test_b5_a_text_is_its_parts():
    """B5: what `assemble` writes by hand, captoken reads and writes back."""
    token_text = assemble(evaluator.canonical(ROOT).encode(), [evaluator.canonical(SALES).encode()], bytes(32))
    assert Token.parse(token_text).serialize() == token_text


def test_hostile_values_of_an_access_never_raise_in_a_check():
    """Deep, huge and strange values that an Access accepts are decided; what it does not accept raises when it is built."""
    deep = 1
    for _ in range(200):
        deep = [deep]
    tool = (
        text({"tools": {"t": {"q": {"in": ["x"]}}}}),
        text({"tools": {"t": {"q": {"path": ["/a"]}}}}),
        text({"tools": {"t": {"q": {"min": 0}}}}),
        text({"tools": {"t": {"q": {"any": True}}}}),
    )
    for value in (
        deep,
        "x" * 10**6,
        "/a/" + "b/" * 10**5,
        10**5000,
        -(10**5000),
        1e308,
        {"k" * 1000: deep},
        "\0" * 1000,
        "\U0010ffff" * 1000,
        [None] * 10**5,
    ):
        try:
            ask = Access(tool="t", arguments={"q": value})
        except (TypeError, ValueError):
            continue
        codes = [verifier().check(token_text, ask).code for token_text in tool]
        refused = "too_much_work" if value == [None] * 10**5 else "argument"  # 4 MB, by 24.26
        assert codes[0] == refused and codes[3] == "allowed" and set(codes) <= {"allowed", refused}
