"""Each error and each code has an entry in the catalogue, each example is a message there is, and the page is made of them."""

from __future__ import annotations

import ast
import importlib
import re

from captoken import errors
from captoken.errors import CODES
from captoken.testing import error_catalogue
from tests import messages
from tests.messages import DENIALS, PAGE, PRIVATE, PROGRAMMING, PROMISED, ROOT, Message, page

ENTRIES = error_catalogue()
MESSAGES = list(messages.messages())
KNOWN = {(entry.error.__name__, entry.code): entry for entry in ENTRIES}


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
        "_Answered", "_Unreadable", "ClientGone", "NotFinite", "EncodingError", "RefusedError", "NotLetIn", "RequestError", "ServiceError",
        "JoseError", "KeysError", "XmlError", "_RolledBack", "LateError", "MovedError", "UnmadeError", "GrammarError",
        "Broken", "Malformed", "_ReturnedError", "NoCost", "NoOperation", "Told", "TooLong", "Unpriced", "Unavailable", "Unreachable",
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
