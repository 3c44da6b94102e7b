"""Each code of a denial, whole: one record says all that anybody is told of it.

A code is written here, and nowhere else. `python -m tests.records` makes what else has to know it:
the step and the kind in `captoken._language.reasons`, by which a verifier decides, and the tables
of the specification and of the port. Words that are of no single code stand in `wording`.

Nothing decides by this module. It is loaded when somebody asks what a denial means.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Formatter
from typing import Literal, NamedTuple, TypeAlias, get_args

from captoken._language.reasons import DENIALS, PLAN, Denial, Kind

# May the same request be permitted another time: never, later by itself, or at once if the token is
# presented anew, with a new proof?
Retry: TypeAlias = Literal["no", "later", "presented_anew"]

# What the words for a model may echo: names that the access itself stated (24.14).
ECHOED = frozenset(("table", "operation", "tool"))


class Code(NamedTuple):
    """What a code means: to whoever implements it, to a client, a model and an operator."""

    code: str

    # Of the plan: the one that gives it.
    step: int

    # The kind decides the HTTP status.
    kind: Kind

    # When it is given, in a few words.
    when: str

    # Can the same request be permitted another time?
    retry: Retry

    # A sentence that anybody may be told.
    public: str

    # What a model is told: the rule that was broken, and then whether it helps to try again.
    model: str
    advice: str

    # One of the sentences that an operator reads.
    operator: str

    # For people who meet it for the first time: what it means, and what to do.
    cause: str
    remedy: str

    # Would a token that permits more have permitted it?
    wider: bool = False


# One message for all of these, so that a stranger learns nothing.
_UNACCEPTED = "The token was not accepted."
_UNPROVEN = "The request needs a fresh proof by the key that the token is bound to."
_REFUSED = "The token does not permit this request."
_UNDECIDED = "The server cannot decide at present."
_STRANGER = "The credential was not accepted."

# What a model may do about it.
_ASK = (
    "Retrying will not help. "
    "Whoever gave you this task can grant more; do not look for another way."
)
_REPLACE = (
    "Retrying with the same credential will not help. Ask whoever gave you this task for a new one."
)
_ANOTHER = "The same request will be refused again; one with another value may be permitted."
_SHORTER = "The same request will be refused again; one with shorter values may be permitted."
_NAME_THEM = (
    "The same request will be refused again; one that asks for fewer columns may be permitted. "
    "Write each by its name."
)
_AGAIN = "A retry in which the credential is presented again can help."
_LATER = "A retry can help later."
_STOP = (
    "Stop here: do not retry, do not ask for another credential, and do not look for another way."
)
_NARROWED = (
    "Retrying will not help, and neither will another credential. "
    "Go on without it, or stop and say so."
)
_HAND_ON = "Retrying will not help. Hand it on to a sub-agent, or ask whoever gave you this task."
_PART = (
    "Retrying will not help, and neither will another credential of this task. "
    "Go on without it, or ask whoever gave you this task to do that part in another one."
)
_FAULT = (
    "That is a fault of the server and not of the request. "
    "Retrying will not help: tell whoever gave you this task."
)
_PROVE = "A retry with a fresh proof, made for this very request, can help."


def together(codes: tuple[Code, ...]) -> dict[str, Code]:
    """The records by code, in the plan's order. Raises ImportError if one is not whole.

    Asked when this module is imported: so nothing is told by a record that lacks something, or that
    is not the one that the verifier decided by.
    """
    wrong = [f"{one.code} {lack}" for one in codes for lack in _lacks(one)]
    # The same codes in the same order, each with its step and its kind.
    if [(one.code, Denial(one.step, one.kind)) for one in codes] != list(DENIALS.items()):
        wrong.append("those of the kernel are others")
    if wrong:
        raise ImportError(f"the records of denials do not fit together: {', '.join(wrong)}")
    return {one.code: one for one in codes}


def _lacks(record: Code) -> Iterator[str]:
    """What is wrong with one record by itself."""
    if not all(text for text in record if isinstance(text, str)):
        yield "leaves something out"
    if not 1 <= record.step <= len(PLAN):
        yield "has no step of the plan"
    if record.retry not in get_args(Retry):
        yield "does not say whether to retry"
    named = {name for _, name, *_ in Formatter().parse(record.model) if name is not None}
    if not named <= ECHOED:
        yield "echoes what a model may not be told"


# In the order of the plan: the first step that fails gives the code.
RECORDS: tuple[Code, ...] = (
    Code(
        "malformed",
        2,
        "invalid",
        when="steps 1 to 3: no text of a token, beyond a limit, or a root record that is none",
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="a token starts with cap1_, and this text does not",
        cause=(
            "The text is no token. It was cut, joined or changed on its way, or is something else."
        ),
        remedy="Send the whole text that `present()` gave, with nothing before or behind it.",
    ),
    Code(
        "unsupported_version",
        3,
        "invalid",
        when="a root record of another version",
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="version 2 of the root record is not known here",
        cause="The token is of a version that this captoken does not know.",
        remedy="Upgrade captoken where it is verified. Verifiers are upgraded before issuers.",
    ),
    Code(
        "unknown_key",
        3,
        "invalid",
        when="no key for its key id and audience",
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="no key here for the key id and audience that the token names",
        cause="The server has no key for the key id and the audience that the token names.",
        remedy=(
            "Give the verifier the issuer's keyring, or `keyring.for_audience(…)` of this "
            "server's name. In the latter case mint by `Issuer(keyring.for_audience(…))`: "
            "`mint(audience=…)` takes the issuer's own key. If the key is retired, ask for a new "
            "token."
        ),
    ),
    Code(
        "bad_signature",
        4,
        "invalid",
        when="the chain does not hold",
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="the chain of signatures does not hold",
        cause="The token was changed, or made with another key that has the same key id.",
        remedy=(
            "Ask for a new token. If all tokens fail, the issuer and the server have different "
            "keys: give the server the issuer's keyring again."
        ),
    ),
    Code(
        "missing_discharge",
        4,
        "invalid",
        when="a third party is asked, and no answer came",
        retry="later",
        public="The token needs a discharge that was not presented.",
        model="The credential needs a consent that did not come with it.",
        advice="A retry can help once it is given.",
        operator="a third party is asked, and no answer came",
        cause="The token asks for the consent of a third party, and no discharge came with it.",
        remedy=(
            "Ask whoever `token.needs` names, then `token.with_discharge(…)`, and present that."
        ),
    ),
    Code(
        "bad_discharge",
        4,
        "invalid",
        when="an answer that does not hold, twice, in another order, or to nothing",
        retry="no",
        public="A discharge that was presented was not accepted.",
        model=_STRANGER,
        advice=_REPLACE,
        operator="the discharge is not by whom was asked, or not bound to this token",
        cause="A discharge came that is for another token, or by another third party.",
        remedy=(
            "Send what `present()` gives: it binds each discharge to the token, in their order."
        ),
    ),
    Code(
        "unreadable_link",
        5,
        "invalid",
        when="a link that is not as section 17 says",
        retry="no",
        public="The token carries a restriction that cannot be read.",
        model=_STRANGER,
        advice=_REPLACE,
        operator="not canonical JSON",
        cause="A link of the token cannot be read, so it may restrict anything.",
        remedy=(
            "Ask whoever wrote that link for a new one. Write links with `attenuate` and "
            "`delegate`."
        ),
    ),
    Code(
        "unknown_caveat",
        5,
        "invalid",
        when="a link with a key that nobody here knows",
        retry="no",
        public="The token carries a restriction that this server does not know.",
        model=_STRANGER,
        advice=_REPLACE,
        operator='caveats that are unknown here: ["acme:region"]',
        cause=(
            "A link has a caveat that this verifier does not know, so it may restrict anything."
        ),
        remedy=(
            "Give the verifier the `vocabulary=` that has your own caveats, or upgrade captoken "
            "there."
        ),
    ),
    Code(
        "broken_delegation",
        6,
        "invalid",
        when="a hand-over that does not follow on the one before",
        retry="no",
        public="The token's chain of delegation is broken.",
        model=_STRANGER,
        advice=_REPLACE,
        operator="sales-agent delegates, but orchestrator holds the token",
        cause=(
            "A hand-over was written by somebody who did not hold the token, or back to one who "
            "did."
        ),
        remedy="Hand on with `delegate(to=…)`, once to each agent: each has a name of its own.",
    ),
    Code(
        "too_deep",
        6,
        "invalid",
        when="one hand-over too many",
        retry="no",
        public="The token was delegated more often than it permits.",
        model=_STRANGER,
        advice=_REPLACE,
        operator="delegated to helper, but no more delegations are permitted",
        cause="The token was handed on more often than a `depth` in it permits.",
        remedy="Ask for a token with more `depth`, or let an agent further up do the work.",
    ),
    Code(
        "delegate_only",
        6,
        "insufficient",
        when="for handing on, and nobody was handed it",
        retry="no",
        public="The token is for handing on, not for use.",
        model="Not permitted: the credential is for handing on to a sub-agent, not for use.",
        advice=_HAND_ON,
        operator="the token is for handing on, and nobody was handed it",
        cause="The token is for handing on, and its holder tried to use it.",
        remedy="`delegate(to=…)` it to a sub-agent, which uses it.",
    ),
    Code(
        "revoked",
        7,
        "invalid",
        when="by an entry of the overlay",
        retry="no",
        public=_UNACCEPTED,
        model="This task is over: whoever is in charge of it has ended it.",
        advice=_STOP,
        operator="revoked by ops at 2025-11-25T09:00:00+00:00: the task is over",
        cause=(
            "The operator has ended the task, or revoked the token or something that it comes from."
        ),
        remedy=(
            "Stop. Ask the operator whom the message names. A new token of an ended task is "
            "dead too."
        ),
    ),
    Code(
        "narrowed",
        7,
        "insufficient",
        when="an entry of the overlay prohibits it",
        retry="no",
        public=_REFUSED,
        model="Not permitted at present: the operator has narrowed this task.",
        advice=_NARROWED,
        operator=(
            "narrowed by ops at 2025-11-25T09:00:00+00:00: read-only for now; operation update "
            'is not among ["select"]'
        ),
        cause="The operator has taken a part of the token away, and the request is in that part.",
        remedy="Go on without it, or ask the operator whom the message names.",
    ),
    Code(
        "stale_overlay",
        7,
        "unavailable",
        when="no overlay, or one that is too old",
        retry="later",
        public=_UNDECIDED,
        model="The server cannot decide at present.",
        advice=_LATER,
        operator="the overlay is 75 s old, and at most 60 s are taken",
        cause=(
            "The server's overlay is missing or too old, so that a revocation may be unknown to it."
        ),
        remedy=(
            "Look whether the server's `Feed` runs and the operator's `renew()` does. A token "
            "with `fresh` may ask for a younger overlay than the server keeps."
        ),
    ),
    Code(
        "stale_grant",
        7,
        "invalid",
        when="of a grant: it has to be verified again",
        retry="presented_anew",
        public="The token has to be presented again.",
        model="The credential was checked too long ago.",
        advice=_AGAIN,
        operator="verified at 2025-11-25T09:00:00+00:00: not within 3600 s",
        cause="The grant was verified longer ago than the verifier's `max_age`.",
        remedy="Present the token again, and use the grant that comes of it.",
    ),
    Code(
        "expired",
        8,
        "invalid",
        when="`exp`",
        retry="no",
        public="The token has expired.",
        model="The credential has expired.",
        advice=_REPLACE,
        operator="expired at 2025-11-25T09:00:00+00:00",
        cause="The time of the token, or of one of its links, is over.",
        remedy=(
            "Ask whoever gave the token for a new one. If it is fresh, set the server's clock."
        ),
    ),
    Code(
        "not_yet_valid",
        8,
        "invalid",
        when="`nbf`, or issued in the future",
        retry="later",
        public="The token is not valid yet.",
        model="The credential is not valid yet.",
        advice=_LATER,
        operator="not valid before 2025-11-25T09:00:00+00:00",
        cause="The token begins later, or was issued by a clock that is ahead of this one.",
        remedy=(
            "Wait, or set the clocks of issuer and server. `Verifier(…, leeway=SECONDS)` takes "
            "a difference that is known; an issuer may be a minute ahead without it."
        ),
    ),
    Code(
        "wrong_audience",
        8,
        "invalid",
        when="for another server",
        retry="no",
        public="The token is addressed to another server.",
        model="The credential is for another server.",
        advice=_REPLACE,
        operator='addressed to ["market-api"]',
        cause="The token is addressed to another server.",
        remedy=(
            "Give the server and `present(audience=…)` the same name: `Verifier(…, audience=…)` "
            "or `Office.open(…, audience=…)`. A verifier without a name takes only tokens without "
            "an audience."
        ),
    ),
    Code(
        "unaddressed",
        8,
        "invalid",
        when="for no server in particular, where that will not do",
        retry="no",
        public="The token is not addressed to this server.",
        model="The credential is not addressed to this server.",
        advice=_REPLACE,
        operator="addressed to nobody, and this server takes only what is addressed to it",
        cause="The token must be for this one server, and names no server, or more than one.",
        remedy=(
            "Send what `present(audience=…)` gives, not the token that you hold. A server that "
            "is asked for proofs needs a name: `Verifier(…, audience=…)`."
        ),
    ),
    Code(
        "table",
        8,
        "insufficient",
        when="another table, or none is permitted",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: table {table} is not among the tables of this task.",
        advice=_ASK,
        operator='table hr is not among ["market.*", "sales"]',
        cause="The table is not among those of the token.",
        remedy=(
            "Ask for another table, or ask whoever added the link for a token that has this one."
        ),
    ),
    Code(
        "operation",
        8,
        "insufficient",
        when="another operation",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: operation {operation} on table {table}.",
        advice=_ASK,
        operator='operation update is not among ["select"]',
        cause="The operation is not permitted on that table, or is one that no token permits.",
        remedy=(
            "Ask for another operation, or ask whoever added the link for a token that has this "
            "one."
        ),
    ),
    Code(
        "column",
        8,
        "insufficient",
        when="another column, or columns are not stated",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: some of the columns asked for in table {table}.",
        advice=_NAME_THEM,
        operator='columns of table sales are restricted to ["amount", "region"]',
        cause="Some of the columns are not among those of the token, or the access states none.",
        remedy=(
            "Name the columns, and only those that the message lists. SQLite does not tell which "
            "columns an insert or a delete touches: give the agent a tool for it, or a token "
            "without `columns` for this table."
        ),
    ),
    Code(
        "row",
        8,
        "insufficient",
        when="a row with another value, or none is stated, or a condition was not held",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: some of the rows of table {table}.",
        advice=_ASK,
        operator="column tenant of table orders does not satisfy {\"in\": [\"acme\"]}",
        cause=(
            "The token permits some rows of the table. The row is none of these, or whoever guards "
            "the table cannot tell which rows are touched."
        ),
        remedy=(
            "Ask for rows within the token. A server states `row` and `becomes`, or in `rows` what "
            "`grant.rows` gave and it has held."
        ),
    ),
    Code(
        "tool",
        8,
        "insufficient",
        when="another tool",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: tool {tool} is not among the tools of this task.",
        advice=_ASK,
        operator='tool refund is not among ["lookup"]',
        cause="The tool is not among those of the token.",
        remedy="Call another tool, or ask whoever added the link for a token that has this one.",
    ),
    Code(
        "argument",
        8,
        "insufficient",
        when="an argument that is not permitted",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: tool {tool} with these arguments.",
        advice=_ANOTHER,
        operator="argument cents of tool refund is more than 500",
        cause=(
            "An argument of the tool is missing, unknown, or has a value that is not permitted."
        ),
        remedy=(
            "Change the argument that the message names. `decision.report(values=True)` shows "
            "its value."
        ),
    ),
    Code(
        "attribute",
        8,
        "insufficient",
        when="an attribute that is not as it must be",
        retry="no",
        public=_REFUSED,
        model="Not permitted under the present conditions.",
        advice=_ASK,
        operator='attribute tenant is not among ["acme"]',
        cause="A condition of the token does not hold: `where`, or a caveat of your project.",
        remedy="State the attribute in the access, or ask for a token with another condition.",
    ),
    Code(
        "domain",
        8,
        "insufficient",
        when="tables, where only tools are permitted; or the other way round",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: requests of this kind are no part of this task.",
        advice=_ASK,
        operator="restricted to tables: tools are closed",
        cause=(
            "The token speaks of tables or of tools alone, and the access is of the other kind."
        ),
        remedy=(
            "State a table or a tool. When narrowing, `keep=` leaves the other kind as it was."
        ),
    ),
    Code(
        "task",
        8,
        "insufficient",
        when="tasks that do not lie on one path",
        retry="no",
        public="The token is for another task.",
        model="Not permitted: the credential is for another task.",
        advice=_REPLACE,
        operator="task other is not on one path with task task-123",
        cause="The tasks that links of the token name do not lie on one path.",
        remedy="Name the token's own task, or one below it, as `task-123/sub`.",
    ),
    Code(
        "cost_unstated",
        8,
        "insufficient",
        when="a unit of a `budget` that the access does not state",
        retry="no",
        public="What the request costs is not stated.",
        model="Not permitted: what the request costs is not stated.",
        advice=_FAULT,
        operator=(
            'what it costs in usd_cents is not stated; if it costs nothing: cost={"usd_cents": 0}'
        ),
        cause="The token has a `budget` in a unit, and the access does not say what it costs.",
        remedy="Write `cost=` where the access is made. A cost of 0 has to be written too.",
    ),
    Code(
        "too_much_work",
        8,
        "insufficient",
        when="constraints, and the values that they look at, that are more than a decision may be",
        retry="no",
        public="The request is too large for what the token says of it.",
        model="Not permitted: the request is too large for what this task may do.",
        advice=_SHORTER,
        operator="the constraints, and the values that they look at, come to more than 1048576",
        cause=(
            "The restrictions of the token, and the values of the access that they look at, are "
            "together more than one decision may be: 1 MiB (spec 24.25). Or the call states more "
            "than an adapter hands to a verifier: 256 KiB."
        ),
        remedy=(
            "State shorter values, or split the call. Shorten the chain: each link looks at the "
            'values again. Leave an argument free, by `{"any": true}`, where its value is free.'
        ),
    ),
    Code(
        "caller",
        9,
        "insufficient",
        when="another agent, or another task, calls",
        retry="no",
        public="The token was handed to another caller.",
        model="Not permitted: the credential was handed to another agent or task.",
        advice=_REPLACE,
        operator="sales-agent calls with the token of orchestrator",
        cause=(
            "The server knows the caller as another agent, or in another task, than the token says."
        ),
        remedy="`delegate(to=…)` the token to the agent that calls, and call with that one.",
    ),
    Code(
        "proof_missing",
        10,
        "proof",
        when="bound to a key, and no proof",
        retry="presented_anew",
        public=_UNPROVEN,
        model="The credential is bound to a key, and no proof by that key came with the request.",
        advice=_PROVE,
        operator="the token is bound to a key, and no proof came with it",
        cause="The token is bound to a key, and the request came without a proof by that key.",
        remedy=(
            "`present(…, signer=key, request=…)` for each request, and send the text that it gives."
        ),
    ),
    Code(
        "bad_proof",
        10,
        "proof",
        when="a signature or a proof that does not hold",
        retry="presented_anew",
        public=_UNPROVEN,
        model=(
            "The credential is bound to a key, and the proof that came is not for this request."
        ),
        advice=_PROVE,
        operator=(
            "not signed by the key that the token is bound to, for this token, server and request"
        ),
        cause=(
            "The proof is for another token, server or request, or too old; or a hand-over of "
            "the token is not signed."
        ),
        remedy=(
            "State the same request on both sides: method, address, path and body. Set the "
            "clocks, and make a new proof for each request."
        ),
    ),
    Code(
        "replayed",
        11,
        "proof",
        when="a proof that was used",
        retry="presented_anew",
        public=_UNPROVEN,
        model="The proof that came with the request was used before, or is too old.",
        advice=_PROVE,
        operator="the proof was used before, or is older than what the store remembers",
        cause="The proof was used before, or was made before the server's store of proofs began.",
        remedy="Make a new proof for each request, also for a retry.",
    ),
    Code(
        "forbidden_after",
        11,
        "insufficient",
        when="a rule of `forbid`, whose marks are all set",
        retry="no",
        public=_REFUSED,
        model="Not permitted any more in this task, after what was done in it.",
        advice=_PART,
        operator="nothing in outside after private and untrusted",
        cause=(
            "The task has done what a link's rule names under `after`. From then on nothing is "
            "permitted that is in a mark of `in`. No holder can undo it."
        ),
        remedy="Do that part of the work in another task, whose token has rights for it alone.",
    ),
    Code(
        "budget_exhausted",
        11,
        "insufficient",
        when="nothing is left, or too little",
        retry="no",
        public="The token has been used up.",
        model="The allowance of this task is used up.",
        advice=_ASK,
        operator="5 usd_cents of 200 are not left",
        cause="The `uses` or the `budget` of the token, or of one above it, is used up.",
        remedy="Ask for less, or ask whoever added the link for a new token.",
    ),
    Code(
        "store_unavailable",
        11,
        "unavailable",
        when="a store that is missing, full, or cannot know",
        retry="later",
        public=_UNDECIDED,
        model="The server cannot decide at present.",
        advice=_LATER,
        operator=(
            "this verifier has no ledger (ledger), and a token with uses, budget or marks needs one"
        ),
        cause="A store or the audit trail cannot be asked, is full, or is not there.",
        remedy=(
            "Mend what the message names: the file, the server, or `Verifier(replays=…, "
            "ledger=…)`. The retry needs a new proof."
        ),
    ),
)

# What there is to know of each code of a denial, by the code.
CODES: dict[str, Code] = together(RECORDS)
