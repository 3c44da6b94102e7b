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
_UNPROVEN = "The request needs a fresh proof from the key that the token is bound to."
_REFUSED = "The token does not permit this request."
_UNDECIDED = "The server cannot decide right now."
_STRANGER = "The credential was not accepted."

# What a model may do about it.
_ASK = (
    "Retrying will not help. "
    "Whoever gave you this task can grant more; do not look for another way."
)
_LESS = (
    "The same request will be refused again; a smaller one may be permitted, if anything is left. "
    "Whoever gave you this task can grant more; do not look for another way."
)
_SPELL_IT = (
    "If the name is misspelt, correct it. Otherwise retrying will not help. "
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
_AGAIN = "Present the credential again, and then retry."
_LATER = "A later retry can help."
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
    "This is the server's fault, not the request's. Retrying will not help: tell whoever gave you "
    "this task."
)
_PROVE = "Retry with a fresh proof, made for this exact request."


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
        when=(
            "steps 1 to 3: not the text of a token, beyond a limit, or without a valid root record"
        ),
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="a token starts with cap1_, and this text does not",
        cause=(
            "The text is not a token. It was cut, joined or changed on the way, or is something "
            "else."
        ),
        remedy="Send the whole text that `present()` returned, with nothing before or after it.",
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
        operator="this server does not know version 2 of the root record",
        cause="The token has a version that this captoken does not know.",
        remedy="Upgrade captoken on the server that verifies it. Upgrade verifiers before issuers.",
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
        operator="this server does not have the key that the token was minted with",
        cause="The server has no key for the key id and the audience that the token names.",
        remedy=(
            "Give the verifier the issuer's keyring, or `keyring.for_audience(…)` with this "
            "server's name. With the second, mint by `Issuer(keyring.for_audience(…))`, because "
            "`mint(audience=…)` uses the issuer's own key. If the key was retired, ask for a new "
            "token."
        ),
    ),
    Code(
        "bad_signature",
        4,
        "invalid",
        when="the signatures do not match",
        retry="no",
        public=_UNACCEPTED,
        model=_STRANGER,
        advice=_REPLACE,
        operator="the signatures of the token do not match",
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
        when="the token needs the consent of a third party, and its discharge is missing",
        retry="later",
        public="The token needs a discharge that was not presented.",
        model="The credential needs a consent that did not come with it.",
        advice="A retry can help once it is given.",
        operator="the token needs the consent of a third party, and its discharge is missing",
        cause="The token needs the consent of a third party, and no discharge came with it.",
        remedy=(
            "Ask the party that `token.needs` names for a discharge. Add it with "
            "`token.with_discharge(…)`, and present the result."
        ),
    ),
    Code(
        "bad_discharge",
        4,
        "invalid",
        when="a discharge that is not valid, sent twice, out of order, or not asked for",
        retry="no",
        public="A discharge that was presented was not accepted.",
        model=_STRANGER,
        advice=_REPLACE,
        operator=(
            "the discharge is not from the third party that was asked, or is not bound to this "
            "token"
        ),
        cause="The discharge is for another token, or from another third party.",
        remedy=(
            "Send what `present()` returns: it binds each discharge to the token, in the right "
            "order."
        ),
    ),
    Code(
        "unreadable_link",
        5,
        "invalid",
        when="a link that breaks a rule of section 17",
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
        when="a link with a key that the verifier does not know",
        retry="no",
        public="The token carries a restriction that this server does not know.",
        model=_STRANGER,
        advice=_REPLACE,
        operator='caveats that this server does not know: ["acme:region"]',
        cause=(
            "A link has a caveat that this verifier does not know, so it may restrict anything."
        ),
        remedy=(
            "Give the verifier a `vocabulary=` with your own caveats, or upgrade captoken there."
        ),
    ),
    Code(
        "broken_delegation",
        6,
        "invalid",
        when="a hand-over that does not continue the one before",
        retry="no",
        public="The token's chain of delegation is broken.",
        model=_STRANGER,
        advice=_REPLACE,
        operator="sales-agent delegates, but orchestrator holds the token",
        cause=(
            "An agent that did not hold the token handed it on, or it went back to an earlier "
            "holder."
        ),
        remedy=(
            "Hand it on with `delegate(to=…)`, once to each agent, and give each agent its own "
            "name."
        ),
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
        cause="The token was handed on more often than its `depth` permits.",
        remedy="Ask for a token with more `depth`, or let an agent further up do the work.",
    ),
    Code(
        "delegate_only",
        6,
        "insufficient",
        when="only for handing on, and not handed on",
        retry="no",
        public="The token is for handing on, not for use.",
        model="Not permitted: the credential is for handing on to a sub-agent, not for use.",
        advice=_HAND_ON,
        operator="the token can only be handed on, and nobody has handed it on",
        cause="The token is only for handing on, and its holder tried to use it.",
        remedy="Hand it to a sub-agent with `delegate(to=…)`: the sub-agent can use it.",
    ),
    Code(
        "revoked",
        7,
        "invalid",
        when="by an entry of the overlay",
        retry="no",
        public=_UNACCEPTED,
        model="The operator has revoked this token.",
        advice=_STOP,
        operator=(
            "revoked by ops at 2025-11-25T09:00:00+00:00: the task is over (an operator can lift "
            "entry dUw3o9nMvBA)"
        ),
        cause=(
            "The operator has ended the task, or revoked this token or one that it comes from."
        ),
        remedy=(
            "Stop, and ask the operator that the message names. `captoken lift --entry ID` gives "
            "the rights back. A new token of an ended task is revoked too: use another task name."
        ),
    ),
    Code(
        "narrowed",
        7,
        "insufficient",
        when="an entry of the overlay prohibits it",
        retry="no",
        public=_REFUSED,
        model="Not permitted for now: the operator has narrowed this task.",
        advice=_NARROWED,
        operator=(
            "narrowed by ops at 2025-11-25T09:00:00+00:00: read-only for now (an operator can lift "
            "entry dUw3o9nMvBA); operation update "
            'is not among ["select"]'
        ),
        cause="The operator has taken back some of the token's rights, and the request needs them.",
        remedy="Go on without it, or ask the operator that the message names.",
    ),
    Code(
        "stale_overlay",
        7,
        "unavailable",
        when="no overlay, or one that is too old",
        retry="later",
        public=_UNDECIDED,
        model="The server cannot decide right now.",
        advice=_LATER,
        operator="the newest overlay is from 2025-11-25T09:00:00+00:00, more than 60 s ago",
        cause=(
            "The server's overlay is missing or too old, so it may not know of a revocation."
        ),
        remedy=(
            "Check that the server's `Feed` is running and that the operator calls `renew()`. A "
            "token with `fresh` may need a newer overlay than the server keeps."
        ),
    ),
    Code(
        "stale_grant",
        7,
        "invalid",
        when="a grant that must be verified again",
        retry="presented_anew",
        public="The token must be presented again.",
        model="The credential was checked too long ago.",
        advice=_AGAIN,
        operator="verified at 2025-11-25T09:00:00+00:00, more than 3600 s ago",
        cause="The grant was verified longer ago than the verifier's `max_age`.",
        remedy="Present the token again, and use the new grant.",
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
        cause="The token, or one of its links, has expired.",
        remedy=(
            "Ask whoever gave you the token for a new one. If it is new, check the server's clock."
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
        cause="The token begins later, or the issuer's clock is ahead of this one.",
        remedy=(
            "Wait, or set the clocks of issuer and server. `Verifier(…, leeway=SECONDS)` allows a "
            "known difference; without it, an issuer may be a minute ahead."
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
        when="for no server in particular, where one is needed",
        retry="no",
        public="The token is not addressed to this server.",
        model="The credential is not addressed to this server.",
        advice=_REPLACE,
        operator="the token names no server, and this server takes only tokens addressed to it",
        cause="The token must be for this one server, and it names none, or several.",
        remedy=(
            "Send what `present(audience=…)` returns, not the token itself. A server that checks "
            "proofs needs a name: `Verifier(…, audience=…)`."
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
        advice=_SPELL_IT,
        operator='table hr is not among ["market.*", "sales"]',
        cause="The token does not include this table.",
        remedy=(
            "Use another table, or ask whoever added the link for a token that includes this one."
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
            "Use another operation, or ask whoever added the link for a token that includes this "
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
        cause="The token does not include some of the columns, or the access names none.",
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
        when="a row with another value, no row stated, or a condition that was not applied",
        retry="no",
        wider=True,
        public=_REFUSED,
        model="Not permitted: some of the rows of table {table}.",
        advice=_ASK,
        operator="column tenant of table orders does not satisfy {\"in\": [\"acme\"]}",
        cause=(
            "The token permits only some rows of the table. The row is not one of these, or the "
            "server cannot tell which rows are touched."
        ),
        remedy=(
            "Ask for rows that the token permits. A server states `row` and `becomes`, or in "
            "`rows` the conditions of `grant.rows` that it has applied."
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
        cause="The token does not include this tool.",
        remedy=(
            "Call another tool, or ask whoever added the link for a token that includes this one."
        ),
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
        model="Not permitted under the current conditions.",
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
        model="Not permitted: requests of this kind are not part of this task.",
        advice=_ASK,
        operator="the token is for tables only, not for tools",
        cause=(
            "The token is for tables only or for tools only, and the access is of the other kind."
        ),
        remedy=(
            "State a table or a tool. When you narrow a token, `keep=` keeps the other kind."
        ),
    ),
    Code(
        "task",
        8,
        "insufficient",
        when="tasks that are not above or below one another",
        retry="no",
        public="The token is for another task.",
        model="Not permitted: the credential is for another task.",
        advice=_REPLACE,
        operator="task other is neither above nor below task task-123",
        cause="The tasks that the token's links name are not above or below one another.",
        remedy="Name the token's own task, or one below it, as `task-123/sub`.",
    ),
    Code(
        "cost_unstated",
        8,
        "insufficient",
        when="a unit of a `budget` that the access does not state",
        retry="no",
        public="The server did not state what the request costs.",
        model="Not permitted: the server did not state what the request costs.",
        advice=_FAULT,
        operator=(
            "the server did not state what it costs in usd_cents; if it costs nothing, write "
            'cost={"usd_cents": 0}'
        ),
        cause="The token has a `budget` in a unit, and the access does not say what it costs.",
        remedy="Write `cost=` where the access is made, also if the cost is 0.",
    ),
    Code(
        "too_much_work",
        8,
        "insufficient",
        when="constraints, with the values they check, that are too large for one decision",
        retry="no",
        public="The request is too large to be checked against the token.",
        model="Not permitted: the request is too large to be checked.",
        advice=_SHORTER,
        operator="the constraints, with the values they check, are larger than 1048576",
        cause=(
            "The restrictions of the token, with the values of the access that they check, are too "
            "large for one decision: more than 1 MiB (spec 24.25). Or the call states more than an "
            "adapter passes to a verifier: 256 KiB."
        ),
        remedy=(
            "State shorter values, or split the call. Shorten the chain: each link checks the "
            'values again. Leave an argument free with `{"any": true}` if it may have any value.'
        ),
    ),
    Code(
        "consent_missing",
        8,
        "insufficient",
        when="a person has to consent to this access, and no consent to it came along",
        retry="no",
        public="A person has to consent to this request.",
        model="Not permitted yet: a person has to consent to this very request.",
        advice=(
            "Stop here until the person has decided, and then retry the same request. A consent is "
            "for nothing else."
        ),
        operator="tool mail.send(to, text) needs a consent of PUBLIC",
        cause="A link of the token lets nobody do this without the consent of a person, each time.",
        remedy=(
            "Give `decision.request()` to the person whose key the message names. Show the consent "
            "with the token: `current.use(token, consents=[…])`, `present(consents=[…])`, or "
            "`grant.with_consents([…])`."
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
            "The server knows that another agent calls, or from another task, than the token says."
        ),
        remedy=(
            "Hand the token to the calling agent with `delegate(to=…)`, and call with the new "
            "token."
        ),
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
            "Call `present(…, signer=key, request=…)` for each request, and send the text that it "
            "returns."
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
        "bad_consent",
        10,
        "proof",
        when="a consent to this access that does not hold, or is late",
        retry="no",
        public="The consent that came with the request was not accepted.",
        model=(
            "The consent to this request was used already, is over, or is not of the person who "
            "was asked."
        ),
        advice="Ask for the consent again, and then retry with the new one.",
        operator="the consent is not signed by the key that is asked",
        cause="The consent has expired, lives longer than an hour, or is of another key.",
        remedy="Ask again: `decision.request()` of a call without it has what to ask.",
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
        operator="the proof was used before, or is older than the store remembers",
        cause="The proof was used before, or was made before the server's store of proofs began.",
        remedy=(
            "Make a new proof for each request, also for a retry. A consent that was used is told "
            "to agents as `bad_consent` is: ask for a new one."
        ),
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
        public="The token has too little left for this request.",
        model="Not permitted: this needs more than is left of this task's allowance.",
        advice=_LESS,
        operator="this needs 5 usd_cents, and less is left of the 200",
        cause=(
            "The `uses` or the `budget` of the token, or of one above it, has less left than the "
            "request needs."
        ),
        remedy="Ask for less, or ask whoever added the link for a new token.",
    ),
    Code(
        "store_unavailable",
        11,
        "unavailable",
        when="a store that is missing, full, or cannot know",
        retry="later",
        public=_UNDECIDED,
        model="The server cannot decide right now.",
        advice=_LATER,
        operator=(
            "this verifier needs a ledger (ledger=) for a token with uses, a budget or marks"
        ),
        cause="A store or the audit trail does not answer, is full, or is missing.",
        remedy=(
            "Fix what the message names: the file, the server, or `Verifier(replays=…, ledger=…)`. "
            "The retry needs a new proof."
        ),
    ),
)

# What there is to know of each code of a denial, by the code.
CODES: dict[str, Code] = together(RECORDS)
