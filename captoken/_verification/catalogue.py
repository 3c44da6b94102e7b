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
            "A text is no token, or no discharge. It was cut, joined or changed on its way.",
            "Read the whole text, without quotes, spaces or line feeds in it. "
            "What another library wrote goes through `captoken.interop.normalize`.",
            "a token starts with cap1_, and this text does not",
        ),
        "unsupported_version": (
            "The token is of a version that this captoken does not know.",
            "Upgrade captoken.",
            "version 2 of the root record is not known here",
        ),
    },
    WideningError: {
        "widening": (
            "A narrowing asks for more than the token holds. A token only ever gets narrower.",
            "Write what the message says at its end; or pass `clamp=True`, which takes what "
            "there is of it. `error.excess` is the part that is too much.",
            "depth: more than the token holds; asked for 3, it holds 1, too much is 2; "
            "after this link 1 are left",
        ),
        "nothing_left": (
            "With `clamp=True` nothing is left: what is asked for and what is held share nothing.",
            "Ask for something that `error.held` has.",
            "tools: more than the token holds; asked for {'refund': {}}, it holds {'lookup': {}}, "
            "too much is {'refund': {}}; "
            "nothing of what is asked for is held",
        ),
    },
    DelegationError: {
        "too_deep": (
            "The token may be handed on no further: a `depth` in it is used up.",
            "Narrow it with `attenuate`, or ask for a token with more `depth`.",
            "no more delegations are permitted: use it, or ask for a token with more depth",
        ),
        "broken_delegation": (
            "The agent has held the token before, or a key is missing that is due.",
            "Hand it to an agent that has not held it. A bound token goes on to a key: "
            "`delegate(to=…, key=…, signer=…)`.",
            "orchestrator has held this token before: hand it to an agent that has not",
        ),
        "bad_proof": (
            "The token is bound to a key, and the signer that is due is missing or another one.",
            "Pass `signer=` with the key that the token is bound to.",
            "the signer is not the key that the token is bound to",
        ),
    },
    DischargeError: {
        "bad_ticket": (
            "The ticket is no ticket, or is for another discharger.",
            "Send one of `token.needs` to the service whose public key it names.",
            "the ticket is for another discharger",
        ),
        "refused": (
            "The third party said no, or a lease is over.",
            "Do what the message says, or go on without. Asking again will not help.",
            "the lease is over: the task is done",
        ),
        "undecided": (
            "Nobody has decided yet.",
            "Ask again later. Where a person decides, pass `tell=`, which is called with the "
            "address of the page.",
            "a person has to decide, and `tell` is not given",
        ),
        "bad_discharge": (
            "What came is no discharge, or answers another ticket than the token has.",
            "Ask for each of `token.needs`, and attach what comes with `with_discharge`.",
            "asked for a discharge, and got that of another ticket",
        ),
    },
    AuditError: {
        "audit": (
            "The audit trail was changed, cut or set back, or is written by somebody else.",
            "Keep the file as it is, and compare it with a copy from before the record that the "
            "message names. Each process that writes has a file of its own.",
            "after record 17 comes 19: cut, or in another order",
        ),
    },
    RecallError: {
        "recall": (
            "A holder asks to revoke what it did not hand on, or the recall cannot be read.",
            "Make the recall from the token that you held and the one that you handed on.",
            "the holder did not have the token at that link",
        ),
    },
    OverlayError: {
        "overlay": (
            "A snapshot of the overlay will not do: unreadable, too old, or not signed by an "
            "operator that is trusted here.",
            "Give the `Feed` the public key of the operator that publishes, and look whether both "
            "use the same store.",
            "no operator that is trusted here signed the snapshot",
        ),
    },
    StoreError: {
        "store": (
            "A store is full, cannot be reached, or cannot know what it is asked. "
            "A verifier then denies.",
            "Mend what the message names: create the file or the tables, start the server, or "
            "change its setting.",
            "SQLite 'proofs.db': this store is not there: create makes one, "
            "as SQLiteReplayStore.create(path)",
        ),
    },
    NoToken: {
        "no_token": (
            "Code asks for the token or the grant at hand, and there is none.",
            "Run it within `with captoken.current.use(token):`, or behind an adapter that lets "
            "requests in.",
            "no token is current here: `with captoken.current.use(token)`, or pass one",
        ),
    },
    Refused: {
        "refused": (
            "A client's request is refused. Either what is held does not permit it, and nothing "
            "was sent, or the server said no.",
            "Give the model `error.for_model`. The message is for you: it says what is held, or "
            "what the server said.",
            "not sent: tools: more than the token holds",
        ),
    },
    LimitError: {
        "limit": (
            "The token would be longer, or have more parts, than readers take.",
            "Name fewer things: `error.costs` says how many characters each link takes. "
            "Or ask the issuer for a new token that begins narrower.",
            "the token would have 65 links, more than 64: say more in one link, or ask for a token "
            "with fewer",
        ),
    },
    KeyringError: {
        "keyring": (
            "A key file is missing, cannot be read, is open to others, or holds no such key.",
            "Do what the message says. `captoken keygen` and `save(path)` make key files.",
            "the key file 'keys.json' cannot be read: No such file or directory",
        ),
    },
    GuardError: {
        "guard": (
            "A guarded connection or agent is used in a way that the guard cannot see, or cannot "
            "be guarded here.",
            "Do what the message says. A block is for one thread, on a connection without an open "
            "transaction, and ends before the next begins.",
            "the block belongs to another thread: each has a block of its own",
        ),
        "outcome_unknown": (
            "The connection to the database was lost while the commit was under way. So what was "
            "written may be there, and may not. It counts as spent.",
            "Look in the database which of the two it is. Nothing here tries again by itself: what "
            "is written twice could be there twice.",
            "the connection was lost at the commit: whether what was written is there is not known",
        ),
        "row": (
            "A token says of the rows of a table what no condition in SQL says exactly.",
            "Of rows that a database holds back use `any`, `in`, `min` and `max`, or a `prefix` "
            "that no url and no address begins with. Or state the row itself, and ask about that.",
            "this guard cannot hold rows by site: no condition in SQL says the same as this "
            "constraint",
        ),
    },
    StatementError: {
        code: (
            f"{words.sentence}. Nothing of the statement stands.",
            f"{words.advice} `for_model()` says both to the agent.",
            str(mistake(code, *_STATES[code])),
        )
        for code, words in WORDS.items()
    },
    IssuanceError: {
        "policy": (
            "A policy of issuance does not load, or a test of its own fails.",
            "Do what the message says. `captoken issue check` tells it before the service does.",
            "the policy does not load: grant.nightly: there is no resource hr-db",
        ),
        "invalid_request": (
            "The request to the issuer is not as OAuth has it, or shows an assertion that is not "
            "taken. Of a token exchange, it may also fit no grant.",
            "Do what the message says. What it does not say is in the issuer's log.",
            "actor_token or client_assertion: one of them",
        ),
        "invalid_client": (
            "The caller shows no assertion of its own, or one that is refused. A secret is none.",
            "Show a signed assertion of the workload that asks, made for this issuer.",
            "client_assertion is missing: no secret will do",
        ),
        "invalid_grant": (
            "The assertion is refused, was used before, or is of a login that ended. Or the task "
            "that is to be joined is not there for who asks.",
            "Get a fresh assertion, made for this issuer. The message says which rule it breaks.",
            "the assertion is refused: its signature does not hold",
        ),
        "unauthorized_client": (
            "No grant of the policy is for this workload.",
            "Ask whoever keeps the policy. `captoken issue explain` says why no grant fits.",
            "no grant is for who asks",
        ),
        "unsupported_grant_type": (
            "The issuer takes token exchange, jwt-bearer and client_credentials alone.",
            "Use one of the three.",
            "that grant_type is not one of ours",
        ),
        "invalid_scope": (
            "`scope` names no grant of the policy. Or several grants fit, and none is named.",
            "Name one grant as `scope`.",
            "there is no such grant",
        ),
        "invalid_target": (
            "`resource` is missing, or no server of the grant.",
            "Name one of the grant's servers, by its audience or its address.",
            "the grant has no such resource",
        ),
        "invalid_authorization_details": (
            "What is asked for is more than the grant gives, or is no keyword of `attenuate`.",
            'Ask for less, or say `"clamp": true` to get what there is.',
            "authorization_details: it is a list of one object",
        ),
        "invalid_dpop_proof": (
            "The proof of the key is missing, of another request or time, or by another kind of "
            "key.",
            "Make a fresh proof for each request, by an Ed25519 key.",
            "the grant wants a DPoP proof of an Ed25519 key",
        ),
        "access_denied": (
            "Who asks fits no grant of the policy, or has too many tasks, or too many assertions "
            "in the registry. Over HTTP it has another code, by the kind of request.",
            "`captoken issue explain` says why no grant fits. Tasks end by their deadline.",
            "this grant is not for who asks",
        ),
        "temporarily_unavailable": (
            "The registry, or the keys of a provider, cannot be asked now. Nothing was started.",
            "Try again later. The issuer's log says which of them it is.",
            "try again later",
        ),
        "slow_down": (
            "This identity asks too often. Others are not concerned.",
            "Wait as long as `Retry-After` says. `per_minute` in the policy says how often.",
            "too many requests of yours: wait",
        ),
        "unsupported_response_type": (
            "Somebody was sent to the issuer's address for logins. There is no login.",
            "Log in at the identity provider, and show its ID token at the token endpoint.",
            "there is no login here: show an assertion at the token endpoint",
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
