"""What a client is told when it is refused: one type, whether it is found here or by the server.

    raise refused_here(widening, access, held.token.unverified.capability) from widening
    raise refused_there(kind, text)
"""

from __future__ import annotations

import re

from captoken._format.errors import Refused, WideningError
from captoken._language.access import Access
from captoken._language.capability import Capability
from captoken._language.reasons import Refusal
from captoken._verification.wording import told_to_model

# By the kind of a denial: a code whose words for a model hold for all denials of that kind. What is
# `insufficient` has the server's own words.
_CODE_OF_KIND = {
    "invalid": "bad_signature",
    "proof": "bad_proof",
    "unavailable": "store_unavailable",
}
_is_id = re.compile(r"[A-Za-z0-9_-]{12}").fullmatch
_TEXT_CHARS = 2000  # of a server's: what is longer is no sentence of ours

# What a model is told of a request in a domain that a token says nothing of. It names nothing, so
# that it is the same for all requests.
DOMAIN = told_to_model("domain", None, proven=False)


def refused_here(
    widening: WideningError,
    access: Access | None,
    held: Capability | None,
) -> Refused:
    """What is held does not permit it, so that nothing was sent.

    `held` is what the token holds: by it the argument is named that is out of its range.
    """
    code = "domain"
    refusals: tuple[Refusal, ...] = ()
    reason = None if access is None or held is None else held.prohibits(access)
    if reason is not None:
        code = reason.code
        refusals = (Refusal(reason.code, reason.text, failing=reason.failing),)
    told = told_to_model(code, access, refusals, proven=False)
    return Refused(f"not sent: {widening}", told, here=True)


def decision_named(number: object) -> str:
    """What is said of the id of a decision, by which the server's operator finds the cause.

    Of a server's: what is no id of ours is not shown.
    """
    if isinstance(number, str) and _is_id(number):
        return f" (decision {number}: the server's log and trail have the cause)"
    return ""


def refused_there(
    kind: str,
    text: str,
    number: object = None,
    asked: object = None,
) -> Refused:
    """The server refused it. `text` is its public sentence, or its words for a model.

    `number` is the id of its decision, and `asked` what to ask a person, as they were said.
    """
    sentence = text[:_TEXT_CHARS]
    code = _CODE_OF_KIND.get(kind)
    told = sentence if code is None else told_to_model(code, None, proven=False)
    said = f"the server refused it ({kind}): {sentence}{decision_named(number)}"
    return Refused(said, told, kind=kind, request=asked if isinstance(asked, str) else None)
