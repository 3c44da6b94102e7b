"""What a vector of each kind has: the JSON Schemas in `spec/vectors/schema/`, and the tables of `spec/vectors/FORMAT.md`.

Both are written from the same rows, so that they cannot differ. A row is a field: its name, its type, what it is. What
stands round the tables is written by hand, in FORMAT.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spec.generate.apart import APART
from spec.generate.table import CODES

VECTORS = Path(__file__).parent.parent / "vectors"
SCHEMAS = VECTORS / "schema"
FORMAT = VECTORS / "FORMAT.md"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

INTEGER: Schema = {"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1}
HEX = "^([0-9a-f]{2})*$"

# The types that FORMAT.md explains.
TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "hex": {"type": "string", "pattern": HEX},
    "bytes": {"type": "string", "pattern": "^[\\u0000-\\u00ff]*$"},
    "b64": {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"},
    "public": {"type": "string"},
    "integer": INTEGER,
    "seconds": INTEGER,
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "link": {"type": "object"},
    "json": {},
    "texts": {"type": "array", "items": {"type": "string"}},
    "codes": {"type": "array", "items": {"type": "string"}},
}
for size in (8, 16, 24, 32):
    TYPES[f"hex {size}"] = {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}


class Field(NamedTuple):
    """A field of a vector, of an object in it, or of what is expected."""

    name: str
    type: str  # a type, an object of OBJECTS; `[…]` a list of it; `… or null`
    what: str
    optional: bool = False
    lossy: bool = False  # it may be carried as JSON text, under its name with `_json` behind


def field(name: str, type_: str, what: str, **more: bool) -> Field:
    return Field(name, type_, what, **more)


DOWN = field("down", "boolean", "it cannot be reached: whatever it is asked, it fails; always true", optional=True)

# --- objects that stand in vectors of several kinds ------------------------------------------------------------------

OBJECTS: dict[str, tuple[Field, ...]] = {
    "keyring": (
        field("keys", "keys", "the root keys by key id, each in hex; 32 bytes, or the keyring is `usage`"),
        field("audience", "text or null", "for which audience alone these keys are (21.4); null: for any"),
    ),
    "facts": (
        field("now", "seconds", "the time by the verifier's clock"),
        field("leeway", "integer", "the verifier's, in seconds"),
        field("audiences", "texts", "the verifier's own names; none: it has none"),
        field("allow_unaddressed", "boolean", "does it take what is addressed to nobody (16.2)?"),
        field("context", "json", "what its facts of the moment are (7.13); left out: it has none", optional=True),
    ),
    "access": (
        field("table", "json", "section 7, and so are all below", optional=True),
        field("operation", "json", "", optional=True),
        field("columns", "json", "left out: not stated (7.3)", optional=True),
        field("row", "json", "7.11; `null`: there is none; left out: not stated", optional=True),
        field("becomes", "json", "likewise", optional=True),
        field("rows", "json", "7.12", optional=True),
        field("tool", "json", "", optional=True),
        field("arguments", "json", "", optional=True),
        field("attributes", "json", "", optional=True),
        field("cost", "json", "by unit, 7.9", optional=True),
    ),
    "caller": (
        field("agent", "json", "section 7.6, and so is the other", optional=True),
        field("task", "json", "", optional=True),
    ),
    "replays": (
        field("floor", "seconds", "its floor: what was made then or before is refused (31.3)"),
        field("limit", "integer", "how many uses it holds that may not be forgotten (31.4)"),
        field("used", "[use]", "what came into it before, in this order, each at the second at which it was issued"),
        field("spent", "[use]", "likewise, of consents (47.9); left out: none", optional=True),
        DOWN,
    ),
    "use": (
        field("entry", "hex 16", "31.1; of a consent 47.9"),
        field("issued_at", "seconds", "the `iat` of the proof or the consent"),
    ),
    "ledger": (
        field("floor", "seconds", "its floor (38.9)"),
        field("shared", "boolean", "is it declared to be shared by all servers (38.6)?"),
        field("spent", "[spent]", "what was taken before, one reservation each; one bucket twice: both were taken, and add up"),
        field("marks", "[b64]", "the buckets of the marks that were set before, for good (46.3); left out: none", optional=True),
        DOWN,
    ),
    "spent": (
        field("bucket", "b64", "a link id"),
        field("unit", "text", "38.1"),
        field("amount", "integer", "so much of it; it counts as spent"),
    ),
    "debit": (
        field("bucket", "b64", "a link id"),
        field("unit", "text", "38.1"),
        field("limit", "integer", "what the link says"),
        field("amount", "integer", "what this access takes"),
    ),
    "overlay": (
        field("snapshot", "bytes or null", "the newest there is (36.1), perhaps with deltas behind it; null: there is none yet"),
        field("operators", "[public]", "whose signatures count"),
        field("max_staleness", "integer", "the verifier's bound, in seconds (36.7); left out: 60", optional=True),
        field("allow_stale", "boolean", "will a stale one do, or none (36.9)?"),
        DOWN,
    ),
    "evidence": (
        field("key", "text", "28.8, and so are all below"),
        field("state", "text", ""),
        field("body", "text", "the JSON object of the link, as it was signed"),
        field("signature", "text", ""),
    ),
    "head": (
        field("seq", "integer", "39.5"),
        field("hash", "b64", "of 32 bytes"),
    ),
    "caveat": (
        field("cid", "hex", "10.4"),
        field("vid", "hex", "empty: of a first party"),
    ),
    "answer": (
        field("code", "text", "as of a decision"),
        field("link", "integer", "as of a decision", optional=True),
        field("added_by", "text", "as of a decision", optional=True),
    ),
    "kept": (
        field("tree", "b64", "a `jti`"),
        field("buckets", "integer", "so many of this tree, none of which is in a step, are in the ledger before"),
        field("until", "seconds or null", "when the ledger may forget them; null: never"),
    ),
    "step": (
        field("token", "text", "the whole text"),
        field("access", "access", ""),
        field("now", "seconds", "the time by the verifier's clock"),
        field("leeway", "integer", "of the verifier that is asked, in seconds; left out: 0", optional=True),
        field("id", "hex 16", "of its reservation (38.8); left out: 16 random bytes", optional=True),
        field("settle", "amounts or null", "the access is reserved, and settled by these amounts by unit; null: in full", optional=True),
        field("cancel", "boolean", "it is reserved, and cancelled; always true", optional=True),
        field("closed_at", "seconds", "when it is settled or cancelled; left out: at `now`", optional=True),
        field("again", "closing", "it is then settled or cancelled once more, at the same moment", optional=True),
    ),
    "own": (
        field("key", "text", "of the caveat"),
        field("domain", "`data`, `tool` or `all`", "15.12"),
        field("does", "`holds`, `prohibits`, `fails`, `answers`, `refuses_value` or `attribute_in`", "FORMAT.md, kind own"),
        field("code", "text", "with `prohibits`: the code that it gives; left out: none", optional=True),
        field("value", "json", "with `answers`: what it answers", optional=True),
        field("asks_access", "boolean", "does it ask about an access (24.8)? left out: yes", optional=True),
    ),
    "asking": (
        field("access", "access or null", "null only with `recheck`: whether it still stands"),
        field("now", "seconds", "the time by the verifier's clock"),
        field("how", "`check`, `recheck` or `explain`", "left out: `check`, which counts (24.9); `recheck` is 24.19, `explain` a dry run",
              optional=True),
        field("caller", "caller", "left out: none is stated", optional=True),
        field("snapshot", "bytes", "from now on this one is the newest; left out: as before", optional=True),
    ),
    "closing": (
        field("settle", "amounts or null", "as of a step", optional=True),
        field("cancel", "boolean", "as of a step", optional=True),
    ),
    "resumed": (
        field("by", "text", "36.23, and so are all below"),
        field("lost", "integer", ""),
        field("seq", "integer", ""),
        field("why", "text", ""),
    ),
    "entry": (
        field("id", "text", "36.4, and so are all below"),
        field("at", "seconds", ""),
        field("by", "text", ""),
        field("why", "text", ""),
        field("select", "object", "36.5"),
        field("link", "link", "", optional=True),
        field("until", "seconds", "", optional=True),
        field("asked", "[b64]", "", optional=True),
    ),
}  # fmt: skip

# Lists and maps that are no object of fields.
TYPES["keys"] = {"type": "object", "additionalProperties": {"type": "string", "pattern": HEX}}
TYPES["amounts"] = {"type": "object"}
TYPES["actor"] = {
    "type": "array", "prefixItems": [{"type": "string"}, {"enum": ["issued", "vouched", "proven"]}], "minItems": 2, "maxItems": 2,
}  # fmt: skip
TYPES["stand"] = {"type": "array", "minItems": 4, "maxItems": 4}
TYPES["text or texts"] = {"anyOf": [TYPES["text"], TYPES["texts"]]}
TYPES["texts or text"] = {"anyOf": [TYPES["texts"], TYPES["text"]]}

# --- what is expected ------------------------------------------------------------------------------------------------

PLAN = tuple(CODES)
PLACE = (
    field("link", "integer", "which link refuses, from 0, third-party caveats counted; left out where no link does", optional=True),
    field("added_by", "text", "who added it: FORMAT.md, section Places; left out where nobody did", optional=True),
)  # fmt: skip


class Expected(NamedTuple):
    """An outcome: the codes that it has, and what stands beside the code."""

    codes: tuple[str, ...]
    fields: tuple[Field, ...] = ()


ALLOWED = Expected(("allowed",), (
    field("link_ids", "[b64]", "of each link, third-party caveats counted"),
    field("chain", "[actor]", "each holder, from the first: name, and `issued`, `vouched` or `proven`"),
    field("task", "text", "the token's task (16.3)"),
    field("expires_at", "seconds or null", "the least `exp`, discharges counted, without leeway; null: none"),
    field("debits", "[debit]", "only with `ledger`: what the access takes of each bucket, from the first link to the last", optional=True),
    field("marks", "[b64]", "only with `ledger`, and where there are any: the buckets of the marks that it sets (46.6), set before or not; sorted", optional=True),
    field("spends", "[use]", "only where there are any: the consents that are spent (47.9), in the order of the links", optional=True),
    field("key", "b64", "only of a bound token, and so are the two below: the key", optional=True),
    field("uses", "[use]", "what is committed to the store of proofs", optional=True),
    field("evidence", "[evidence]", "of each hand-over that is signed", optional=True),
))  # fmt: skip
DENIED = Expected(PLAN[:PLAN.index("stale_grant")] + PLAN[PLAN.index("stale_grant") + 1 :], PLACE)
USAGE = Expected(("usage",))


class Kind(NamedTuple):
    """What vectors of one kind are given, and what comes."""

    fields: tuple[Field, ...]
    expected: tuple[Expected, ...]
    # Where one field says which others there are: its name, and for each of its values those others.
    by: str = ""
    variants: Mapping[str, tuple[Field, ...]] | None = None


# --- the kinds -------------------------------------------------------------------------------------------------------

TOKEN = field("token", "text", "the whole text that the server is sent, with its discharges, consents and proof", lossy=True)
HELD = field("token", "text", "the text that the holder has")
REQUEST = field("request", "hex 32", "the digest that a transport states (29); left out: none does, and the access is the request",
                optional=True)  # fmt: skip
STORES = (
    field("replays", "replays", "the store of used proofs; left out: there is none", optional=True),
    field("ledger", "ledger", "left out: there is none", optional=True),
    field("overlay", "overlay", "left out: the verifier asks none", optional=True),
)
ASKED = (
    TOKEN,
    field("keyring", "keyring", "the verifier's"),
    field("facts", "facts", "what it knows"),
    field("access", "access or null", "null: none is asked about (24.8)", lossy=True),
    field("caller", "caller or null", "null: none is stated", lossy=True),
    REQUEST,
    *STORES,
)
OK = "ok"
THEN = field("then", "text", "the code of the decision that follows")
NONCE = field("nonce", "hex 16", "of the proof")
OVERLAID = (
    field("seq", "integer", ""),
    field("issued_at", "seconds", "its `iat`"),
    field("expires_at", "seconds", "its `exp`"),
    field("entries", "texts", "the ids of all entries, in the order in which they stand"),
)

KINDS: dict[str, Kind] = {
    "decision": Kind(ASKED, (ALLOWED, DENIED, USAGE)),
    "own": Kind(
        (*ASKED, field("own", "[own]", "the own caveats that the verifier knows")),
        (ALLOWED, DENIED),
    ),
    "grant": Kind(
        (
            TOKEN, field("keyring", "keyring", "the verifier's"), field("facts", "facts", "what it knows when the grant is made"), REQUEST,
            *STORES,
            field("max_age", "integer or null", "the verifier's bound on a grant's age (24.15); null: none; left out: 3600", optional=True),
            field("steps", "[asking]", "what the grant is asked, one after the other"),
        ),
        (
            Expected((OK,), (field("answers", "[answer]", "of each step"),)),
            DENIED,
        ),
    ),
    "dry_run": Kind(
        ASKED,
        (
            Expected(("allowed",), (THEN,)),
            Expected(DENIED.codes, (*DENIED.fields, THEN)),
            USAGE,
        ),
    ),
    "chain": Kind(
        (
            field("source", "text", "where the macaroon comes from"),
            field("key", "hex", "the application key, of any length"),
            field("identifier", "hex", ""),
            field("caveats", "[caveat]", "in their order"),
            field("bound_to", "hex or null", "the last tag of the token that it is bound to, as a discharge (11.5); null: none"),
        ),
        (
            Expected((OK,), (
                field("derived", "hex 32", "11.1"),
                field("tags", "[hex 32]", "after the identifier, and after each caveat"),
                field("bound", "hex or null", "the last tag, bound; null where `bound_to` is"),
            )),
        ),
    ),
    "capability": Kind(
        (
            field("one", "link", "what one link says, without `n`: it is read with any `n`"),
            field("two", "link", "what another says"),
        ),
        (
            Expected((OK,), (
                field("meet", "link", "what both permit, spelled as a link (19.8)"),
                field("one_covers_two", "boolean", "19.6"),
                field("two_covers_one", "boolean", ""),
            )),
        ),
    ),
    "mint": Kind(
        (
            field("keyring", "keyring", "the issuer's"),
            field("current", "text", "the key id that it signs under"),
            field("subject", "text", "`sub` of the root record", lossy=True),
            field("agent", "text", "`agent`", lossy=True),
            field("task", "text", "`task`", lossy=True),
            field("asked", "object", "what link 0 is to say: FORMAT.md, section Wishes", lossy=True),
            field("now", "seconds", "the time by the issuer's clock"),
            field("token_id", "hex 16", "the random bytes of `jti`"),
            field("nonce", "hex 8", "those of `n`, where one is written"),
            field("own", "[own]", "the own caveats that the issuer knows; left out: none", optional=True),
        ),
        (
            Expected((OK,), (field("token", "text", "what is minted"),)),
            Expected(("usage", "limit")),
        ),
    ),
    "widening": Kind(
        (
            HELD,
            field("asked", "object", "what is asked for: FORMAT.md, section Wishes", lossy=True),
            field("to", "text or null", "to whom it is handed on; null: to nobody"),
            field("now", "seconds", "the time by the holder's clock"),
            field("nonce", "hex 8", "the random bytes of `n`, where one is written"),
            field("signer", "hex 32", "the secret of the holder's key; left out: it has none", optional=True),
            field("own", "[own]", "the own caveats that the holder knows; left out: none", optional=True),
        ),
        (
            Expected((OK,), (
                field("link", "link", "what the link says that is added"),
                field("signature", "b64", "of a link that is signed", optional=True),
            )),
            Expected(("widening", "nothing_left"), (
                field("dimension", "text", "the first that is in excess: a key of section 15, or an own key"),
            )),
            Expected(("too_deep", "broken_delegation", "bad_proof", "limit", "usage")),
        ),
    ),
    "set_of": Kind(
        (field("tokens", "texts", "texts of tokens, in any order"),),
        (Expected((OK,), (field("text", "text", "the text of the set of them"),)), USAGE),
    ),
    "set_read": Kind(
        (field("text", "text", "the text of a set"),),
        (
            Expected((OK,), (
                field("servers", "texts", "whom it has a token for, in order"),
                field("tokens", "texts", "the token of each"),
            )),
            Expected(("malformed",)),
        ),
    ),
    "set_narrowing": Kind(
        (
            field("text", "text", "the text of the set"),
            field("asked", "object", "what is asked for: FORMAT.md, section Wishes"),
            field("to", "text or null", "to whom it is handed on; null: to nobody"),
            field("servers", "texts", "at which servers `asked` holds; left out: where its domain is held", optional=True),
            field("only", "object", "wishes for each server by itself; left out: none", optional=True),
            field("now", "seconds", "the time by the holder's clock"),
            field("nonce", "hex 8", "the random bytes of `n`, drawn once for all links"),
            field("signer", "hex 32", "the secret of the holder's key; left out: it has none", optional=True),
        ),
        (
            Expected((OK,), (field("text", "text", "the text of the new set"),)),
            Expected(("widening", "nothing_left"), (
                field("dimension", "text", "as of `widening`"),
                field("server", "text", "the first in order at which it is too much: the error names it"),
            )),
            Expected(("broken_delegation", "bad_proof", "usage")),
        ),
    ),
    "interop": Kind(
        (
            field("source", "text", "what another library wrote: text, or hex where `form` says so"),
            field("form", "`text` or `hexadecimal`", "how `source` is to be read"),
        ),
        (Expected((OK,), (field("text", "text", "the one spelling"),)), Expected(("malformed",))),
    ),
    "request": Kind(
        (field("form", "`http`, `mcp`, `access` or `message`", "which of the fields below there are"),),
        (Expected((OK,), (field("digest", "hex 32", "29.1"),)), USAGE),
        "form",
        {
            "http": (
                field("method", "text", "", lossy=True),
                field("origin", "text", "", lossy=True),
                field("target", "text", "path and query", lossy=True),
                field("body", "hex", "the bytes that are sent; they are hashed"),
            ),
            "mcp": (
                field("method", "text", "", lossy=True),
                field("tool", "text", "", lossy=True),
                field("arguments", "hex", "the bytes that stand for them"),
            ),
            "access": (field("access", "access or null", "null: none", lossy=True),),
            "message": (
                field("method", "text", "of an MCP message", lossy=True),
                field("params", "object", "its `params` (40.4)", lossy=True),
            ),
        },
    ),
    "proof": Kind(
        (
            field("token", "text", "a text as it was presented, without a proof"),
            field("secret", "hex 32", "of the holder's key"),
            field("audience", "text", "the one server"),
            field("request", "hex 32", "the digest of the request"),
            field("now", "seconds", "when the proof is made"),
            NONCE,
        ),
        (
            Expected((OK,), (field("text", "text", "the same, and the proof at its end"),)),
            Expected(("malformed", "limit", "usage")),
        ),
    ),
    "presenting": Kind(
        (
            HELD,
            field("audience", "text or texts", "one server, or several"),
            field("now", "seconds", "the time by the holder's clock; the text is good for 60 seconds"),
            field("secret", "hex 32", "of the holder's key; left out: no proof is made", optional=True),
            field("nonce", "hex 16", "of the proof; there where `secret` is", optional=True),
            field("request", "hex 32", "its request; left out: no access (29.5)", optional=True),
        ),
        (
            Expected((OK,), (field("text", "text", "what is sent to the server"),)),
            Expected(("bad_proof", "limit", "usage")),
        ),
    ),
    "evidence": Kind(
        (field("evidence", "evidence", "of one signed link", lossy=True),),
        (Expected((OK,)), Expected(("bad_proof",))),
    ),
    "asking": Kind(
        (
            HELD,
            field("discharger", "public", "the third party's key"),
            field("need", "object", "what it is asked (32.3)", lossy=True),
            field("location", "text or null", "where it is found; null: not said"),
            field("caveat_key", "hex 32", "the random bytes of `ck`, drawn first"),
            field("ephemeral", "hex 32", "the ephemeral secret of the sealed box, drawn next"),
            field("nonce", "hex 24", "the nonce of the vid, drawn last"),
        ),
        (
            Expected((OK,), (field("token", "text", "with the third-party caveat"),)),
            Expected(("limit", "usage")),
        ),
    ),
    "discharge": Kind(
        (
            field("secret", "hex 32", "of the discharger's key"),
            field("ticket", "text", "what came to it: the cid, as text"),
            field("asked", "object", "with which caveats it says yes: FORMAT.md, section Wishes"),
            field("now", "seconds", "the time by its clock"),
        ),
        (
            Expected((OK,), (
                field("need", "object", "what it was asked"),
                field("discharge", "text", "its answer, unbound: `cap1u_…`"),
            )),
            Expected(("bad_ticket", "limit", "usage")),
        ),
    ),
    "holding": Kind(
        (
            field("token", "text", "the text that a holder takes: a token, perhaps with unbound discharges"),
            field("come", "texts", "discharges that come to it then, each alone; left out: none", optional=True),
        ),
        (
            Expected((OK,), (
                field("needs", "texts", "the cids that are not answered yet, in their order"),
                field("bound", "text", "the text with all discharges bound (33.3), and no link added"),
            )),
            Expected(("malformed", "bad_discharge", "limit")),
        ),
    ),
    "pairwise": Kind(
        (
            field("secret", "hex 32", "of the own X25519 key"),
            field("server", "text", "for an issuer: the server's public key", optional=True),
            field("issuers", "texts or text", "for a server: the issuers' public keys", optional=True),
            field("audience", "text", "the server's name"),
        ),
        (Expected((OK,), (field("keys", "keys", "the root keys by key id, in hex"),)), USAGE),
    ),
    "key_file": Kind(
        (
            field("purpose", "`holder`, `discharger`, `pairwise`, `operator`, `audit` or `keyring`", "which key is wanted"),
            field("content", "bytes", "of a file that its owner alone can read and write"),
        ),
        (
            Expected((OK,), (field("public", "b64", "of a key"),)),
            Expected((OK,), (
                field("keys", "keys", "of a keyring: the root keys by key id, in hex"),
                field("current", "text", "of a keyring"),
                field("audience", "text or null", "of a keyring; null: for any"),
            )),
            Expected(("keyring",)),
        ),
    ),
    "snapshot": Kind(
        (
            field("snapshot", "bytes", "what came, perhaps with deltas behind it (36.19)"),
            field("operators", "[public]", "whose signatures count"),
            field("known", "bytes", "the snapshot that the reader knows already; left out: none (36.10)", optional=True),
            field("own", "[own]", "the own caveats that the reader knows; left out: none", optional=True),
        ),
        (Expected((OK,), OVERLAID), Expected(("overlay",))),
    ),
    "delta": Kind(
        (
            field("known", "bytes", "the snapshot that the reader knows"),
            field("deltas", "[bytes]", "said to follow on it, one after the other"),
            field("operators", "[public]", "whose signatures count"),
            field("own", "[own]", "the own caveats that the reader knows; left out: none", optional=True),
        ),
        (
            Expected((OK,), (*OVERLAID, field("hash", "b64", "of what they give, by which the next delta names it (36.17)"))),
            Expected(("overlay",)),
        ),
    ),
    "recall": Kind(
        (
            field("request", "text", "what a holder sends (37.1)"),
            field("keyring", "keyring", "of the control plane"),
            field("audience", "text", "its name"),
            field("now", "seconds", "the time by its clock"),
            field("standing", "[entry]", "the entries that stand before; left out: none, and `stands` is not asked", optional=True),
            field("most", "integer", "the bound of 37.10; left out: 100", optional=True),
            field("part", "integer", "the bound of 37.11, in bytes; left out: a quarter of the largest snapshot", optional=True),
        ),
        (
            Expected((OK,), (
                field("token", "b64", "the `jti` that is revoked"),
                field("link", "b64 or null", "the link id that is, or of a set its `n` (37.12); null: all of the token"),
                field("asked", "[b64] or null", "`asked` of that entry; null: it has none"),
                field("until", "seconds or null", "`until` of it; null: it has none"),
                field("stands", "[stand]", "with `standing`: of all that stand after it token, link, asked, until, each null where it has "
                      "none; sorted by their JSON", optional=True),
            )),
            Expected(("recall",)),
            Expected(PLAN, PLACE),
        ),
    ),
    "recalling": Kind(
        (
            field("token", "text", "the text of the token that was handed on"),
            field("handed_on", "text", "the text of what was made of it"),
            field("audience", "text", "the name of the control plane"),
            field("why", "text", ""),
            field("now", "seconds", "the time by the holder's clock; what it presents is good for 60 seconds"),
        ),
        (Expected((OK,), (field("request", "text", "what it sends (37.1)"),)), USAGE),
    ),
    "publishing": Kind(
        (
            field("secret", "hex 32", "of the operator's key"),
            field("entries", "[entry]", "all that are to stand, in the order of their ids"),
            field("seq", "integer", ""),
            field("issued_at", "seconds", "`iat`"),
            field("expires_at", "seconds", "`exp`"),
            field("known", "bytes", "the signed snapshot that a delta is to follow on; left out: a snapshot is to be written", optional=True),
            field("past", "[b64]", "of the snapshot, as it is to be written (36.21); left out: it has none", optional=True),
            field("resumed", "resumed", "of the snapshot; left out: it has none", optional=True),
        ),
        (Expected((OK,), (field("written", "bytes", "the snapshot, or the delta, signed"),)),),
    ),
    "code": Kind(
        (field("denied", "text", "a code of the table of section 24"),),
        (Expected((OK,), (field("step", "integer", "24.24"), field("denial_kind", "text", "its kind"))),),
    ),
    "counting": Kind(
        (
            field("keyring", "keyring", "the verifier's"),
            field("audience", "text", "its one name"),
            field("ledger", "counted", "new, but for what `kept` says"),
            field("steps", "[step]", "what comes to it, one after the other"),
        ),
        (
            Expected((OK,), (
                field("codes", "codes", "of each step; behind that of one that is settled or cancelled, `closed`, `too_late` or `usage`, each time"),
            )),
        ),
    ),
    "trail": Kind(
        (
            field("trail", "bytes", "of the file"),
            field("servers", "[public]", "whose checkpoints count; none: checkpoints are not looked at"),
            field("known", "[head]", "heads that somebody kept"),
            field("after", "head", "the head that it goes on after; left out: it is the first file", optional=True),
        ),
        (
            Expected((OK,), (
                field("head", "head", "of its last record"),
                field("signed", "integer", "the `seq` of the last record that a checkpoint signs for; 0: none"),
                field("decisions", "integer", "how many there are"),
            )),
            Expected(("audit",)),
        ),
    ),
    "recorded": Kind(
        (field("arguments", "json", "of a tool, always carried as `arguments_json`", lossy=True),),
        (Expected((OK,), (field("arguments", "json", "as a record has them, values and all (39.6)"),)),),
    ),
}  # fmt: skip

OBJECTS["counted"] = (
    *OBJECTS["ledger"][:2],
    field("kept", "[kept]", "left out: nothing", optional=True),
)

COMMON = (
    field("name", "text", "begins with the family's; unique in all files"),
    field("kind", "text", "what is asked: one of the kinds below"),
    field("section", "text", "of `captoken-v1.md`"),
    field("rule", "text", "in that section, the one that it is about"),
    field("expect", "object", "what must come: `code`, and what the kind says"),
    field("control", "text", "of one that must fail: the name of one in the same file that passes", optional=True),
    field("apart", "text", "of one that must fail: why it differs from its control in more than one place", optional=True),
)


# The codes that are none of a denial, with what they mean; those of denials are in the specification.
PASSES = {
    "allowed": "a decision: the access is permitted, or without an access the token stands",
    "ok": "of every other kind: done",
}
FAILS = {
    "usage": "facts, keys or wishes that cannot be stated: an error of the program, told at once (7.7)",
    "limit": "what would be written is beyond a limit",
    "widening": "more was asked for than is held",
    "nothing_left": "cut to what is held, and nothing is left",
    "bad_ticket": "what a discharger takes for no ticket of its own",
    "keyring": "a file that holds no such key",
    "overlay": "a snapshot or a delta that is none, or an older one",
    "recall": "what a holder may not stop, or cannot ask for so",
    "audit": "a trail that does not hold together",
    "closed": "in `counting`: what was reserved was settled or cancelled in time",
    "too_late": "in `counting`: it was not, and all of it is spent",
}


# --- schemas ---------------------------------------------------------------------------------------------------------


def typed(name: str) -> Schema:
    """The schema of a type by its name."""
    if name.endswith(" or null"):
        return {"anyOf": [typed(name.removesuffix(" or null")), {"type": "null"}]}
    if name.startswith("[") and name.endswith("]"):
        return {"type": "array", "items": typed(name[1:-1])}
    if name.startswith("`"):
        return {"enum": name.replace(" or ", ", ").replace("`", "").split(", ")}
    return {"$ref": f"#/$defs/{name}"} if name in OBJECTS else dict(TYPES[name])


def described(fields: tuple[Field, ...]) -> Schema:
    """An object that has these fields and no others."""
    properties: Schema = {}
    required: list[str] = []
    either: list[Schema] = []
    for each in fields:
        properties[each.name] = {"description": each.what, **typed(each.type)} if each.what else typed(each.type)
        if each.lossy:
            text = f"{each.name}_json"
            properties[text] = {"description": f"`{each.name}` as JSON text", "type": "string"}
            either.append({"oneOf": [{"required": [each.name]}, {"required": [text]}]})
        elif not each.optional:
            required.append(each.name)
    made: Schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return made | ({"allOf": either} if either else {})


def expected(outcome: Expected) -> Schema:
    made = described(outcome.fields)
    made["properties"] = {"code": {"enum": list(outcome.codes)}, **made["properties"]}
    made["required"] = ["code", *made["required"]]
    return made


def schema(name: str) -> Schema:
    """Of the vectors of one kind."""
    kind = KINDS[name]
    common = described(COMMON)
    common["properties"]["kind"] = {"const": name}
    common["properties"]["apart"]["enum"] = list(APART)
    outcomes = [expected(outcome) for outcome in kind.expected]
    common["properties"]["expect"] = outcomes[0] if len(outcomes) == 1 else {"oneOf": outcomes}
    variants = []
    for value, more in (kind.variants or {"": ()}).items():
        made = described((*kind.fields, *more))
        if value:
            made["properties"][kind.by] = {"const": value}
        made["properties"] = {**common["properties"], **made["properties"]}
        made["required"] = [*common["required"], *made["required"]]
        variants.append(made)
    whole = variants[0] if len(variants) == 1 else {"oneOf": variants}
    head = {"$schema": DIALECT, "$id": f"{name}.json", "title": f"A vector of kind {name}"}
    used = sorted(_used(json.dumps(whole)))
    return {**head, **whole} | ({"$defs": {each: described(OBJECTS[each]) for each in used}} if used else {})


def _used(text: str) -> set[str]:
    """The objects that a schema refers to, and those that these refer to."""
    found = {name for name in OBJECTS if f'"#/$defs/{name}"' in text}
    within = "".join(json.dumps(described(OBJECTS[each])) for each in sorted(found))
    return found if all(name in found for name in OBJECTS if f'"#/$defs/{name}"' in within) else _used(text + within)


def family() -> Schema:
    """Of a whole file."""
    return {
        "$schema": DIALECT,
        "$id": "family.json",
        "title": "A file of vectors",
        "type": "object",
        "properties": {
            "family": {"description": "the name of the file", "type": "string"},
            "about": {"description": "what its vectors are about", "type": "string"},
            "vectors": {"type": "array", "items": {"oneOf": [{"$ref": f"{name}.json"} for name in sorted(KINDS)]}},
        },
        "required": ["family", "about", "vectors"],
        "additionalProperties": False,
    }


# --- tables of FORMAT.md ---------------------------------------------------------------------------------------------


def rows(fields: tuple[Field, ...]) -> Iterator[str]:
    for each in fields:
        name = f"`{each.name}`" + (f", or `{each.name}_json`" if each.lossy else "")
        yield f"| {name} | {each.type}{', optional' if each.optional else ''} | {each.what} |"


def listed(name: str) -> str:
    """The tables of one kind."""
    kind = KINDS[name]
    lines = ["| field | type | what |", "| --- | --- | --- |", *rows(kind.fields)]
    for value, more in (kind.variants or {}).items():
        lines += ["", f"With `{kind.by}` `{value}`:", "", "| field | type | what |", "| --- | --- | --- |", *rows(more)]
    for outcome in kind.expected:
        codes = ", ".join(f"`{code}`" for code in outcome.codes)
        said = "any code of a decision but `allowed`" if outcome.codes in (PLAN, DENIED.codes) else codes
        if outcome.fields:
            lines += ["", f"Expected with {said}:", "", "| field | type | what |", "| --- | --- | --- |", *rows(outcome.fields)]
        else:
            lines += ["", f"Expected alone: {said}."]
    return "\n".join(lines)


def objects() -> str:
    parts = []
    for name, fields in OBJECTS.items():
        parts.append("\n".join((f"`{name}`:", "", "| field | type | what |", "| --- | --- | --- |", *rows(fields))))
    return "\n\n".join(parts)


def tables(families: list[tuple[str, str, set[str]]]) -> str:
    """The files: family, its kinds, what it is about."""
    lines = ["| family | kinds | about |", "| --- | --- | --- |"]
    for name, about, kinds in families:
        lines.append(f"| `{name}` | {', '.join(sorted(kinds))} | {about} |")
    return "\n".join(lines)


def filled(text: str, families: list[tuple[str, str, set[str]]]) -> str:
    """FORMAT.md with its tables written anew, each between its two marks."""
    written = {"common": "\n".join(("| field | type | what |", "| --- | --- | --- |", *rows(COMMON))), "objects": objects()}
    written |= {f"kind {name}": listed(name) for name in KINDS} | {"families": tables(families)}
    meanings = {**PASSES, **{code: when for code, (_, _, when) in CODES.items()}, **FAILS}
    written["codes"] = "\n".join(("| code | when |", "| --- | --- |", *(f"| `{code}` | {when} |" for code, when in meanings.items())))
    written["apart"] = "\n".join(("| `apart` | why |", "| --- | --- |", *(f"| `{name}` | {why} |" for name, why in APART.items())))
    for name, table in written.items():
        begin, end = f"<!-- begin: {name} -->\n", "<!-- end -->"
        before, found, after = text.partition(begin)
        assert found, f"FORMAT.md has no place for {name}"
        text = before + begin + table + "\n" + end + after.partition(end)[2]
    return text


def files(families: list[tuple[str, str, set[str]]]) -> dict[Path, str]:
    """What each schema says, and FORMAT.md."""
    made = {name: schema(name) for name in KINDS} | {"family": family()}
    texts = {SCHEMAS / f"{name}.json": json.dumps(each, indent=1, ensure_ascii=True) + "\n" for name, each in made.items()}
    return texts | {FORMAT: filled(FORMAT.read_text(encoding="utf-8"), families)}
