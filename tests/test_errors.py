"""Each error and each code has an entry in the catalogue, each example is a message there is, and the page is made of them."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import captoken._format.errors as tree
from captoken import Denied, WideningError, errors
from captoken._format.encoding import b64encode
from captoken._format.spelling import shown_file
from captoken._verification.mistakes import WORDS
from captoken.errors import CODES, StatementError
from captoken.keys import HolderKey
from captoken.testing import ErrorEntry, error_catalogue
from tests import messages
from tests.fixtures import mint
from tests.messages import DENIALS, PAGE, PRIVATE, PROGRAMMING, PROMISED, ROOT, Message, page

ENTRIES = error_catalogue()
MESSAGES = list(messages.messages())
KNOWN = {(entry.error.__name__, entry.code): entry for entry in ENTRIES}


def test_every_code_of_a_denial_is_in_the_catalogue() -> None:
    """In the order of the plan, as the codes themselves stand."""
    assert [entry.code for entry in ENTRIES if entry.error is Denied] == list(CODES)


def test_every_type_of_error_is_in_the_catalogue_with_its_codes() -> None:
    """As the tree of errors draws them: below a type the codes that it has, or its only one."""
    drawn: dict[str, list[str]] = {}
    for kind, more, codes in re.findall(r"[├└]── (\w+)(.*\n)((?:    │ {20,}[a-z_, ]+\n)*)", tree.__doc__ or ""):
        drawn[kind] = re.findall(r"\w+", codes) or [getattr(errors, kind).code]
        assert more.strip()
    drawn["Denied"] = list(CODES)
    assert drawn.keys() == PROMISED - {"CaptokenError"}
    told: dict[str, list[str]] = {}
    for entry in ENTRIES:
        told.setdefault(entry.error.__name__, []).append(entry.code)
    assert {kind: sorted(codes) for kind, codes in told.items()} == {kind: sorted(codes) for kind, codes in drawn.items()}


def test_every_error_that_is_raised_has_an_entry() -> None:
    """By where they are raised: with a code that stands there, or with that of the type."""
    raised = [message for message in MESSAGES if message.made in PROMISED - {"Denied"}]
    assert len(raised) > 200
    without = [message for message in raised if not any((message.made, code) in KNOWN for code in codes_of(message))]
    assert without == []


def codes_of(message: Message) -> list[str]:
    """The codes that a message can have; of a code that is stated otherwise than as a word, nobody can tell here."""
    if message.code is not None:
        return [message.code]
    own = getattr(errors, message.made).__dict__.get("code")
    return [own] if own else [code for kind, code in KNOWN if kind == message.made]


def test_every_refusal_has_an_entry() -> None:
    refused = [message for message in MESSAGES if message.made in DENIALS and message.code]
    assert len(refused) > 50 and [message for message in refused if ("Denied", message.code) not in KNOWN] == []


def test_every_exception_is_one_that_is_promised_or_stays_inside() -> None:
    """A new class of exception is a decision: in the tree, or caught where it was raised."""
    kept = {
        "_Unreadable", "ClientGone", "NotFinite", "EncodingError", "RefusedError", "NotLetIn", "RequestError", "ServiceError",
        "JoseError", "KeysError", "XmlError", "_RolledBack", "LateError", "MovedError", "UnmadeError", "GrammarError",
        "Broken", "NoCost", "NoOperation", "Told", "Unavailable", "Unreachable",
    }  # fmt: skip
    assert kept >= PRIVATE
    found = {
        node.name
        for path in (ROOT / "captoken").rglob("*.py")
        if "cli" not in path.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & (PROMISED | PROGRAMMING)
    }
    assert found - PROMISED == kept


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.error.__name__}-{entry.code}")
def test_each_example_is_a_message_that_there_is(entry: ErrorEntry) -> None:
    """Of this error: it fits what stands in the code where it is made."""
    if entry.error is WideningError:
        return  # made of an answer, below
    if entry.error is StatementError:
        assert WORDS[entry.code].fault in entry.example  # of a table
        return
    made = DENIALS | {"StoreError", "TokenFormatError", "EncodingError"} if entry.error is Denied else {entry.error.__name__}
    assert any(message.fits(entry.example) for message in MESSAGES if message.made in made), entry.example


def test_the_examples_of_a_widening_are_messages_that_there_are() -> None:
    token = mint(depth=1, tools={"lookup": {}})
    with pytest.raises(WideningError) as widened:
        token.attenuate(depth=3)
    with pytest.raises(WideningError) as left:
        token.attenuate(tools={"refund": {}}, clamp=True)
    assert str(widened.value) == KNOWN["WideningError", "widening"].example
    assert str(left.value) == KNOWN["WideningError", "nothing_left"].example
    assert (widened.value.code, left.value.code) == ("widening", "nothing_left")


def sentences() -> Iterator[str]:
    for entry in ENTRIES:
        for text in (entry.cause, entry.remedy):
            assert text.endswith(".") and text == " ".join(text.split())
            yield from re.split(r"(?<=[.!?]) ", text)


def test_the_catalogue_is_written_in_short_sentences() -> None:
    words = [len(sentence.split()) for sentence in sentences()]
    assert max(words) <= 35 and sum(words) / len(words) <= 16


def test_messages_are_on_one_line_and_short() -> None:
    """But for what is cut where it is made: names and values of somebody else's."""
    assert [one for one in MESSAGES if one.template is not None and ("\n" in one.template or len(one.template) > 300)] == []


def test_the_page_is_made_of_the_catalogue() -> None:
    """`python -m tests.messages --page` writes it anew."""
    assert PAGE.read_text("utf-8") == page()


def test_every_message_that_has_a_code_is_on_the_page() -> None:
    """So who has nothing but a message finds what to do, by search. What differs in it is left open."""
    shown = {line for text in re.findall(r"^```text\n(.*?)^```$", page(), re.MULTILINE | re.DOTALL) for line in text.splitlines()}
    made = PROMISED - {"Denied", "WideningError"} | DENIALS | {"TypeError", "ValueError", "RequestError", "EncodingError"}
    wanted = [one for one in MESSAGES if one.made in made and one.template and (one.code or one.made not in DENIALS)]
    missing = [one for one in wanted if len(one.template.replace("{}", "").strip()) >= 4 and one.template.replace("{}", "…") not in shown]
    assert len(wanted) > 500 and missing == []
    assert {code.public for code in CODES.values()} <= shown


def test_a_file_is_named_by_its_end_and_without_what_steers() -> None:
    """However long its name is."""
    assert shown_file("keys.json") == "'keys.json'" and shown_file(Path("a/b\n")) == r"'a/b\n'"
    long = shown_file(f"/{'one/' * 90}/keys.json")
    assert long.startswith("'...") and long.endswith("one/one//keys.json'") and len(long) == 200


def test_what_could_be_a_token_or_a_key_is_not_shown_as_the_name_of_a_file() -> None:
    """Where somebody gives the text of one instead of the file that it lies in."""
    key = HolderKey.generate()
    for secret in (mint().serialize(), mint().present(audience="a"), b64encode(key.reveal()), key.reveal().hex()):
        told = shown_file(f"keys/{secret}")
        assert told.startswith("'keys/") and len(told) < 20 and secret[-20:] not in told
        with pytest.raises(errors.KeyringError, match="cannot be read") as caught:
            HolderKey.load(secret)
        assert secret[-20:] not in f"{caught.value} {caught.value.args}"


def test_a_message_is_found_with_its_place() -> None:
    """What the list is made by: of a call as it stands, and of a name that was set before."""
    found = {message.place.split(":")[0]: message for message in MESSAGES if message.template == "the signatures of the token do not match"}
    assert found.keys() == {"captoken/_verification/plan.py"} and found.popitem()[1].code == "bad_signature"


def test_an_error_says_the_name_under_which_it_is_imported() -> None:
    """In a traceback, and to whoever reads it and writes an `except`."""
    public = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type) and issubclass(kind, Exception)]
    assert len(public) > 15
    for kind in public:
        assert getattr(importlib.import_module(kind.__module__), kind.__name__) is kind
        assert not any(part.startswith("_") for part in kind.__module__.split(".")) or kind is errors.Denied
