"""Runs an implementation against `spec/vectors/`: reads JSON, asks an adapter, compares. To be copied.

An adapter has a function for each kind of vector. Each takes a vector and returns what the implementation makes of it, as
the vector's `expect` has it: an object with `code` and whatever else belongs to that outcome. What a vector may have and
has not is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"
PASSING = ("allowed", "ok")  # every other code is a failure

Vector = dict[str, Any]
Outcome = dict[str, Any]


class Adapter(Protocol):
    def decide(self, vector: Vector) -> Outcome:
        """kind `decision`: token, the text with the discharges and the proof that come with it; keyring, facts, access (null:
        none is asked about), caller. `code`; and for `allowed` `link_ids`, `chain`, `task`, `expires_at`. A fact that cannot be stated is `usage`.

        It may have `request`, in hexadecimal the digest that a transport states, without which the access is the request; and
        `replays`, the store of used proofs, without which there is none: its floor, its limit, and
        `used`, which came into it in this order, each at the second at which it was issued. An allowed token that is bound
        to a key also has `key`, `uses` (what is committed) and `evidence` (of each hand-over that is signed).

        It may have `ledger`, without which there is none: its floor, whether it is `shared`, and `spent`, what buckets
        have been debited before; an allowed token then has `debits`, what is taken of each bucket, from the first link to
        the last. It may have `overlay`, without which none is asked: the snapshot (null: there is none yet), a byte a
        character, the `operators` whose keys count, `max_staleness`, and whether a stale one will do, `allow_stale`."""

    def chain(self, vector: Vector) -> Outcome:
        """kind `chain`, all in hexadecimal: key, identifier, caveats. `ok` with `derived`, `tags`, and `bound`, null where
        `bound_to` is."""

    def capability(self, vector: Vector) -> Outcome:
        """kind `capability`: two links, one and two, without `n`. `ok` with `meet`, `one_covers_two`, `two_covers_one`."""

    def widening(self, vector: Vector) -> Outcome:
        """kind `widening`: token, asked, to (null: no hand-over), now, nonce. `ok` with the `link` that is written; or
        `widening` or `nothing_left` with `dimension`; or `too_deep`, `broken_delegation`, `bad_proof`, `limit`, `usage`.
        It may have `signer`, a holder's secret; the outcome then has the `signature` of the link."""

    def interop(self, vector: Vector) -> Outcome:
        """kind `interop`: source, in the form text or hexadecimal. `ok` with `text`, or `malformed`."""

    def request(self, vector: Vector) -> Outcome:
        """kind `request`: in the form `http` method, origin, target, body; `mcp` method, tool, arguments; `access` access
        (null: none); `message` method and params of MCP. Bodies and arguments in hexadecimal. `ok` with `digest`, or `usage`."""

    def proof(self, vector: Vector) -> Outcome:
        """kind `proof`: token, a text as it was presented without a proof; a holder's secret, audience, request, now, nonce.
        `ok` with `text`, which ends in the proof; `malformed`, `limit`, `usage`."""

    def presenting(self, vector: Vector) -> Outcome:
        """kind `presenting`: token, a text that a holder has; audience, a name or several; now; perhaps a holder's secret,
        with the nonce to draw and the `request`, without which there is no access. `ok` with the `text` for 60 seconds;
        `bad_proof`, `limit`, `usage`."""

    def evidence(self, vector: Vector) -> Outcome:
        """kind `evidence`: evidence. `ok` if it holds, else `bad_proof`."""

    def asking(self, vector: Vector) -> Outcome:
        """kind `asking`: token, discharger (a public key), need, location (null: none); and as random bytes caveat_key,
        ephemeral (the secret of the sealed box), nonce (of the secret box). `ok` with `token`; `limit`, `usage`."""

    def discharge(self, vector: Vector) -> Outcome:
        """kind `discharge`: a discharger's secret, ticket, asked (the caveats to give), now. `ok` with `need` and with
        `discharge`, unbound; `bad_ticket`, `usage`."""

    def holding(self, vector: Vector) -> Outcome:
        """kind `holding`: a text that a holder is handed, with the discharges that were got for it. `ok` with `needs`, the
        tickets without a discharge, and with the text `bound`, as a verifier takes it; or `malformed`."""

    def pairwise(self, vector: Vector) -> Outcome:
        """kind `pairwise`: a secret; `server`, for the issuer that has it, or `issuers`, for the server; audience. Public
        keys are base64url. `ok` with `keys` by key id, in hexadecimal, or `usage`."""

    def key_file(self, vector: Vector) -> Outcome:
        """kind `key_file`: purpose, and the content, a byte a character, of a file that its owner alone can read. `ok` with
        `public`, or for a keyring with `keys`, `current`, `audience`; or `keyring`."""

    def snapshot(self, vector: Vector) -> Outcome:
        """kind `snapshot`: a snapshot of the overlay, a byte a character; `operators`, the public keys that are trusted;
        perhaps `known`, the one that is known before it. `ok` with seq, issued_at, expires_at, and the ids of all
        `entries`; or `overlay`."""

    def delta(self, vector: Vector) -> Outcome:
        """kind `delta`: `known`, a snapshot; `deltas`, that are said to follow on it, one after the other; all a byte a
        character; `operators`. `ok` with seq, issued_at, expires_at, the ids of all `entries` in order, and the `hash` by which
        the next delta would name it; or `overlay`."""

    def recall(self, vector: Vector) -> Outcome:
        """kind `recall`: the request of a holder; keyring, audience and now of the control plane. `ok` with the `token` and
        the `link` (null: all of it) that are revoked, `asked` and `until` of that entry; `recall`; or why the token is not
        accepted. It may have `standing`, entries that stand before, `most`, the bound instead of 100, and `part`, how many
        bytes entries with `asked` may be, instead of a quarter of the largest snapshot. The outcome then has `stands`: of
        all that stand after it token, link, asked and until, null for what they have not, sorted."""

    def counting(self, vector: Vector) -> Outcome:
        """kind `counting`: keyring, audience, a `ledger` that is new, and `steps`, which come to it one after another: token,
        access, now, perhaps the `leeway` of that verifier. A step with `settle` (amounts by unit, null: all) or `cancel` is
        reserved, and closed at `closed_at`, or at once; and closed `again` then, where it says so, in one of the same two
        ways. `ok` with `codes`: of each step, and behind that of one that is closed `closed`, `too_late`, or `usage` for
        amounts that are none, each time. The ledger may have `kept`, what others made in it before: of each tree the number of
        `buckets`, and `until` when they are kept (null: for good)."""

    def trail(self, vector: Vector) -> Outcome:
        """kind `trail`: an audit trail, a byte a character; `servers`, the public keys that are trusted (none: checkpoints
        are not looked at); `known`, heads that somebody kept; perhaps `after`, the head that it goes on after. `ok` with its
        `head`, the last record that is `signed` for, and the number of `decisions`; or `audit`."""

    def recorded(self, vector: Vector) -> Outcome:
        """kind `recorded`: the JSON text of a tool's arguments. `ok` with the `arguments` as a record has them, values and
        all."""


def families(folder: Path = VECTORS) -> Iterator[dict[str, Any]]:
    """The files: each a family, with its vectors."""
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def vectors(folder: Path = VECTORS) -> Iterator[Vector]:
    for family in families(folder):
        yield from family["vectors"]


def answer(adapter: Adapter, vector: Vector) -> Outcome:
    """What the implementation makes of a vector."""
    kind = vector["kind"]
    outcome: Outcome = getattr(adapter, "decide" if kind == "decision" else kind)(vector)
    return outcome


def differences(adapter: Adapter, folder: Path = VECTORS) -> Iterator[tuple[str, Outcome, Outcome]]:
    """The vectors that come out otherwise: name, what was expected, what came."""
    for vector in vectors(folder):
        came = answer(adapter, vector)
        if came != vector["expect"]:
            yield vector["name"], vector["expect"], came
