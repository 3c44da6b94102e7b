"""Each error and each code of a denial, with what it means and what to do about it: one table.

`captoken.testing.error_catalogue` gives it out, and the page `docs/errors.md` is made of it. It is
for people who read an error for the first time. Nothing decides by it. What is raised stands here;
codes of denials have their words in `records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from captoken._format.errors import (
    AuditError,
    CaptokenError,
    ConsentError,
    DelegationError,
    DischargeError,
    GuardError,
    IssuanceError,
    KeyringError,
    LimitError,
    NoToken,
    OverlayError,
    RecallError,
    Refused,
    StatementError,
    StoreError,
    TokenFormatError,
    WideningError,
)
from captoken._verification.decision import Denied
from captoken._verification.mistakes import WORDS, mistake
from captoken._verification.records import RECORDS


class ErrorEntry(NamedTuple):
    """One error, by its type and code: what it means, and what to do."""

    error: type[CaptokenError]
    code: str
    cause: str
    remedy: str
    example: str  # one of the messages; of a denial, the sentence for the operator


# The cause, the remedy and an example of each code.
_Entries: TypeAlias = Mapping[str, tuple[str, str, str]]

# PostgreSQL's code for each fault of a statement, and a word of the statement.
_STATES = {
    "syntax": ("42601", "selct"),
    "name": ("42703", "amuont"),
    "type": ("42804",),
    "value": ("22012",),
    "cardinality": ("21000",),
    "unique": ("23505",),
    "foreign_key": ("23503",),
    "not_null": ("23502",),
    "check": ("23514",),
    "raised": ("P0001",),
    "parameters": ("08P01",),
    "too_large": ("54000",),
    "too_many_rows": (),
    "unsupported": ("0A000",),
}

# What is raised, in the order in which the tree is drawn.
_RAISED: Mapping[type[CaptokenError], _Entries] = {
    TokenFormatError: {
        "malformed": (
            "The text is not a token or a discharge. It was cut, joined or changed on the way.",
            "Read the whole text, without quotes, spaces or line feeds. Pass tokens from another "
            "library through `captoken.interop.normalize`.",
            "a token starts with cap1_, and this text does not",
        ),
        "unsupported_version": (
            "The token has a version that this captoken does not know.",
            "Upgrade captoken.",
            "this server does not know version 2 of the root record",
        ),
    },
    WideningError: {
        "widening": (
            "You asked for more than the token holds. A token can only be narrowed.",
            "Write what the end of the message says, or pass `clamp=True` to take as much as the "
            "token has. `error.excess` is the part that is too much.",
            "depth: more than the token holds; asked for 3, it holds 1, too much is 2; "
            "after this link 1 are left",
        ),
        "nothing_left": (
            "Even with `clamp=True` nothing is left: the token has nothing of what you asked for.",
            "Ask for something that `error.held` has.",
            "tools: more than the token holds; asked for {'refund': {}}, it holds {'lookup': {}}, "
            "too much is {'refund': {}}; the token has nothing of what you ask for",
        ),
    },
    DelegationError: {
        "too_deep": (
            "The token cannot be handed on any further: its `depth` is used up.",
            "Narrow it with `attenuate`, or ask for a token with more `depth`.",
            "the token permits no more delegations: use it yourself, or ask for a token with more "
            "depth",
        ),
        "broken_delegation": (
            "The agent has held the token before, or a key is missing that the token needs.",
            "Delegate to an agent that has not held it. A bound token is handed to a key: "
            "`delegate(to=…, key=…, signer=…)`.",
            "orchestrator has held this token before: delegate to another agent",
        ),
        "bad_proof": (
            "The token is bound to a key, and the signer is missing or has another key.",
            "Pass `signer=` with the key that the token is bound to.",
            "the signer is not the key that the token is bound to",
        ),
    },
    DischargeError: {
        "bad_ticket": (
            "The text is not a ticket, or is for another discharger.",
            "Send one of `token.needs` to the service whose public key it names.",
            "the ticket is for another discharger",
        ),
        "refused": (
            "The third party said no, or a lease is over.",
            "Do what the message says, or go on without it. Asking again will not help.",
            "the lease is over: the task is done",
        ),
        "undecided": (
            "Nobody has decided yet.",
            "Ask again later. If a person decides, pass `tell=`: it is called with the address of "
            "the page.",
            "a person has to decide: pass `tell`, which gets the address of the page",
        ),
        "bad_discharge": (
            "The answer is not a discharge, or is for another ticket than the token has.",
            "Ask for a discharge of each of `token.needs`, and attach it with `with_discharge`.",
            "asked for a discharge, and got that of another ticket",
        ),
    },
    ConsentError: {
        "bad_request": (
            "The text is not a request for a consent, or asks another key.",
            "Pass the text of `decision.request()`, whole and unchanged, to the person it is for.",
            "the request is for another key",
        ),
    },
    AuditError: {
        "audit": (
            "The audit trail was changed, cut or restored from an old copy, or another process "
            "writes it.",
            "Keep the file as it is, and compare it with a copy from before the record that the "
            "message names. Each process that writes has a file of its own.",
            "after record 17 comes record 19: records were cut out, or are in another order",
        ),
    },
    RecallError: {
        "recall": (
            "A holder tried to revoke something that it did not hand on, or the recall cannot be "
            "read.",
            "Make the recall from the token that you held and the one you handed on.",
            "the holder did not hold the token at that link",
        ),
    },
    OverlayError: {
        "overlay": (
            "A snapshot of the overlay is unreadable, too old, or not signed by an operator that "
            "the server trusts.",
            "Give the `Feed` the public key of the operator that publishes, and check that both "
            "use the same store.",
            "the snapshot is not signed by an operator that this server trusts",
        ),
    },
    StoreError: {
        "store": (
            "A store is full, cannot be reached, or cannot know the answer. A verifier then "
            "denies.",
            "Fix what the message names: create the file or the tables, start the server, or "
            "change its setting.",
            "SQLite 'proofs.db': there is no store here: create makes one, "
            "as SQLiteReplayStore.create(path)",
        ),
    },
    NoToken: {
        "no_token": (
            "Your code needs the current token or grant, and there is none.",
            "Run it inside `with captoken.current.use(token):`, or in a request that an adapter "
            "has let in.",
            "no token is in use here: wrap the call in `with captoken.current.use(token):`, or "
            "pass one; to a thread, `captoken.current.carry(function)` carries it",
        ),
    },
    Refused: {
        "refused": (
            "A client's request was refused. Either the token does not permit it, and nothing was "
            "sent, or the server refused it.",
            "Give the model `error.for_model`. The message itself is for you: it says what the "
            "token holds, or what the server said.",
            "not sent: tools: more than the token holds",
        ),
    },
    LimitError: {
        "limit": (
            "The token would be longer, or have more parts, than a verifier accepts.",
            "Name fewer things: `error.costs` says how many characters each link takes. Or ask "
            "the issuer for a narrower token to start from.",
            "the token would have 65 links, more than 64: put more into one link, or ask for a "
            "token with fewer",
        ),
    },
    KeyringError: {
        "keyring": (
            "A key file is missing, cannot be read, is open to others, or does not have the key.",
            "Do what the message says. `captoken keygen` and `save(path)` make key files.",
            "the key file 'keys.json' cannot be read: No such file or directory",
        ),
    },
    GuardError: {
        "guard": (
            "A guarded connection or agent is used in a way that the guard cannot see, or it "
            "cannot be guarded at all.",
            "Do what the message says. Use a block in one thread, on a connection without an open "
            "transaction, and end it before you begin the next.",
            "the block belongs to another thread: open a block in each thread",
        ),
        "outcome_unknown": (
            "The connection to the database was lost during the commit, so the writes may or may "
            "not be there. They count as spent.",
            "Look in the database whether the writes are there. captoken does not retry, because "
            "that could write them twice.",
            "the connection was lost at the commit: the changes may or may not be saved",
        ),
        "row": (
            "The token restricts rows with a constraint that SQL cannot express exactly.",
            "For rows that a database filters, use `any`, `in`, `min` and `max`, or a `prefix` "
            "that does not look like a url or an address. Or state the row itself in the access.",
            "this guard cannot hold rows by site: no condition in SQL says the same as this "
            "constraint",
        ),
    },
    StatementError: {
        code: (
            f"{words.sentence}. The statement changed nothing.",
            f"{words.advice} `for_model()` says both to the agent.",
            str(mistake(code, *_STATES[code])),
        )
        for code, words in WORDS.items()
    },
    IssuanceError: {
        "policy": (
            "A policy of issuance does not load, or a test of its own fails.",
            "Do what the message says. `captoken issue check` finds it before the service starts.",
            "the policy does not load: grant.nightly: there is no resource hr-db",
        ),
        "invalid_request": (
            "The request to the issuer is not valid OAuth, or its assertion is not accepted. A "
            "token exchange gets this also if no grant fits.",
            "Do what the message says. The issuer's log has the rest.",
            "send actor_token or client_assertion, not both",
        ),
        "invalid_client": (
            "The caller sent no assertion of its own, or one that is refused. A client secret is "
            "not enough.",
            "Send a signed assertion of the calling workload, made for this issuer.",
            "client_assertion is missing: this service takes no client secret",
        ),
        "invalid_grant": (
            "The assertion, code or refresh token is refused, was used before, or belongs to a "
            "login that ended. Or the caller cannot join that task.",
            "Get a fresh one, made for this issuer. The message says which rule it breaks.",
            "the assertion is refused: its signature does not hold",
        ),
        "unauthorized_client": (
            "No grant of the policy is for this workload.",
            "Ask whoever keeps the policy. `captoken issue explain` says why no grant fits.",
            "no grant is for this caller",
        ),
        "unsupported_grant_type": (
            "The issuer accepts only token exchange, jwt-bearer and client_credentials; and codes "
            "and refresh tokens if its policy has a login.",
            "Use one of these.",
            "this service does not take that grant_type",
        ),
        "invalid_scope": (
            "`scope` does not name a grant of the policy, or several grants fit and it names none.",
            "Name one grant as `scope`.",
            "there is no such grant",
        ),
        "invalid_target": (
            "`resource` is missing, or is not a server of the grant.",
            "Name one of the grant's servers, by its audience or its address.",
            "the grant has no such resource",
        ),
        "invalid_authorization_details": (
            "The request asks for more than the grant gives, or for something that is not a "
            "keyword of `attenuate`.",
            'Ask for less, or write `"clamp": true` to get as much as the grant has.',
            "authorization_details: it is a list of one object",
        ),
        "invalid_dpop_proof": (
            "The proof of the key is missing, for another request or time, or made with another "
            "kind of key.",
            "Make a fresh proof for each request, with an Ed25519 key.",
            "the grant needs a DPoP proof by an Ed25519 key",
        ),
        "access_denied": (
            "No grant of the policy fits the caller, or the caller has too many tasks, or too "
            "many assertions in the registry. Over HTTP the code depends on the kind of request.",
            "`captoken issue explain` says why no grant fits. Tasks end at their deadline.",
            "the grant is not for this caller",
        ),
        "temporarily_unavailable": (
            "The registry, or the keys of a provider, cannot be reached now. No task was started.",
            "Try again later. The issuer's log says which of them it is.",
            "try again later",
        ),
        "slow_down": (
            "This identity asks too often. Other callers are not affected.",
            "Wait as long as `Retry-After` says. `per_minute` in the policy says how often.",
            "you have sent too many requests: wait",
        ),
        "expired_token": (
            "Nobody logged in at the identity provider in time.",
            "Start the login again, and log in within five minutes.",
            "nobody has logged in, and it took too long",
        ),
        "unsupported_response_type": (
            "A browser was sent to the issuer's login address, but the issuer has no login, or the "
            "client asks for something other than a code.",
            "Write `[login]` into the policy. Or log in at the identity provider, and show its ID "
            "token at the token endpoint.",
            "this service has no login: send an assertion to the token endpoint",
        ),
    },
}


def entries() -> tuple[ErrorEntry, ...]:
    """The table in one list: what is raised, then each code of a denial in the plan's order."""
    raised = [
        ErrorEntry(error, code, *texts)
        for error, by_code in _RAISED.items()
        for code, texts in by_code.items()
    ]
    denied = [ErrorEntry(Denied, one.code, one.cause, one.remedy, one.operator) for one in RECORDS]
    return (*raised, *denied)
