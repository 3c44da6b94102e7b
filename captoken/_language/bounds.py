"""What a stranger may hand in at once: the one place of these numbers (docs/limits.md).

A verifier bounds the work of a decision (spec 24.25). Before it is asked, an adapter has read what
was sent, and copied what is to be decided on: that takes processor time as well, and of an event
loop's all requests have one. So each adapter takes from here how much it reads, and asks here
whether the facts of a call are few enough to be handed to a verifier.

    too_large(arguments)        before a copy is made of what a client sent
    is_bounded(access)          where a server's own function has made the access
"""

from __future__ import annotations

from typing import Any

from captoken._format.encoding import LIMITS
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._language.work import at_most, size_of

# The limits of an HTTP request. A token is searched for in forms and in queries.
FORM_BYTES = 32 << 10
TARGET_BYTES = 32 << 10  # for path and query together
HEADER_BYTES = 64 << 10  # for all headers together: names, values, and 32 bytes for each

# The longest body or message that a guard reads, to decide on it or to check its proof.
BODY_BYTES = 256 << 10
# The limits of a request that a gateway forwards: a number in it, and its User-Agent.
NUMBER_CHARS = 32  # the shortest spelling of a double has 24 at most
USER_AGENT_CHARS = 512

# The most MCP messages in one body. Older protocols allow several, and each is checked.
MESSAGES = 100

# The size of all that an access states, as the specification counts a value (24.26).
FACTS = 256 << 10
NESTED = FACTS // 16  # arrays and objects, as rule 24.26 counts an item
LEVELS = 200  # of arrays and objects within each other, in a body that a guard reads

# The limits of the services. A ticket has at most 2,048 bytes, a discharge 8,192 characters.
DISCHARGE_BYTES = 8 << 10
ANSWER_BYTES = 16 << 10  # a client reads no more of a discharge service's response
ISSUANCE_BYTES = 64 << 10
ASSERTION_CHARS = 16 << 10
RESPONSE_CHARS = 32 << 10  # of SAML: an assertion, a signature of its own, line breaks
DETAILS_CHARS = LIMITS.token_chars  # for `authorization_details`: no token can say more
CONSOLE_BYTES = 64 << 10

# A description of a service's operations in YAML, which takes long to read.
DESCRIPTION_BYTES = 1 << 20

# The code and the sentence of a denial: the code is that of a decision which is too much work.
TOO_LARGE = ("too_much_work", f"what the call states comes to more than {FACTS}")


def too_large(*facts: Any) -> bool:
    """Are these values together more than an adapter hands to a verifier?

    It looks no further than that. What is no JSON is none of its concern: to copy that raises.
    """
    stated = [fact for fact in facts if fact]
    try:
        if sum(map(at_most, stated)) <= FACTS:
            return False
        return sum(size_of(fact, FACTS) for fact in stated) > FACTS
    except UnicodeEncodeError:
        return False


def is_crowded(text: bytes) -> bool:
    """Does this JSON begin more arrays and objects than there is room for in what a call states?

    They take the longest to read, and the collector looks at each. One that stands in a string is
    counted as well.
    """
    return text.count(b"[") + text.count(b"{") > NESTED


def is_deep(value: Any, levels: int = LEVELS) -> bool:
    """Are there more than so many levels of objects and lists in what was read?

    The decoder has an end of its own, which is another one in each Python. What looks through a
    value afterwards calls itself, and has an end before that.
    """
    if type(value) not in (dict, list):
        return False
    if levels == 0:
        return True
    for item in value.values() if type(value) is dict else value:
        if is_deep(item, levels - 1):
            return True
    return False


def is_bounded(access: Access) -> bool:
    """Are the facts of an access few enough to be decided on?"""
    rows = (access.row or None, access.becomes or None, access.rows)
    return not too_large(access.columns, access.arguments, access.attributes, *rows)


def read_bytes(most: Any, name: str) -> int:
    """A bound that an embedder has set, as a number of bytes. Raises ValueError."""
    if type(most) is not int or most < 0:
        raise ValueError(f"{name} must be a number of bytes, as int, not {shown(most)}")
    return most
