"""The reference evaluator: what a verifier decides, written from the design's text (its sections 4 to 6) and the
specification's (7, 15.12, 24, 28 to 33, 36, 38 and 46).

It shares no code with captoken but libsodium, and favours being read over being fast. `evaluate` gives the code of a
decision, "allowed" or the first failure in the order of the plan. `authenticate` and `judge` are its two halves (24.18), for a
grant that is asked again. It is no verifier: it compares tags with `==`, and trusts the types of the facts that the caller
states; `is_access` and `is_caller` say whether they can be stated.
"""

import base64
import copy
import hashlib
import hmac
import json
import re
import socket
import unicodedata
from types import SimpleNamespace

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.signing import VerifyKey

TEXT_MAX, LINKS_MAX, ROOT_MAX, FIELD_MAX, SAFE_INTEGER, NESTING_MAX = 8192, 64, 1024, 32767, 2**53, 32
DISCHARGES_MAX, TICKET_MAX, BUNDLE_MAX, PAST, AHEAD, CONSENTS_MAX, CONSENT_LIFE = 16, 2048, 32768, 30, 5, 16, 3600
WORK_MAX = 1048576
NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
UNIVERSAL, DATA, TOOL = "universal", "data", "tool"
ISSUER, DISCHARGER = "the issuer", "the discharger"  # who added link 0; who said what a discharge says


class Stop(Exception):
    """Ends an evaluation with a code, and with the link that refuses where one does: `link` counts from 0, `by` is who added
    it where that is not a holder."""

    link = by = None


def need(condition, code, link=None, by=None):
    if not condition:
        stop = Stop(code)
        stop.link, stop.by = link, by
        raise stop


class at:
    """What stops within is said by this link."""

    def __init__(self, link, by=None):
        self.link, self.by = link, by

    def __enter__(self):
        return self

    def __exit__(self, kind, stop, trace):
        if kind is Stop and stop.link is None:
            stop.link, stop.by = self.link, self.by


# ---- 4.1 canonical JSON: decode, re-encode, compare ----------------------------------------------------------------


def canonical(value, depth=0):
    """The one spelling of a value; ValueError for what has none."""
    if depth > NESTING_MAX and isinstance(value, (list, dict)):
        raise ValueError("nested too deeply")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < SAFE_INTEGER:
        return str(value)
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))  # RFC 8785: by UTF-16 unit
        return "{" + ",".join(canonical(key) + ":" + canonical(value[key], depth + 1) for key in keys) + "}"
    raise ValueError("no canonical form")


def decode_object(data):
    """The object that these bytes spell canonically, or None."""
    try:
        value = json.loads(data.decode("utf-8"))
        return value if isinstance(value, dict) and canonical(value).encode("utf-8") == data else None
    except (ValueError, RecursionError):
        return None


# ---- 4.2 names, patterns, constraints ------------------------------------------------------------------------------


def is_name(value):
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_task(value):
    return is_name(value) and not {"", ".", ".."} & set(value.split("/"))


def is_text(value):
    """A table, column, tool, argument, attribute, or a string inside a constraint."""
    if not isinstance(value, str) or not 1 <= len(value.encode("utf-8", "surrogatepass")) <= 256:
        return False
    # Of Cf, tables before Unicode 15.0 have seven fewer (4.8).
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return value == value.strip() and not any(unicodedata.category(c) in hidden or "\U00013439" <= c <= "\U0001343f" for c in value)


def is_pattern(value):
    if not is_text(value):
        return False
    segments = value.split(".")
    named = segments[:-1] if segments[-1] == "*" else segments
    return "" not in segments and not any("*" in segment for segment in named)


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value):
    return is_integer(value) or (isinstance(value, float) and value - value == 0)


def is_random(value, length):
    """That many characters of the base64url alphabet; nobody decodes them."""
    return isinstance(value, str) and re.fullmatch(rf"[A-Za-z0-9_-]{{{length}}}", value) is not None


def is_list_of(test):
    return lambda value: isinstance(value, list) and all(map(test, value))


def is_map_of(key, item, empty=True):
    return lambda value: (
        isinstance(value, dict) and (empty or value != {}) and all(key(k) and item(v) for k, v in value.items())
    )


def is_path(value):
    if not isinstance(value, str) or not value.startswith("/"):
        return False
    if value == "/":
        return True
    bad = "\\" in value or "\0" in value or any(code in value.lower() for code in ("%2e", "%2f", "%5c", "%25", "%00"))
    return not bad and not {"", ".", ".."} & set(value[1:].split("/"))


def parse_address(text):
    """The bits of an address in its one spelling, as a string; None for what is none. 13.14."""
    parts = text.split(".")
    if len(parts) == 4 and all(re.fullmatch("[0-9]{1,3}", part) and str(int(part)) == part and int(part) < 256 for part in parts):
        return "".join(f"{int(part):08b}" for part in parts)
    if not re.fullmatch("[0-9a-f:]+", text):
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return None
    groups = [packed[at] * 256 + packed[at + 1] for at in range(0, len(packed), 2)]
    if spell_v6(groups) != text or groups[:6] == [0, 0, 0, 0, 0, 0xFFFF]:
        return None
    return "".join(f"{group:016b}" for group in groups)


def spell_v6(groups):
    """RFC 5952: the longest run of two or more zero groups is left out, the first of several."""
    runs = [(length, -at) for at in range(8) for length in range(2, 9 - at) if not any(groups[at : at + length])]
    if not runs:
        return ":".join(f"{group:x}" for group in groups)
    length, at = max(runs)
    return ":".join(f"{group:x}" for group in groups[:-at]) + "::" + ":".join(f"{group:x}" for group in groups[length - at :])


MAPPED = "0" * 80 + "1" * 16


def parse_block(text):
    """(Which version, the bits that all its addresses begin with), or None. 13.15."""
    start, _, length = text.partition("/")
    bits = parse_address(start)
    if bits is None or not re.fullmatch("0|[1-9][0-9]{0,2}", length) or int(length) > len(bits) or "1" in bits[int(length) :]:
        return None
    common = bits[: int(length)]
    if len(bits) == 128 and (MAPPED.startswith(common) or common.startswith(MAPPED)):
        return None
    return len(bits), common


def in_block(text, block):
    version, common = parse_block(block)
    bits = parse_address(text)
    return bits is not None and len(bits) == version and bits.startswith(common)


LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME_OF_HOST = re.compile(rf"(?:{LABEL}\.)*(?!0x)(?=[0-9-]*[a-z]){LABEL}")
PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


def parse_url(text, entry=False):
    """(scheme, host, port, segments of the path), or None. 13.9 to 13.11."""
    whole = re.fullmatch(r"(https|http|wss|ws)://(\[[^]]*\]|[^/?:]*)(:[^/?]*)?(/[^?]*)?(\?.*)?", text, re.DOTALL)
    if whole is None or len(text) > 2048 or re.search(r"[^!-~]|[\\#]", text):
        return None
    scheme, host, port, path, query = whole.groups()
    if "@" in text.split("//", 1)[1].split("/", 1)[0] or (entry and query is not None):
        return None
    if port is not None and (not re.fullmatch(":[1-9][0-9]{0,4}", port) or int(port[1:]) in (PORTS[scheme], *range(65536, 100000))):
        return None
    if host.startswith("["):
        good = ":" in host and parse_address(host[1:-1]) is not None
    else:
        star = entry and host.startswith("*.")
        name = host[2:] if star else host
        is_name = len(host) <= 253 and NAME_OF_HOST.fullmatch(name) is not None and (not star or "." in name)
        good = is_name or (":" not in host and not star and parse_address(host) is not None)
    segments = (path or "/")[1:].split("/")
    good = good and "" not in segments[:-1] and not {".", ".."} & {segment.split(";")[0] for segment in segments}
    for at in [at for at, character in enumerate(path or "") if character == "%"]:
        code = path[at + 1 : at + 3].lower()
        good = good and re.fullmatch("[0-9a-f]{2}", code) is not None and code not in ("2e", "2f", "5c", "25", "00", "3b")
    return (scheme, host, int(port[1:]) if port else PORTS[scheme], segments) if good else None


def within_url(value, entry):
    """13.12."""
    scheme, host, port, segments = parse_url(value)
    its_scheme, its_host, its_port, its_segments = parse_url(entry, entry=True)
    hosts = host == its_host or (its_host.startswith("*.") and host.endswith(its_host[1:]))
    top, slash = (its_segments, []) if its_segments[-1] else (its_segments[:-1], [""])
    below = segments[: len(top)] == top and len(segments) >= len(top + slash)
    return (scheme, port) == (its_scheme, its_port) and hosts and below


def is_constraint(value, deep=0):
    if not isinstance(value, dict):
        return False
    kind = set(value)
    if kind == {"prefix"}:
        return is_list_of(lambda v: is_text(v) and not v.startswith("/") and "://" not in v)(value["prefix"])
    if kind == {"url"}:
        listed = value["url"]
        return is_list_of(lambda v: isinstance(v, str) and parse_url(v, entry=True))(listed) and len(listed) <= 16
    if kind == {"cidr"}:
        return is_list_of(lambda v: isinstance(v, str) and parse_block(v))(value["cidr"])
    if kind in ({"each"}, {"each", "most"}):
        most = value.get("most", 0)
        return deep < 4 and is_integer(most) and most >= 0 and is_constraint(value["each"], deep + 1)
    if kind == {"in"}:
        return is_list_of(lambda v: isinstance(v, bool) or is_integer(v) or is_text(v))(value["in"])
    if kind == {"path"}:
        return is_list_of(lambda v: is_text(v) and is_path(v))(value["path"])
    if kind == {"any"}:
        return value["any"] is True
    if kind in ({"min"}, {"max"}, {"min", "max"}):
        return all(map(is_integer, value.values())) and value.get("min", -SAFE_INTEGER) <= value.get("max", SAFE_INTEGER)
    return False


def is_argument(value):
    """A constraint on a tool's argument; it may be optional."""
    if isinstance(value, dict) and "optional" in value:
        return value["optional"] is True and is_constraint({k: v for k, v in value.items() if k != "optional"})
    return is_constraint(value)


P = 2**255 - 19
ORDER_8 = ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
           "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")  # fmt: skip


def is_key(value):
    """An Ed25519 key in a link: canonical, and not of low order."""
    data = unbase64(value) if isinstance(value, str) else None
    if data is None or len(data) != 32:
        return False
    y = int.from_bytes(data, "little") % 2**255
    return y < P and y not in (0, 1, P - 1, *(int.from_bytes(bytes.fromhex(point), "little") for point in ORDER_8))


def is_amount(value):
    return is_integer(value) and value >= 0


def is_unit(value):
    return is_name(value) and value != "uses"


def is_rows(value):
    """By pattern, by column, a constraint; each entry names what those over it name. 15.14"""
    if not is_map_of(is_pattern, is_map_of(is_text, is_constraint), empty=False)(value):
        return False
    over = [(wide, narrow) for wide in value for narrow in value if wide != narrow and matches(wide, narrow)]
    return all(not value[narrow] or value[wide].keys() <= value[narrow].keys() for wide, narrow in over)


def is_mark(value):
    """46.1"""
    if not isinstance(value, dict) or not value.keys() <= MARK.keys():
        return False
    of_what = "tables" in value or ("tools" in value and "operations" not in value)
    return of_what and all(value[key] and MARK[key](value[key]) for key in value)


def is_but(value):
    return isinstance(value, dict) and value.keys() <= OF_BUT and all(KEYS[key][1](value[key]) for key in value)


def is_marks(value):
    return is_map_of(is_name, is_mark)(value) and 1 <= len(value) <= 8


def is_rule(value):
    """46.4"""
    if not isinstance(value, dict) or not {"in", "after"} <= value.keys() <= {"in", "after", "unless"}:
        return False
    named = all(is_list_of(is_name)(value[key]) and 1 <= len(value[key]) <= most for key, most in (("in", 8), ("after", 7)))
    return named and ("unless" not in value or is_key(value["unless"]))


def is_asking(value):
    """47.1"""
    if not is_list_of(lambda one: isinstance(one, dict) and one.keys() == {"by", "for"})(value) or not 1 <= len(value) <= 4:
        return False
    return all(is_key(one["by"]) and is_mark(one["for"]) for one in value)


OPERATIONS = is_list_of(lambda v: v == "*" or is_name(v))
OF_BUT = {"tables", "operations", "allow", "tools"}
MARK = {"tables": is_list_of(is_pattern), "operations": OPERATIONS, "tools": is_list_of(is_pattern), "but": is_but}
KEYS = {  # every key of this version: its domain, and what its value may be
    "tables": (DATA, is_list_of(is_pattern)),
    "operations": (DATA, OPERATIONS),
    "allow": (DATA, is_map_of(is_pattern, OPERATIONS)),
    "columns": (DATA, is_map_of(is_pattern, is_list_of(is_text), empty=False)),
    "rows": (DATA, is_rows),
    "tools": (TOOL, is_map_of(is_pattern, is_map_of(is_text, is_argument))),
    "where": (UNIVERSAL, is_map_of(is_text, is_constraint, empty=False)),
    "exp": (UNIVERSAL, is_integer),
    "nbf": (UNIVERSAL, is_integer),
    "aud": (UNIVERSAL, is_list_of(is_name)),
    "task": (UNIVERSAL, is_task),
    "uses": (UNIVERSAL, is_amount),
    "budget": (UNIVERSAL, is_map_of(is_unit, is_amount, empty=False)),
    "marks": (UNIVERSAL, is_marks),
    "forbid": (UNIVERSAL, lambda v: is_list_of(is_rule)(v) and 1 <= len(v) <= 16),
    "consent": (UNIVERSAL, is_asking),
    "fresh": (UNIVERSAL, is_amount),
    "from": ("lineage", is_name),
    "to": ("lineage", is_name),
    "n": ("lineage", lambda v: is_random(v, 11)),
    "depth": ("lineage", lambda v: is_integer(v) and v >= 0),
    "delegate_only": ("lineage", lambda v: v is True),
    "key": ("lineage", is_key),
}


def split_link(body):
    """A link's JSON object, and the signature behind it or None. A signature that is badly written is part of the object,
    which is then none."""
    signature = unbase64(body[-86:].decode("latin-1")) if body[-87:-86] == b"." else None
    return (body, None) if signature is None or len(signature) != 64 else (body[:-87], signature)


NO_OWN = {}  # own caveats by key: each has a `domain`, `asks_access`, `reads(value)` and `prohibits(value, access)`


def decode_link(body, bound=False, own=NO_OWN):
    """Step 5: the link's caveats, or its code. An unknown key counts before an unreadable value. `bound`: a link before it
    has a key, so that this one may be signed."""
    body, signature = split_link(body)
    link = decode_object(body)
    need(link is not None, "unreadable_link")
    need(link.keys() <= KEYS.keys() | own.keys(), "unknown_caveat")
    readable = (KEYS[key][1](value) if key in KEYS else own[key].reads(value) for key, value in link.items())
    need(link and all(readable), "unreadable_link")
    need(names_of(link.get("forbid", ())) <= link.get("marks", {}).keys(), "unreadable_link")
    counted, hand_over = link.keys() & COUNTED, link.keys() & {"from", "to", "n"}
    need(len(hand_over) == 3 or hand_over == ({"n"} if counted else set()), "unreadable_link")
    need(signature is None or (bound and "key" in link), "unreadable_link")
    return link


def decode_links(caveats, own=NO_OWN):
    """All links of a token; of a third-party caveat, one that says nothing."""
    links, bound, counting, buckets = [], False, 0, 0
    for place, (cid, vid) in enumerate(caveats):
        with at(place):
            links.append(decode_link(cid, bound, own) if vid is None else {})
        bound = bound or "key" in links[-1]
        counting += bool(links[-1].keys() & COUNTED)
        buckets += ("uses" in links[-1]) + len(links[-1].get("budget", {})) + len(links[-1].get("marks", {}))
        need(counting <= 8 and buckets <= 16, "unreadable_link", place)
    return links


def decode_discharge(caveats, own=NO_OWN):
    """Step 5 for a discharge; the place of what stops is that of the caveat that it answers (33.7)."""
    links = []
    for cid, _ in caveats:
        links.append(decode_link(cid, own=own))
        need(not links[-1].keys() & {"task", "from", "depth", "delegate_only", "key", "forbid", "consent", *COUNTED}, "unreadable_link")
    need(any("exp" in link for link in links), "unreadable_link")
    return links


def matches(pattern, name):
    return pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1]))


def most_specific(mapping, name):
    """The value of the entry that decides: exact, then the longest `.*`, then `*`; None without a match."""
    found = [p for p in mapping if matches(p, name)]
    return mapping[max(found, key=lambda p: (p == name, p != "*", p.count(".")))] if found else None


def satisfies(constraint, value):
    if "any" in constraint:
        return True
    if "in" in constraint:
        return any(type(value) is type(v) and value == v for v in constraint["in"])
    if "path" in constraint:
        return is_path(value) and any(p == "/" or value == p or value.startswith(p + "/") for p in constraint["path"])
    if "prefix" in constraint:
        plain = isinstance(value, str) and not (is_path(value) or parse_url(value) or parse_address(value))
        return plain and any(value.startswith(start) for start in constraint["prefix"])
    if "url" in constraint:
        return isinstance(value, str) and parse_url(value) is not None and any(within_url(value, e) for e in constraint["url"])
    if "cidr" in constraint:
        return isinstance(value, str) and any(in_block(value, block) for block in constraint["cidr"])
    if "each" in constraint:
        return (
            isinstance(value, list)
            and len(value) <= constraint.get("most", len(value))
            and all(satisfies(constraint["each"], item) for item in value)
        )
    return is_number(value) and constraint.get("min", value) <= value <= constraint.get("max", value)


# ---- 4.1 text, wire, root record -----------------------------------------------------------------------------------


def base64text(data):
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def unbase64(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if base64text(data) == text else None  # trailing bits are zero


def varint(data, at):
    value = 0
    for used in range(5):
        need(at + used < len(data), "malformed")
        byte = data[at + used]
        value |= (byte & 0x7F) << (7 * used)
        if byte < 0x80:
            need(byte or not used, "malformed")  # minimal
            return value, at + used + 1
    raise Stop("malformed")


def take_field(data, at, kind):
    need(at < len(data) and data[at] == kind, "malformed")
    size, at = varint(data, at + 1)
    need(size <= FIELD_MAX and at + size <= len(data), "malformed")
    return data[at : at + size], at + size


def parse_all(text):
    """Steps 1 and 2 for all that a text holds: (token, [discharge], proof, [consent]), each as `parse` or its like gives it.

    The discharges are bound; the proof is None where the text does not end in one.
    """
    need(isinstance(text, str), "malformed")
    token, *rest = text.split(".")
    need(not rest or len(text) <= BUNDLE_MAX, "malformed")
    ends_in_proof = bool(rest) and rest[-1].startswith("cap1p_")
    proof = parse_proof(rest.pop()) if ends_in_proof else None
    consents = []
    while rest and rest[-1].startswith("cap1a_"):
        consents.insert(0, parse_consent(rest.pop()))
    names = [name for name, *_ in consents]
    need(len(names) <= CONSENTS_MAX and names == sorted(set(names)), "malformed")  # 47.4
    need(len(rest) <= DISCHARGES_MAX, "malformed")
    made = [parse(discharge, "cap1d_", TICKET_MAX) for discharge in rest]
    need(all(vid is None for _, caveats, _ in made for _, vid in caveats), "malformed")
    return parse(token), made, proof, consents


def parse_consent(text):
    """A consent: (the question that it answers, from when, until when, nonce, signature)."""
    data = unbase64(text[len("cap1a_") :])
    need(data is not None and len(data) == 32 + 8 + 8 + 16 + 64, "malformed")
    return data[:32], int.from_bytes(data[32:40], "big"), int.from_bytes(data[40:48], "big"), data[48:64], data[64:]


def parse_proof(text):
    """A proof: (when it was made, nonce, signature)."""
    data = unbase64(text[len("cap1p_") :])
    need(data is not None and len(data) == 8 + 16 + 64, "malformed")
    return int.from_bytes(data[:8], "big"), data[8:24], data[24:]


def parse(text, prefix="cap1_", identifier_max=ROOT_MAX, longest=TEXT_MAX):
    """One token or discharge: (identifier, [(cid, vid or None)], signature)."""
    need(isinstance(text, str) and len(text) <= longest and text.startswith(prefix), "malformed")
    data = unbase64(text[len(prefix) :])
    need(data and data[0] == 2, "malformed")
    identifier, at = take_field(data, 1, 2)
    need(0 < len(identifier) <= identifier_max and data[at : at + 1] == b"\0", "malformed")
    at, caveats = at + 1, []
    while data[at : at + 1] != b"\0":
        (cid, at), vid = take_field(data, at, 2), None
        if data[at : at + 1] == b"\4":
            vid, at = take_field(data, at, 4)
            need(len(vid) == 72, "malformed")
        need(cid and data[at : at + 1] == b"\0", "malformed")
        at += 1
        caveats.append((cid, vid))
        need(len(caveats) <= LINKS_MAX, "malformed")
    signature, at = take_field(data, at + 1, 6)
    need(len(signature) == 32 and at == len(data) and caveats, "malformed")
    return identifier, caveats, signature


def is_ext(value):
    def namespaced(key):
        return is_name(key) and ":" in key[1:-1]

    return is_map_of(namespaced, lambda v: isinstance(v, str) or is_integer(v), empty=False)(value)


ROOT = {
    "agent": is_name,
    "iat": is_integer,
    "jti": lambda v: is_random(v, 22) and v[-1] in "AQgw",  # 16 bytes: the last four bits are zero
    "kid": is_name,
    "sub": is_name,
    "task": is_task,
    "v": lambda v: is_integer(v) and v == 1,
    "aud": is_name,
    "ext": is_ext,
}


def decode_root(identifier):
    root = decode_object(identifier)
    need(root is not None, "malformed")
    need(not is_integer(root.get("v")) or root["v"] == 1, "unsupported_version")
    need(root.keys() | {"aud", "ext"} == ROOT.keys() and all(ROOT[k](v) for k, v in root.items()), "malformed")
    return root


# ---- section 6: keys and the chain ---------------------------------------------------------------------------------


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def audience_key(key, audience):
    return mac(key, b"captoken/v1 audience\0" + audience.encode("ascii"))


def find_key(keys, kid, audience):
    """`keys`: kid -> root key, which gives every audience's; or (kid, audience) -> that audience's key and no other."""
    if (kid, audience) in keys:
        return keys[kid, audience]
    need(kid in keys, "unknown_key")
    return keys[kid] if audience is None else audience_key(keys[kid], audience)


def derive(key):
    return mac(b"macaroons-key-generator", key)


def chain_tags(derived, identifier, caveats):
    """The tag after the identifier, and after each caveat."""
    tags = [mac(derived, identifier)]
    for cid, vid in caveats:
        tag = tags[-1]
        tags.append(mac(tag, cid) if vid is None else mac(tag, mac(tag, vid) + mac(tag, cid)))
    return tags


def chain_tag(key, identifier, caveats):
    return chain_tags(derive(key), identifier, caveats)[-1]


def bind(root_tag, tag):
    """A discharge's tag, bound to the token that ends in `root_tag`."""
    return mac(bytes(32), mac(bytes(32), root_tag) + mac(bytes(32), tag))


def check_discharges(tags, caveats, discharges):
    """The rest of step 4: the discharges' links. `tags` are the token's, from its identifier's on."""
    identifiers = [identifier for identifier, _, _ in discharges]
    need(len(set(identifiers)) == len(identifiers), "bad_discharge")
    asked = [(place, cid) for place, (cid, vid) in enumerate(caveats) if vid is not None]
    answered, open_ = [], []
    for place, cid in asked:
        if identifiers[len(answered) : len(answered) + 1] == [cid]:
            answered.append(cid)
        else:
            open_.append(place)
    need(answered == identifiers, "bad_discharge")
    need(not open_, "missing_discharge", open_[0] if open_ else None)
    for (place, cid), (_, links, signature) in zip(asked, discharges, strict=True):
        vid = caveats[place][1]
        with at(place):
            try:
                derived = SecretBox(tags[place]).decrypt(vid[24:], vid[:24])
            except CryptoError:
                raise Stop("bad_discharge") from None
            need(bind(tags[-1], chain_tags(derived, cid, links)[-1]) == signature, "bad_discharge")


def mint(key, root, bodies, prefix="cap1_", bound_to=None):
    """The text of a token with this root record and these links (bytes, or objects; (cid, vid) is a third-party caveat).

    Or of a discharge, where the key is the caveat's and the root record the ticket: `bound_to` is then the token's tag.
    """

    def encoded(value):
        return value if isinstance(value, bytes) else canonical(value).encode("utf-8")

    def field(kind, data):
        size, length = len(data), b""
        while size >= 0x80:
            size, length = size >> 7, length + bytes([size & 0x7F | 0x80])
        return bytes([kind]) + length + bytes([size]) + data

    identifier = encoded(root)
    caveats = [body if isinstance(body, tuple) else (encoded(body), None) for body in bodies]
    wire = b"\2" + field(2, identifier) + b"\0"
    wire += b"".join(field(2, cid) + (field(4, vid) if vid is not None else b"") + b"\0" for cid, vid in caveats)
    tag = chain_tag(key, identifier, caveats)
    return prefix + base64text(wire + b"\0" + field(6, tag if bound_to is None else bind(bound_to, tag)))


# ---- 4.2, 4.3: lineage, then one link against an access ------------------------------------------------------------


def fold_lineage(agent, links):
    """Step 6: those who have held the token, the key that it is bound to, and whether it is for handing on alone."""
    held, left, owed_at, bound = [agent], None, None, None
    for place, link in enumerate(links):
        if "to" in link:
            need(link["from"] == held[-1] and link["to"] not in held, "broken_delegation", place)
            need(bound is None or "key" in link, "broken_delegation", place)
            need(left != 0, "too_deep", place)
            held.append(link["to"])
            left, owed_at = (None if left is None else left - 1), None
        if "depth" in link:
            left = link["depth"] if left is None else min(left, link["depth"])
        owed_at = place if "delegate_only" in link else owed_at
        bound = link.get("key", bound)
    return held, bound, owed_at


def holder_before(agent, caveats, place, own=NO_OWN):
    """Who held the token when the link at that place was added, as far as the links before it can be read. 23.1"""
    held, left, bound = [agent], None, None
    for cid, vid in caveats[:place]:
        link = (decode_object(split_link(cid)[0]) if vid is None else None) or {}
        passed = is_name(link.get("from")) and is_name(link.get("to")) and is_random(link.get("n"), 11)
        hands_on = passed and link["to"] not in held
        try:
            decode_link(cid, bound is not None, own)
        except Stop:
            held += [link["to"]] if hands_on else []
        else:
            follows = hands_on and link["from"] == held[-1] and (bound is None or "key" in link) and left != 0
            if "to" in link and not follows:
                continue
            held += [link["to"]] if follows else []
            left = left - 1 if follows and left is not None else left
            left = min(link.get("depth", left), left) if left is not None else link.get("depth")
        bound = link["key"] if is_key(link.get("key")) else bound
    return held[-1]


def at_or_below(task, other):
    return task == other or task.startswith(other + "/")


def check_data(key, value, access):
    table, operation = access["table"], access["operation"]
    if key == "tables":
        need(any(matches(p, table) for p in value), "table")
    elif key == "operations":
        need("*" in value or operation in value, "operation")
    elif key == "allow":
        listed = most_specific(value, table)
        need(listed, "table")
        need("*" in listed or operation in listed, "operation")
    elif key == "rows":
        check_rows(most_specific(value, table) or {}, access)
    else:
        listed = most_specific(value, table)
        if listed is not None:
            need("columns" in access, "column")
            need("*" in listed or set(access["columns"]) <= set(listed), "column")


def check_rows(entry, access):
    """15.13"""
    asked = {column: constraint for column, constraint in entry.items() if "any" not in constraint}
    if not asked:
        return
    if "rows" in access:
        need(any(canonical(entry) == canonical(held) for held in access["rows"]), "row")
        return
    touched = {"select": ["row"], "delete": ["row"], "insert": ["becomes"]}.get(access["operation"], ["row", "becomes"])
    need(all(fact in access for fact in touched) and any(access[fact] is not None for fact in touched), "row")
    for row in (access.get("row"), access.get("becomes")):
        for column, constraint in asked.items():
            need(row is None or (column in row and satisfies(constraint, row[column])), "row")


def check_tools(value, access):
    constraints, arguments = most_specific(value, access["tool"]), access.get("arguments", {})
    need(constraints is not None, "tool")
    if constraints:
        need(arguments.keys() <= constraints.keys(), "argument")
        for name, constraint in constraints.items():
            need(satisfies(constraint, arguments[name]) if name in arguments else "optional" in constraint, "argument")


def check_whether_it_lives(link, state, now, leeway, overlay_age):
    """The first pass of step 8 for one link: by key, what does not ask about an access.

    `state` is the audiences left and the task so far.
    """
    for key in sorted(link):
        value = link[key]
        if key == "exp":
            need(now < value + leeway, "expired")
        elif key == "nbf":
            need(now >= value - leeway, "not_yet_valid")
        elif key == "aud":
            state["audiences"] &= set(value)
            need(state["audiences"], "wrong_audience")
            state["addressed"] = True
        elif key == "task":
            need(at_or_below(value, state["task"]) or at_or_below(state["task"], value), "task")
            state["task"] = max(state["task"], value, key=len)
        elif key == "fresh":
            need(overlay_age is not None and overlay_age <= value, "stale_overlay")


def domain_of(key, own):
    return KEYS[key][0] if key in KEYS else own[key].domain


def domains_of(access):
    """The domains that an access states; none of no access. 18.1"""
    return {domain for domain, fact in ((DATA, "table"), (TOOL, "tool")) if fact in (access or {})}


def check_own(caveat, value, access):
    """An own caveat, which says None, or the code of the denial. 15.12"""
    try:
        said = caveat.prohibits(value, access)
    except Exception:
        said = ""
    need(said is None, said if said in CODES else "attribute")


def check_access(link, access, own=NO_OWN):
    """The second pass of step 8 for one link: its other caveats by key, then its domains."""
    stated = domains_of(access)
    for key in sorted(link):
        value, domain = link[key], domain_of(key, own)
        if key in own:
            if domain not in (DATA, TOOL) or domain in stated:
                check_own(own[key], value, access)
        elif key == "budget":
            need(value.keys() <= access.get("cost", {}).keys(), "cost_unstated")
        elif key == "where":
            attributes = access.get("attributes", {})
            need(all(name in attributes and satisfies(c, attributes[name]) for name, c in value.items()), "attribute")
        elif domain == DATA and DATA in stated:
            check_data(key, value, access)
        elif domain == TOOL and TOOL in stated:
            check_tools(value, access)
    named = {domain_of(key, own) for key in link} & {DATA, TOOL}
    if named:
        need(stated and stated <= named, "domain")


# ---- 24.25, 24.26: how much work it is ----------------------------------------------------------------------------


def size(value):
    if isinstance(value, str):
        return 2 + len(value.encode())
    if isinstance(value, list):
        return 2 + sum(16 + size(item) for item in value)
    if isinstance(value, dict):
        return 2 + sum(16 + size(key) + size(item) for key, item in value.items())
    return 24


def looks(link, access):
    """Each constraint and each list of a link that looks at a value, with that value."""
    table, tool = access.get("table"), access.get("tool")
    named = []
    if table is not None:
        named += [(link.get("tables"), table), (link.get("operations"), access["operation"])]
        named += [(most_specific(link.get("allow", {}), table), access["operation"])]
        if access.get("columns") is not None:
            named += [(most_specific(link.get("columns", {}), table), list(access["columns"]))]
        entry = most_specific(link.get("rows", {}), table) or {}
        asked = {column: constraint for column, constraint in entry.items() if "any" not in constraint}
        if asked and "rows" in access:
            named += [(entry, list(access["rows"]))]
        for row in (access.get("row") or {}, access.get("becomes") or {}):
            named += [(constraint, row[column]) for column, constraint in asked.items() if column in row]
    of_tool = most_specific(link.get("tools", {}), tool) if tool is not None else None
    for constraints, values in ((of_tool, access.get("arguments")), (link.get("where"), access.get("attributes"))):
        values = values or {}
        named += [(c, values[name]) for name, c in (constraints or {}).items() if name in values and "any" not in c]
    for mark in (*link.get("marks", {}).values(), *(one["for"] for one in link.get("consent", ()))):
        facts = (("tables", table), ("operations", access.get("operation")), ("tools", tool))
        named += [(mark.get(key), fact) for key, fact in facts if fact is not None] + looks(mark.get("but", {}), access)
    return [(stated, value) for stated, value in named if stated is not None]


def work(links, access):
    pairs = [pair for link in links for pair in looks(link, access)] if access is not None else []
    return sum(len(canonical(stated).encode()) + size(value) for stated, value in pairs)


def check_without_access(link, own):
    """What is left of the second pass where no access is asked about: own caveats that do not ask about one. 24.8"""
    for key in sorted(link.keys() & own.keys()):
        if not own[key].asks_access and own[key].domain not in (DATA, TOOL):
            check_own(own[key], link[key], None)


CODES = {
    "malformed", "unsupported_version", "unknown_key", "bad_signature", "missing_discharge", "bad_discharge", "unreadable_link",
    "unknown_caveat", "broken_delegation", "too_deep", "delegate_only", "revoked", "narrowed", "stale_overlay", "stale_grant",
    "expired", "not_yet_valid", "wrong_audience", "unaddressed", "table", "operation", "column", "row", "tool", "argument", "attribute",
    "domain", "task", "cost_unstated", "too_much_work", "consent_missing", "caller", "proof_missing", "bad_proof", "bad_consent", "replayed", "forbidden_after", "budget_exhausted", "store_unavailable",
}  # fmt: skip


# ---- 7: facts that can be stated ------------------------------------------------------------------------------------


def is_segmented(value):
    """A table or a tool that is accessed. 4.5"""
    return is_text(value) and "*" not in value and "" not in value.split(".")


def is_json(value):
    """A value of an attribute or an argument. 7.5"""
    if isinstance(value, dict):
        return all(is_json(key) and is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    if isinstance(value, str):
        return not any(unicodedata.category(character) == "Cs" for character in value)
    return value is None or isinstance(value, bool) or is_number(value)


def is_row(value):
    """A row, by column. 7.11"""
    return is_map_of(lambda v: is_text(v) and v != "*", is_json)(value)


def is_condition(value):
    """A constraint that a server has held: its integers are those that a link can have. 7.12"""
    whole = value if isinstance(value, dict) else {}
    listed = whole.get("in")
    inside = [whole.get("each"), whole.get("min"), whole.get("max"), whole.get("most"), *(listed if isinstance(listed, list) else ())]
    return is_constraint(value) and all(
        is_condition(one) if isinstance(one, dict) else not is_integer(one) or abs(one) < SAFE_INTEGER for one in inside
    )


FACTS = {
    "table": is_segmented,
    "operation": is_name,
    "columns": is_list_of(lambda v: is_text(v) and v != "*"),
    "row": lambda v: v is None or is_row(v),
    "becomes": lambda v: v is None or is_row(v),
    "rows": is_list_of(is_map_of(is_text, is_condition)),
    "tool": is_segmented,
    "arguments": is_map_of(is_text, is_json),
    "attributes": is_map_of(is_text, is_json),
    "cost": is_map_of(is_name, lambda v: is_amount(v) and v < SAFE_INTEGER),
}


def facts_of(access):
    """The facts that an access states: null in place of most of them states none. 7.1, 7.11"""
    kept = ("attributes", "cost", "row", "becomes")
    return {fact: value for fact, value in access.items() if value is not None or fact in kept}


def is_access(access):
    """Can these facts be stated? 7.1, 7.2"""
    if not isinstance(access, dict):
        return False
    facts = facts_of(access)
    if not access.keys() <= FACTS.keys() or not all(FACTS[fact](value) for fact, value in facts.items()):
        return False
    pairs = ("table" in facts) == ("operation" in facts)
    of_rows = facts.keys() & {"row", "becomes", "rows"}
    if "rows" in of_rows and len(of_rows) > 1:
        return False
    return pairs and ("table" in facts or not {"columns", *of_rows} & facts.keys()) and ("tool" in facts or "arguments" not in facts)


def is_caller(caller):
    """7.6"""
    stated = {fact: value for fact, value in caller.items() if value is not None}
    tests = {"agent": is_name, "task": is_task}
    return bool(stated) and caller.keys() <= tests.keys() and all(tests[fact](value) for fact, value in stated.items())


def is_root_key(key):
    """21.1"""
    return len(key) == 32 and len(set(key)) > 1


# ---- section 6 of the design, 28 to 31 of the specification: who signs, and what -------------------------------------


def label(purpose):
    return b"captoken/v1 " + purpose.encode("ascii") + b"\0"


def sha256(data):
    return hashlib.sha256(data).digest()


def chain_state(tag):
    return sha256(label("state") + tag)


def is_signed(key, message, signature):
    """`key` is base64url, as links have it."""
    try:
        VerifyKey(unbase64(key)).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True


def custody_message(tag, body):
    return label("custody") + chain_state(tag) + sha256(body)


def proven_holders(tags, caveats, links):
    """Those who were handed the token by a signature; the code if one that is due is not there or does not hold."""
    bound, proven = None, set()
    handed, doubtful = False, False  # doubtful: the key is one that the first agent bound by itself, after link 0
    for place, (tag, (cid, _), link) in enumerate(zip(tags, caveats, links, strict=False)):
        handed = handed or "to" in link
        if "key" in link and bound is None:
            doubtful = place > 0 and not handed
        if "key" in link and bound is not None:
            body, signature = split_link(cid)
            need(signature is not None and is_signed(bound, custody_message(tag, body), signature), "bad_proof", place)
            proven |= {link["to"]} if "to" in link and not doubtful else set()
            doubtful = doubtful and "to" not in link
        bound = link.get("key", bound)
    return proven


def spell(value):
    """The JSON of an access's digest: ASCII, keys by code point, fractions by their shortest digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)  # a ValueError for an integer of more than 4300 digits
    if isinstance(value, str):
        return '"' + "".join(spell_character(character) for character in value) + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(spell, value)) + "]"
    return "{" + ",".join(f"{spell(key)}:{spell(value[key])}" for key in sorted(value)) + "}"


def spell_character(character):
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    if character in short or " " <= character <= "~":
        return short.get(character, character)
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def request_digest(access):
    """What a proof for this access is about; None is none. ValueError for what has no digest (29.4)."""
    if access is None:
        return sha256(label("request access"))
    stated = {key: access.get(key) for key in ("arguments", "attributes", "columns", "operation", "table", "tool")}
    stated["attributes"] = stated["attributes"] or {}
    stated["arguments"] = stated["arguments"] or {} if "tool" in access else None
    stated["columns"] = sorted(set(access["columns"])) if "columns" in access else None
    spelled = spell(stated).encode("ascii")
    return sha256(label("request access") + len(spelled).to_bytes(8, "big") + spelled)


def digest_for_proof(access):
    """The digest, or None, which no proof is about."""
    try:
        return request_digest(access)
    except ValueError:
        return None


def proof_message(tag, audience, issued, nonce, digest):
    where = sha256(audience.encode("ascii"))
    return label("proof") + chain_state(tag) + where + issued.to_bytes(8, "big") + nonce + digest


def check_proof(proof, key, tag, audiences, digest, now):
    """The end of step 10: (nonce, when it was made)."""
    need(proof is not None, "proof_missing")
    issued, nonce, signature = proof
    need(digest is not None, "bad_proof")
    need(now - PAST <= issued <= now + AHEAD, "bad_proof")
    messages = [proof_message(tag, audience, issued, nonce, digest) for audience in audiences]
    need(any(is_signed(key, message, signature) for message in messages), "bad_proof")
    return nonce, issued


def entry(key, nonce):
    """What a store remembers a use by; the key in base64url."""
    return sha256(label("replay") + unbase64(key) + nonce)[:16]


class Store:
    """Used proofs; what was made at the floor or before is as good as forgotten, and `limit` counts the others."""

    def __init__(self, floor=0, limit=1000, used=(), lives=PAST):
        self.floor, self.limit, self.used, self.lives = floor, limit, dict(used), lives
        self.spent = None if lives != PAST else Store(floor, limit, lives=CONSENT_LIFE)  # the consents: 47.9

    def commit(self, name, issued, now):
        """Step 11. What is out of time now is not taken again, whatever the clock says later."""
        self.floor = max(self.floor, now - self.lives - 1)
        need(issued > self.floor >= self.used.get(name, self.floor), "replayed")
        need(sum(made > self.floor for made in self.used.values()) < self.limit, "store_unavailable")
        self.used[name] = issued


# ---- section 7: what is counted ------------------------------------------------------------------------------------


COUNTED = {"uses", "budget", "marks"}  # what has buckets, and so an `n`: 17.6, 38.13
DENYING = {"uses", "budget", "forbid"}  # what a ledger denies by: 38.6


def is_for_one(root, links):
    """Is each link that counts, or forbids, for one server by then? A child of one that is not could be made for every server."""
    named = None if "aud" not in root else {root["aud"]}
    for link in links:
        if "aud" in link:
            named = set(link["aud"]) if named is None else named & set(link["aud"])
        if link.keys() & DENYING and (named is None or len(named) > 1):
            return False
    return True


def debits(tags, links, access):
    """(place, bucket, unit, limit, amount) of each link that counts; a bucket by the link's id (38.1)."""
    made = []
    for place, (bucket, link) in enumerate(zip(link_ids(tags), links, strict=True)):
        made += [(place, bucket, unit, link["budget"][unit], access["cost"][unit]) for unit in sorted(link.get("budget", {}))]
        made += [(place, bucket, "uses", link["uses"], 1)] if "uses" in link else []
    return made


class Ledger:
    """What was spent, by bucket and unit, and which marks are set. It knows nothing of tokens that were issued at its floor or before."""

    def __init__(self, shared=False, floor=None, is_down=False, marks=()):
        self.shared, self.floor, self.spent, self.is_down, self.marks = shared, floor, {}, is_down, set(marks)
        self.known = set()  # the marks that whoever asks knows to be set: 46.7

    def commit(self, wanted, issued, step, looking=False):
        """The end of step 11: all of it or nothing. 38.3, 38.7, 38.9, 46.6"""
        for place, _, _, limit, amount in wanted:
            need(amount <= limit, "budget_exhausted", place)
        step.check(self.known)
        need(not self.is_down, "store_unavailable")
        need(self.floor is None or issued > self.floor, "store_unavailable")
        try:
            step.check(self.marks)
        except Stop as stop:
            self.known |= set() if looking else self.marks & stop.after
            raise
        spent = dict(self.spent)
        for place, bucket, unit, limit, amount in wanted:
            spent[bucket, unit] = spent.get((bucket, unit), 0) + amount
            need(spent[bucket, unit] <= limit, "budget_exhausted", place)
        if not looking:
            self.spent, self.marks, self.known = spent, self.marks | step.marks, self.known | step.marks


# ---- 47: consent ---------------------------------------------------------------------------------------------------


def asked_by(token):
    """(place, state, key, what needs it): of each entry of `consent`, and of each `unless`, where that is None."""
    for place, (tag, link) in enumerate(zip(token.tags[1:], token.links, strict=True)):
        for one in link.get("consent", ()):
            yield place, chain_state(tag), one["by"], one["for"]
        for rule in link.get("forbid", ()):
            if "unless" in rule:
                yield place, chain_state(tag), rule["unless"], None


def question(key, state, digest, audience):
    """47.4"""
    return sha256(label("consent question") + unbase64(key) + state + digest + sha256(audience.encode()))


def came_for(token, access, audiences):
    """(what asks, audience, consent) of each consent that names a question of this access."""
    digest = None if access is None else digest_for_proof(access)
    by_name = {one[0]: one for one in token.consents} if digest is not None else {}
    return [
        (one, audience, by_name[name])
        for one in asked_by(token)
        for audience in sorted(audiences)
        if (name := question(one[2], one[1], digest or b"", audience)) in by_name
    ]


def check_consent_is_there(token, access, audiences):
    """The end of step 8. 47.3"""
    came = [one for one, _, _ in came_for(token, access, audiences)]
    for one in asked_by(token):
        if access is not None and one[3] is not None and is_in(one[3], access):
            need(one in came, "consent_missing", one[0])


def check_consents(token, access, audiences, now):
    """The end of step 10. 47.6"""
    digest = None if access is None else digest_for_proof(access)
    for (place, state, key, _), audience, (_, issued, until, nonce, signature) in came_for(token, access, audiences):
        need(0 < until - issued <= CONSENT_LIFE and issued <= now + AHEAD and now < until, "bad_consent", place)
        times = issued.to_bytes(8, "big") + until.to_bytes(8, "big")
        message = label("consent") + state + digest + sha256(audience.encode()) + times + nonce
        need(is_signed(key, message, signature), "bad_consent", place)


def spend(token, access, audiences, step, store, now):
    """Step 11: those that the access needs, and those that lift a rule that it runs into. 47.9, 47.10"""
    made, names = [], set()
    for one, _, (name, issued, _, nonce, _) in came_for(token, access, audiences):
        place, _, key, what = one
        lifts = what is None and any(at == place and unless == key for at, _, unless in step.rules)
        if name not in names and (lifts or (what is not None and is_in(what, access))):
            names.add(name)
            need(store is not None, "store_unavailable")
            made.append((sha256(label("consent use") + unbase64(key) + nonce)[:16], issued))
            try:
                store.spent.commit(*made[-1], now)
            except Stop as stop:
                need(str(stop) != "replayed", "replayed", place)
                raise
        step.lifted |= {(place, key)} if lifts else set()
    return made


# ---- 46: marks -----------------------------------------------------------------------------------------------------


def names_of(rules):
    return {name for rule in rules for name in (*rule["in"], *rule["after"])}


def is_in(mark, access):
    """46.2"""
    table, tool = access.get("table"), access.get("tool")
    by_table = table is not None and any(matches(pattern, table) for pattern in mark.get("tables", ()))
    by_table = by_table and bool({"*", access["operation"]} & set(mark.get("operations", ["*"])))
    by_tool = tool is not None and any(matches(pattern, tool) for pattern in mark.get("tools", ()))
    if not by_table and not by_tool:
        return False
    try:
        need("but" in mark, "table")
        check_access(mark["but"], access)
    except Stop:
        return True
    return False


def sized(text):
    return len(text.encode()).to_bytes(4, "big") + text.encode()


class Step:
    """The accesses of one step: the marks that they are in and set, and the rules that they run into. 46.6"""

    def __init__(self, token, entries, accesses):
        root = token.root
        task = sized(root["sub"]) + root["task"].split("/")[0].encode() + b"\0"
        ids = [unbase64(name) for name in link_ids(token.tags)]
        said = [(place, link, label("mark of a link") + ids[place]) for place, link in enumerate(token.links)]
        said[0] = (0, token.links[0], label("mark of a task") + task)
        said += [(None, entry["link"], label("mark of an entry") + sized(entry["id"]) + task) for entry in entries]
        self.marks, self.rules = set(), []
        for place, link, start in said:
            buckets = {name: sha256(start + name.encode()) for name in link.get("marks", {})}
            inside = {name for name, mark in link.get("marks", {}).items() if any(is_in(mark, access) for access in accesses)}
            rules = link.get("forbid", [])
            self.marks |= {buckets[name] for name in inside if place == 0 or name in names_of(rules)}
            self.rules += [(place, {buckets[name] for name in rule["after"]}, rule.get("unless")) for rule in rules if inside & set(rule["in"])]
        self.lifted = set()  # by a consent

    def check(self, marks):
        """Is it closed, these being set, and its own?"""
        for place, after, unless in self.rules:
            if (place, unless) in self.lifted:
                continue
            try:
                need(not after <= marks | self.marks, "forbidden_after", place)
            except Stop as stop:
                stop.after = after
                raise


# ---- section 7: the overlay ----------------------------------------------------------------------------------------

DOWN = "an overlay that cannot be asked"



def prohibits(link, access, state, now, leeway, overlay_age, own=NO_OWN):
    """Does a link that stands by itself prohibit the access?"""
    try:
        check_whether_it_lives(link, {**state, "audiences": set(state["audiences"])}, now, leeway, overlay_age)
        check_access(link, access, own) if access is not None else check_without_access(link, own)
    except Stop:
        return True
    return False


def check_overlay(snapshot, now, bound, allow_stale):
    """The first half of step 7: how old the overlay is, or None where there is none and that will do. 36.7, 36.9, 36.11"""
    stale = snapshot is None or now - snapshot["iat"] > bound or now >= snapshot["exp"] or snapshot["iat"] > now + 60
    need(not stale or allow_stale, "stale_overlay")
    return None if snapshot is None else max(0, now - snapshot["iat"])


def is_selected(select, asked, root, ids, hops, held, task):
    """36.5."""
    tests = {
        "hop": lambda value: {value, *asked} <= hops,
        "token": lambda value: value == root["jti"],
        "link": lambda value: value in ids,
        "task": lambda value: at_or_below(task, value),
        "agent": lambda value: value in held,
        "subject": lambda value: value == root["sub"],
        "kid": lambda value: value == root["kid"],
        "issued_before": lambda value: root["iat"] < value,
    }
    return all(tests[key](value) for key, value in select.items())


def check_entries(entries, access, link_prohibits):
    """The second half: of the entries that stand and select the token, one without a link counts first. 36.8, 24.25"""
    for said in entries:
        need("link" in said, "revoked", by=said["by"])
    need(work([said["link"] for said in entries], access) <= WORK_MAX, "too_much_work")
    for said in entries:
        need(not link_prohibits(said["link"]), "narrowed", by=said["by"])


def under_overlay(overlay, root, tags, held, links, answers, access, now, leeway, audiences, own=NO_OWN):
    """Step 7: the age of the overlay and the entries on the token, or a Stop."""
    need(overlay is not DOWN, "store_unavailable")
    snapshot, bound, allow_stale = overlay
    age = check_overlay(snapshot, now, bound, allow_stale)
    left, task = set(audiences), root["task"]
    for link in ({"aud": [root["aud"]]} if "aud" in root else {}, *links, *answers):
        left &= set(link.get("aud", left))
        task = link["task"] if "task" in link and at_or_below(link["task"], task) else task
    state, ids = {"audiences": left, "addressed": False, "task": task}, link_ids(tags)
    hops = {link["n"] for link in links if "n" in link}
    standing = [said for said in (snapshot or {"entries": []})["entries"] if now < said.get("until", now + 1)]
    entries = [said for said in standing if is_selected(said["select"], said.get("asked", ()), root, ids, hops, held, task)]
    check_entries(entries, access, lambda link: prohibits(link, access, state, now, leeway, age, own))
    return age, entries


def link_ids(tags):
    return [base64text(sha256(label("link") + tag)[:16]) for tag in tags[1:]]


# ---- section 5: the plan -------------------------------------------------------------------------------------------


def authenticate(text, keys, own=NO_OWN, stop_with=None):
    """Steps 1 to 6: the genuine token. 24.18

    `stop_with` is told of the root record and the caveats as soon as they are known, for who a denial says has added a link.
    """
    told = SimpleNamespace() if stop_with is None else stop_with
    (identifier, caveats, signature), discharges, proof, consents = parse_all(text)  # 1, 2
    told.root = root = decode_root(identifier)  # 3
    told.caveats = caveats
    key = find_key(keys, root["kid"], root.get("aud"))
    tags = chain_tags(derive(key), identifier, caveats)
    need(tags[-1] == signature, "bad_signature")  # 4
    check_discharges(tags, caveats, discharges)
    links = decode_links(caveats, own)  # 5
    asked, answers = [place for place, (_, vid) in enumerate(caveats) if vid is not None], []
    for place, (_, answered, _) in zip(asked, discharges, strict=True):
        with at(place, DISCHARGER):
            answers += [(place, link) for link in decode_discharge(answered, own)]
    held, bound, owed_at = fold_lineage(root["agent"], links)  # 6
    return SimpleNamespace(
        root=root, caveats=caveats, tags=tags, links=links, answers=answers, held=held, bound=bound, owed_at=owed_at, proof=proof,
        consents=consents,
    )  # fmt: skip


NO_CONTEXT = {}


def is_context(context):
    """7.13: what it gives is as attributes are."""
    return isinstance(context, dict) and FACTS["attributes"](context)


def beside(access, context):
    """The access with the facts of the moment among its attributes, where it has not such a name itself. 7.13"""
    if access is None or not context or not is_context(context):
        return access
    return access | {"attributes": context | access.get("attributes", {})}


def check_caveats(token, access, *, now, leeway, audiences, allow_unaddressed, ledger, overlay_age, narrowing, own, context):
    """Step 8: what is left of the audiences, and the task. 24.5"""
    root = token.root
    need(root["iat"] <= now + max(60, leeway), "not_yet_valid")
    state = {"audiences": set(audiences), "addressed": "aud" in root, "task": root["task"]}
    if "aud" in root:
        state["audiences"] &= {root["aud"]}
        need(state["audiences"], "wrong_audience")
    for place, link in enumerate(token.links):
        with at(place):
            check_whether_it_lives(link, state, now, leeway, overlay_age)
    addressed = state["addressed"]
    for place, link in token.answers:
        with at(place, DISCHARGER):
            check_whether_it_lives(link, state, now, leeway, overlay_age)
    need(addressed or allow_unaddressed or not audiences, "unaddressed")
    need(ledger is None or ledger.shared or is_for_one(root, token.links), "unaddressed")
    # 46.8: an entry that forbids, by the root, link 0 and its own `aud`.
    of_entries = ([{"aud": link["aud"]} if "aud" in link else {} for link in token.links[:1]] + [link] for link in narrowing if "forbid" in link)
    need(ledger is None or ledger.shared or all(is_for_one(root, links) for links in of_entries), "unaddressed")
    need((token.bound is None and not any("consent" in link for link in token.links)) or audiences, "unaddressed")
    about = beside(access, context)
    need(work([*narrowing, *token.links, *(link for _, link in token.answers)], about) <= WORK_MAX, "too_much_work")
    need(access is None or (is_context(context) and not context.keys() & access.get("attributes", {}).keys()), "attribute")  # 7.13
    for place, link, by in (*((place, link, None) for place, link in enumerate(token.links)), *((*each, DISCHARGER) for each in token.answers)):
        with at(place, by):
            check_access(link, about, own) if access is not None else check_without_access(link, own)
    check_consent_is_there(token, access, state["audiences"])
    return state


def judge(
    token, access, *, now, leeway=0, audiences=(), allow_unaddressed=False, caller=None, for_use=True, ledger=None,
    overlay_age=None, overlay=None, own=NO_OWN, context=NO_CONTEXT,
):  # fmt: skip
    """Steps 7 to 9, of a token that was sent or of a grant that is asked again: what is left of the audiences, the task, and the
    entries of the overlay on it."""
    need(token.owed_at is None or not for_use, "delegate_only", token.owed_at)  # 6, said here (24.18)
    entries = []
    if overlay is not None:  # 7
        answers = [link for _, link in token.answers]
        overlay_age, entries = under_overlay(
            overlay, token.root, token.tags, token.held, token.links, answers, beside(access, context), now, leeway, audiences, own
        )
    state = check_caveats(
        token, access, now=now, leeway=leeway, audiences=audiences, allow_unaddressed=allow_unaddressed, ledger=ledger,
        overlay_age=overlay_age, narrowing=[said["link"] for said in entries], own=own, context=context,
    )  # fmt: skip
    if caller:  # 9
        need(caller.get("agent") in (None, token.held[-1]), "caller")
        need(caller.get("task") is None or at_or_below(caller["task"], state["task"]), "caller")
    return state | {"entries": entries}


def ask_again(token, *accesses, verified_at, max_age, now, ledger=None, how="check", store=None, **facts):
    """A grant that is asked: the code, and the place of a denial. It takes no proof (24.9). A `recheck` asks no store (24.19), and
    `explain` changes none. Several accesses are one step (38.16); without an access it is `None` that is asked about."""
    try:
        need(max_age is None or -60 <= now - verified_at <= max_age, "stale_grant")  # 24.15
        for access in accesses:
            state = judge(token, access, now=now, ledger=ledger, **facts)
            check_consents(token, access, state["audiences"], now)
        step = None if None in accesses else Step(token, state["entries"], accesses)
        if how != "recheck":
            if step is not None:
                spend(token, access, state["audiences"], step, copy.deepcopy(store) if how == "explain" else store, now)
            count(token, accesses, ledger, step, how == "explain")
        elif step is not None:
            spend(token, access, state["audiences"], step, Store(), now)  # what is lifted, and nothing is spent
            step.check(set() if ledger is None else ledger.known)  # 46.7
    except Stop as stop:
        return {"code": str(stop), **place_of(stop, token, facts.get("own", NO_OWN))}
    return {"code": "allowed"}


def count(token, accesses, ledger, step, looking=False):
    """The end of step 11: the debits, and the marks that are set."""
    if None in accesses:
        return [], set()
    cost = {unit: sum(access.get("cost", {}).get(unit, 0) for access in accesses) for access in accesses for unit in access.get("cost", {})}
    wanted = debits(token.tags, token.links, {"cost": cost})
    if wanted or step.marks:
        need(ledger is not None, "store_unavailable")
        ledger.commit(wanted, token.root["iat"], step, looking)
    return wanted, step.marks


def evidence_of(token):
    """Of each hand-over that is signed: the key, the state before it, its JSON object and the signature. 28.8"""
    made, bound = [], None
    for tag, (cid, _), link in zip(token.tags, token.caveats, token.links, strict=False):
        body, signature = split_link(cid) if link else (cid, None)
        if signature is not None:
            made.append({
                "key": bound, "state": base64text(chain_state(tag)), "body": body.decode("utf-8"), "signature": base64text(signature),
            })  # fmt: skip
        bound = link.get("key", bound)
    return made


def place_of(stop, token, own=NO_OWN):
    """Of a denial the link that refuses, and who added it; as far as there is one."""
    if stop.link is not None:
        by = ISSUER if stop.link == 0 else holder_before(token.root["agent"], token.caveats, stop.link, own)
        return {"link": stop.link, "added_by": stop.by or by}
    return {} if stop.by is None else {"added_by": stop.by}


def evaluate(
    text, keys, access, *, now, leeway=0, audiences=(), allow_unaddressed=False, caller=None, for_use=True,
    request=None, store=None, told=None, ledger=None, overlay_age=None, overlay=None, own=NO_OWN, context=NO_CONTEXT,
):  # fmt: skip
    """The code of the decision on this access, a dict of stated facts; None asks all but the access.

    `overlay` is (snapshot or None, bound, whether a stale one will do); without it `overlay_age` stands for it, if it is
    asked at all. `request` is the digest that a transport states. `store` has the used proofs, and is changed by what is allowed, as is
    `ledger`. `for_use=False`: the token is shown for a recall. What is known of an allowed token goes into `told`, a dict; and of a
    denial the link that refuses, and who added it.
    """
    known, uses, spent = SimpleNamespace(), [], []
    try:
        token = authenticate(text, keys, own, known)
        state = judge(
            token, access, now=now, leeway=leeway, audiences=audiences, allow_unaddressed=allow_unaddressed, caller=caller,
            for_use=for_use, ledger=ledger, overlay_age=overlay_age, overlay=overlay, own=own, context=context,
        )  # fmt: skip
        need(token.bound is not None or token.proof is None, "bad_proof")  # 10
        proven = proven_holders(token.tags, token.caveats, token.links)
        if token.bound is not None:
            digest = digest_for_proof(access) if request is None else request
            nonce, issued = check_proof(token.proof, token.bound, token.tags[-1], state["audiences"], digest, now)
            uses.append((entry(token.bound, nonce), issued))
        check_consents(token, access, state["audiences"], now)
        if uses:
            need(store is not None, "store_unavailable")  # 11
            store.commit(*uses[0], now)
        step = None if access is None else Step(token, state["entries"], [access])
        if step is not None:
            spent = spend(token, access, state["audiences"], step, store, now)
        taken, marks = count(token, [access], ledger, step)
    except Stop as stop:
        if told is not None:
            told |= place_of(stop, known, own)
        return str(stop)
    if told is not None:
        ends = [link["exp"] for link in (*token.links, *(link for _, link in token.answers)) if "exp" in link]
        told |= {
            "chain": [(name, "issued" if name == token.held[0] else "proven" if name in proven else "vouched") for name in token.held],
            "key": token.bound, "link_ids": link_ids(token.tags), "expires_at": min(ends, default=None), "debits": taken, "marks": marks, "uses": uses, "spends": spent,
            "evidence": evidence_of(token), "token": token, "task": state["task"],
        }  # fmt: skip
    return "allowed"
