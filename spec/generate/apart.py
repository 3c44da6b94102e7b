"""How a vector differs from its control: both are taken apart, and the places are counted in which they are not the same.

What follows from the rest is no place of its own: a tag, a signature, a box, a hash that hold are written as just that. It is
the reference evaluator that says whether they do. A place is a field, a key of an object, an item of a list that was changed,
added, left out or moved, or one stretch of bytes or characters.
"""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal
from fnmatch import fnmatchcase

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from spec.generate import build
from tests.reference import evaluator

# Why a vector that must fail differs from its control in more than one place.
APART = {
    "order": "more than one thing is wrong: the vector says which of them is told",
    "together": "what was changed makes no sense without a second change, as a third party that is asked and the answer",
    "other": "another thing stands in the place of a whole one, as a link in that of a root record",
}
# And which do so.
WHY = {
    "order": (
        "discharges_with_unknown_and_task", "expiry_exp_before_nbf", "holder_binding_key_beside_unknown",
        "holder_binding_signature_beside_unknown_*", "holder_binding_writes_*_before_its_*", "holder_binding_writes_nothing_*",
        "holder_binding_writes_hand_over_without_key_signed_by_a_stranger", "ledger_used_up_and_*", "ledger_more_than_a_whole_limit_*", "ledger_used_up_with_*",
        "overlay_revoked_and_*", "overlay_stale_and_*", "own_caveats_before_*",
        "own_caveats_after_what_ends", "forbid_*_and_after", "forbid_behind_*", "forbid_of_the_second_by_itself_and_the_first", "forbid_of_an_entry_that_narrows",
        "forbid_at_a_ledger_that_is_down_and_all_set",
        "proof_of_possession_holding_one_behind_a_bound_discharge", "replay_full_and_second_use", "verification_*",
        "widening_*_before_*", "widening_budget_and_fresh_more", "widening_expiry_and_uses_more", "widening_first_dimension_is_told",
        "consent_missing_and_*", "context_before_*", "consent_before_the_ledger", "allowances_cost_unstated_beside_another_table", "work_before_*", "work_behind_*", "work_of_entries_*", "sets_narrowed_by_tables_of_tools_and_only_at_one",
    ),
    "together": (
        "allowances_nine_links_that_count_without_an_access", "allowances_seventeen_buckets", "discharges_seventeen*",
        "discharges_that_asks_in_its_turn", "discharges_with_budget", "proof_of_possession_at_a_server_without_a_name_for_nobody",
        "third_party_caveats_cid_of_2049_bytes*", "third_party_caveats_cid_changed",
        "recall_of_another_child_by_who_was_not_there", "recall_after_a_link_before_it_held", "recall_of_its_own_hand_over",
        "recall_of_a_sibling_of_its_own", "snapshots_before_what_a_delta_gave", "snapshots_that_follows_on_one_that_says_as_much",
        "snapshots_that_follows_on_another_256th_before_it", "snapshots_that_follows_the_very_one_that_resumed", "chain_links_joined", "discharges_holding_seventeen", "keys_root_key_none_at_keyring_of_audience",
        "limits_64_links_and_a_third_party", "marks_but_and_a_table", "marks_marks_beside_a_hand_over_in_an_entry", "pairwise_keys_token_of_*", "pairwise_keys_token_for_*",
        "third_party_caveats_vids_swapped", "third_party_caveats_caveats_swapped", "discharges_of_two_caveats_with_one_id_*",
    ),
    "other": (
        "discharges_of_another_caveat", "discharges_the_first_of_two_twice", "discharges_token_as_its_own_discharge",
        "audit_another_from_the_start", "deltas_on_what_it_gives", "snapshots_with_a_snapshot_behind_it",
        "discharges_with_a_proof_in_the_place_of_a_token", "domains_both_ask_for_a_domain",
        "proof_of_possession_text_before_the_token",
        "discharges_discharge_as_a_token", "discharges_text_*", "root_record_that_is_a_link", "root_record_version_2_with*",
        "holder_binding_signature_before_the_link", "holder_binding_signature_in_hexadecimal",
    ),
}  # fmt: skip
ASIDE = {"name", "section", "rule", "expect", "control", "apart"}
STRETCH = 32  # bytes or characters: a longer one that was changed, and not only added or left out, is several places
HOLDS = "holds"


def why(name):
    """The reason of that vector, or None."""
    return next((reason for reason, patterns in WHY.items() if any(fnmatchcase(name, each) for each in patterns)), None)


def places(vector, control):
    """The paths at which they differ."""
    return list(differences(inputs(vector), inputs(control)))


def is_one(mine, theirs):
    """Do two that were taken apart differ in one place?"""
    return len(list(itertools.islice(differences(mine, theirs), 2))) == 1


def inputs(vector):
    """What a vector asks, taken apart."""
    parts = {}
    for key, value in vector.items():
        if key.endswith("_json"):
            parts[key.removesuffix("_json")] = json.loads(value, parse_int=Decimal)
        elif key not in ASIDE:
            parts[key] = value
    reader = READERS.get(vector["kind"])
    return parts if reader is None else reader(parts)


# --- comparing -------------------------------------------------------------------------------------------------------


def differences(one, other, path=""):
    """The paths at which two values differ."""
    if isinstance(one, Made) and isinstance(other, Made):
        yield from one.apart(other, path)
    elif type(one) is not type(other):
        yield path
    elif isinstance(one, dict):
        mine, theirs = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
        if len(mine) == len(theirs) == 1:  # one in place of another
            yield f"{path}.{mine[0]}"
            mine = theirs = []
            one, other = ({key: each[key] for key in each if key in one and key in other} for each in (one, other))
        for key in sorted(one.keys() | other.keys(), key=str):
            if key not in one or key not in other:
                yield f"{path}.{key}"
            else:
                yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list):
        yield from of_lists(one, other, path)
    elif isinstance(one, Stretch):
        yield from [path] * stretches(one.data, other.data)
    elif one != other:
        yield path


def alike(one, other):
    """Equal, where `1`, `1.0` and `true` are not."""
    return next(iter(differences(one, other)), None) is None


def of_lists(one, other, path):
    """Items that were changed in their place; or one run of them that was added, left out, repeated or moved."""
    start = shared(one, other)
    end = shared(one[start:][::-1], other[start:][::-1])
    mine, theirs = one[start : len(one) - end], other[start : len(other) - end]
    if not mine and not theirs:
        return
    same = len(mine) == len(theirs) > 1 and all(mine.count(item) == theirs.count(item) for item in mine)
    if not mine or not theirs or same:
        yield f"{path}[{start}]"
        return
    for at, (ours, its) in enumerate(itertools.zip_longest(mine, theirs)):
        if ours is None or its is None:
            yield f"{path}[{start + at}]"
        else:
            yield from differences(ours, its, f"{path}[{start + at}]")


class Stretch:
    """Bytes or characters that spell nothing which could be taken apart."""

    def __init__(self, data):
        self.data = data

    def __eq__(self, other):
        return isinstance(other, Stretch) and self.data == other.data

    def __hash__(self):
        return hash(self.data)

    def __repr__(self):
        return f"Stretch({self.data!r})"


class Made:
    """Bytes, and what they say. They differ only where both do, by one stretch or by what is said."""

    def __init__(self, data, says):
        self.data, self.says = data, says

    def __eq__(self, other):
        return isinstance(other, Made) and (self.data == other.data or alike(self.says, other.says))

    __hash__ = None

    def __repr__(self):
        return f"Made({self.says!r})"

    def apart(self, other, path):
        if self == other:
            return []
        found = list(differences(self.says, other.says, path))
        return found[:1] if stretches(self.data, other.data) == 1 else found


def stretches(one, two):
    """0, 1 for one stretch, or 2 for more."""
    if one == two:
        return 0
    if type(one) is not type(two) or not isinstance(one, str | bytes):
        return 2
    start = shared(one, two)
    end = shared(one[start:][::-1], two[start:][::-1])
    changed = [len(each) - start - end for each in (one, two)]
    return 1 if min(changed) == 0 or max(changed) <= STRETCH else 2


def shared(one, two):
    """With how many items both begin."""
    pairs = enumerate(zip(one, two, strict=False))
    plain = isinstance(one, str | bytes)
    return next((at for at, (mine, its) in pairs if (mine != its if plain else not alike(mine, its))), min(len(one), len(two)))


# --- taking apart ----------------------------------------------------------------------------------------------------


def spelled(data):
    """JSON that is canonical, as what it says; anything else as bytes."""
    said = evaluator.decode_object(data)
    return Stretch(data) if said is None else said


def _listed(said, key):
    return said[key] if isinstance(said.get(key), list) else []


class Text:
    """One text as a verifier, or a holder, is given it."""

    def __init__(self, vector, text):
        self.vector, self.tags, self.bound, self.ids, self.marks, self.asking = vector, [], None, [], {}, []
        token, *rest = text.split(".") if isinstance(text, str) else [text]
        self.parts = {"token": self.token(token)}
        self.parts["behind"] = [self.behind(part) for part in rest]

    def packet(self, text, prefix):
        """(identifier, caveats, signature), or None."""
        try:
            return evaluator.parse(text, prefix, 32767, 10**6)
        except evaluator.Stop:
            return None

    def token(self, text):
        packet = self.packet(text, "cap1_")
        if packet is None:
            return self.broken(text)
        identifier, caveats, signature = packet
        root = spelled(identifier)
        key, how = self.key(root, identifier, caveats, signature)
        self.tags = evaluator.chain_tags(evaluator.derive(key), identifier, caveats)
        self.ids = evaluator.link_ids(self.tags)
        for at, (cid, _) in enumerate(caveats):
            said = evaluator.decode_object(evaluator.split_link(cid)[0]) or {}
            for one in [*_listed(said, "consent"), *_listed(said, "forbid")]:
                key = one.get("by", one.get("unless")) if isinstance(one, dict) else None
                self.asking += [(at, self.tags[at + 1], key)] if evaluator.is_key(key) else []
            for name in said["marks"] if isinstance(said.get("marks"), dict) else ():
                bucket = evaluator.label("mark of a link") + evaluator.unbase64(self.ids[at]) + name.encode("utf-8", "surrogatepass")
                self.marks[evaluator.base64text(evaluator.sha256(bucket))] = f"the mark {name} of link {at}"
        links = [self.link(at, caveat) for at, caveat in enumerate(caveats)]
        wire = evaluator.unbase64(text[5:])
        said = {"root": Made(identifier, root), "links": links, "signature": Made(signature, how)}
        return Made(wire[:-32] if how == HOLDS else wire, said)

    def key(self, root, identifier, caveats, signature):
        """The key that the chain holds under, and whether it is the one that it should be."""
        ring = self.vector.get("keyring", {"keys": {"k1": bytes(range(1, 33)).hex()}, "audience": None})
        keys = [bytes.fromhex(key) for key in ring["keys"].values()] + [bytes(range(1, 33)), bytes(range(101, 133))]
        kid, audience = (root.get("kid"), root.get("aud")) if isinstance(root, dict) else (None, None)
        mine = bytes.fromhex(ring["keys"][kid]) if isinstance(kid, str) and kid in ring["keys"] else keys[0]

        def derived(key):
            named = isinstance(audience, str) and ring["audience"] is None
            return build.audience_key(key, audience) if named else key

        def holds(key):
            return evaluator.chain_tag(key, identifier, caveats) == signature

        if holds(derived(mine)):
            return derived(mine), HOLDS
        for key in keys:
            for made in (derived(key), key):
                if holds(made):
                    return made, HOLDS if kid not in ring["keys"] else made.hex()
        return derived(mine), signature.hex()

    def link(self, at, caveat):
        cid, vid = caveat
        if vid is not None:
            try:
                box = SecretBox(self.tags[at]).decrypt(vid[24:], vid[:24]).hex()
            except CryptoError:
                box = vid.hex()
            return {"asks": Made(cid, spelled(cid)), "vid": Made(vid, box)}
        body, signature = evaluator.split_link(cid)
        said = spelled(body)
        made = {"says": said}
        if signature is not None:
            made["signature"] = Made(signature, signer(evaluator.custody_message(self.tags[at], body), signature))
        if isinstance(said, dict) and evaluator.is_key(said.get("key")):
            self.bound = said["key"]
        return Made(cid, made)

    def behind(self, text):
        if text.startswith("cap1p_"):
            return self.proof(text)
        if text.startswith("cap1a_"):
            return self.consent(text)
        for prefix in ("cap1d_", "cap1u_"):
            packet = self.packet(text, prefix)
            if packet is not None:
                return Made(text, {"prefix": prefix, **self.discharge(*packet)})
        return Made(text, Stretch(text))

    def discharge(self, identifier, caveats, signature):
        how = signature.hex()
        for name in ASKED if self.tags else ():
            made = evaluator.chain_tags(evaluator.derive(build.secret(name)), identifier, caveats)[-1]
            if signature in (made, evaluator.bind(self.tags[-1], made)):
                how = f"under the key of {name}, {'unbound' if signature == made else 'bound'}"
        links = [Made(cid, spelled(cid)) for cid, _ in caveats]
        return {"id": Made(identifier, spelled(identifier)), "links": links, "signature": Made(signature, how)}

    def proof(self, text):
        try:
            issued, nonce, signature = evaluator.parse_proof(text)
        except evaluator.Stop:
            return Made(text, Stretch(text))
        access = self.vector.get("access")
        request = self.vector.get("request")
        try:
            digest = evaluator.request_digest(access) if request is None else bytes.fromhex(request)
        except (ValueError, AttributeError, TypeError):
            digest = bytes(32)
        names = self.vector.get("facts", {}).get("audiences") or ["sales-db"]
        if not self.tags:
            return Made(text, {"iat": issued, "nonce": nonce.hex(), "signature": "of what is no token"})
        said = []
        for name in filter(str.isascii, names):
            found = signer(evaluator.proof_message(self.tags[-1], name, issued, nonce, digest), signature)
            said += [f"{found}, for {name}"] if found in KEYS else []
        how = Made(signature, said[0] if said else signature.hex())
        return Made(text, {"iat": issued, "nonce": nonce.hex(), "signature": how})

    def consent(self, text):
        """What it answers and whose it is, as one thing; and its times and its nonce."""
        try:
            question, issued, until, nonce, signature = evaluator.parse_consent(text)
        except evaluator.Stop:
            return Made(text, Stretch(text))
        said = {"iat": issued, "exp": until, "nonce": nonce.hex()}
        times = issued.to_bytes(8, "big") + until.to_bytes(8, "big")
        try:
            digest = evaluator.request_digest(self.vector.get("access"))
        except (ValueError, AttributeError, TypeError):
            digest = bytes(32)
        for place, tag, key in self.asking:
            for name in self.vector.get("facts", {}).get("audiences", ()):
                after = evaluator.chain_state(tag) + digest + evaluator.sha256(name.encode())
                message = evaluator.label("consent") + after + times + nonce
                if question == evaluator.question(key, evaluator.chain_state(tag), digest, name) and evaluator.is_signed(key, message, signature):
                    return Made(text, {**said, "of": f"the access by {key} after link {place} for {name}"})
        return Made(text, {**said, "of": (question + signature).hex()})

    def broken(self, text):
        """What is no token: its bytes, without the signature that belongs to them; or else its characters."""
        prefix, data = text[:5], evaluator.unbase64(text[5:])
        if prefix != "cap1_" or data is None:
            return Stretch(text)
        return Made(data, Stretch(data))

    def named(self, value):
        """Link ids and uses of this text by what they are."""
        if isinstance(value, dict):
            return {key: self.named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.named(item) for item in value]
        if isinstance(value, str) and value in self.ids:
            return f"the id of link {self.ids.index(value)}"
        if isinstance(value, str) and value in self.marks:
            return self.marks[value]
        return value


HOLDERS = (
    "orchestrator", "sales-agent", "report-agent", "mail-agent", "Orchestrator", "operator", "another operator", "server",
    "another server",
)  # fmt: skip
# The caveats whose keys discharges are under.
ASKED = ("one", "two", "three", "four", *(f"of many {number}" for number in range(17)))
KEYS = {name: evaluator.base64text(build.signing_public(name)) for name in HOLDERS}


def signer(message, signature):
    """Whose signature it is of that message; or the signature, if it is nobody's."""
    found = (name for name, key in KEYS.items() if evaluator.is_signed(key, message, signature))
    return next(found, signature.hex())


def signed(data, purpose):
    """A body and a signature behind a full stop, each as what it says."""
    signature = evaluator.unbase64(data[-86:].decode("latin-1")) if data[-87:-86] == b"." else None
    if signature is None or len(signature) != 64:
        return Made(data, Stretch(data))
    message = evaluator.label(purpose) + evaluator.sha256(data[:-87])
    return Made(data, {"body": spelled(data[:-87]), "signature": Made(signature, signer(message, signature))})


def of_snapshot(parts):
    """The snapshot and what was known before, each with the deltas behind it."""
    given = {key: parts[key].encode("latin-1") for key in ("snapshot", "known") if key in parts}
    lines = {key: re.split(rb"\n(?=\{)", data) for key, data in given.items()}
    said = {key: [signed(line, "delta" if at else "overlay") for at, line in enumerate(each)] for key, each in lines.items()}
    return {**parts, **{key: Made(given[key], said[key]) for key in given}}


def of_delta(parts):
    deltas = [signed(text.encode("latin-1"), "delta") for text in parts["deltas"]]
    return {**parts, "known": signed(parts["known"].encode("latin-1"), "overlay"), "deltas": deltas}


def of_trail(parts):
    """The records, each by what follows on the one before; heads as wholes."""
    lines = parts["trail"].encode("latin-1").split(b"\n")
    befores = [bytes(32), *map(evaluator.sha256, lines)]
    said = [record(line, lines[at - 1] if at else b"", befores[at]) for at, line in enumerate(lines)]
    heads = {"after": json.dumps(parts["after"])} if "after" in parts else {}
    return {**parts, **heads, "trail": Made(b"\n".join(lines), said), "known": [json.dumps(each) for each in parts["known"]]}


def record(line, before, hashed):
    said = spelled(line)
    if isinstance(said, dict):
        said = {key: value for key, value in said.items() if key != "seq"}
        if said.get("prev") == evaluator.base64text(hashed):
            said["prev"] = HOLDS
        if isinstance(said.get("signature"), str):
            signature = evaluator.unbase64(said["signature"]) or b""
            found = signer(evaluator.label("audit") + evaluator.sha256(before), signature)
            said["signature"] = Made(signature, found)
    return Made(line, said)


def of_recall(parts):
    """What a holder sends: its token, and a MAC under a tag of it."""
    data = parts["request"].encode("utf-8", "surrogatepass")
    said = spelled(data)
    if isinstance(said, dict) and isinstance(said.get("token"), str):
        text = Text(parts, said["token"])
        message = evaluator.canonical({key: said.get(key, "") for key in ("links", "why")}).encode()
        macs = [evaluator.mac(evaluator.sha256(evaluator.label("recall") + tag), message) for tag in text.tags]
        found = [f"under the tag after link {at - 1}" for at, made in enumerate(macs) if said.get("mac") == evaluator.base64text(made)]
        said = {**said, "token": Made(said["token"], text.parts)}
        said |= {"mac": Made(said["mac"], found[0] if found else said["mac"])} if "mac" in said else {}
    elif isinstance(said, dict) and "mac" in said:
        said = {**said, "mac": Made(said["mac"], said["mac"])}
    return {**parts, "request": Made(data, said)}


def of_file(parts):
    data = parts["content"].encode("latin-1")
    return {**parts, "content": Made(data, spelled(data.removesuffix(b"\n")))}


def of_ticket(parts):
    data = parts["ticket"].encode("utf-8", "surrogatepass")
    return {**parts, "ticket": Made(data, spelled(data))}


def of_decision(parts):
    text = Text(parts, parts["token"])
    made = {**parts, "token": Made(parts["token"], text.parts)}
    if "overlay" in parts and parts["overlay"]["snapshot"] is not None:
        overlay = parts["overlay"]
        made["overlay"] = {**overlay, "snapshot": signed(overlay["snapshot"].encode("latin-1"), "overlay")}
    if "own" in parts:
        made["own"] = [json.dumps(each) for each in parts["own"]]
    return {key: value if key == "token" else text.named(value) for key, value in made.items()}


def of_holder(parts):
    return {**parts, "token": Made(parts["token"], Text(parts, parts["token"]).parts)}


def of_set(parts):
    """Each token of a set; a text that is none as its characters."""

    def taken(text):
        return Made(text, Text(parts, text).parts)

    made = dict(parts)
    if "tokens" in parts:
        made["tokens"] = [taken(text) for text in parts["tokens"]]
    if "text" in parts:
        text = parts["text"]
        is_set = text.startswith("caps1_")
        made["text"] = Made(text, [taken("cap1_" + part) for part in text[6:].split("~")] if is_set else Stretch(text))
    return made


READERS = {kind: of_decision for kind in ("decision", "own", "dry_run", "grant")}
READERS |= {"trail": of_trail, "snapshot": of_snapshot, "delta": of_delta, "recall": of_recall, "key_file": of_file}
READERS["discharge"] = of_ticket
READERS |= {kind: of_holder for kind in ("widening", "proof", "presenting", "asking", "holding")}
READERS |= {kind: of_set for kind in ("set_of", "set_read", "set_narrowing")}
