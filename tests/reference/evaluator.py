"""The reference evaluator: what a verifier decides, written from the design's text (its sections 4 to 6).

It shares no code with captoken and favours being read over being fast. `evaluate` gives the code of a decision,
"allowed" or the first failure in the order of the plan. In this version `uses`, `budget`, `fresh` and `key` are unknown
keys, and a third-party caveat is a missing discharge. It is no verifier: it compares tags with `==`, and trusts the
types of the facts that the caller states.
"""

import base64
import hashlib
import hmac
import json
import re
import unicodedata

TEXT_MAX, LINKS_MAX, ROOT_MAX, FIELD_MAX, SAFE_INTEGER, NESTING_MAX = 8192, 64, 1024, 32767, 2**53, 32
NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
UNIVERSAL, DATA, TOOL = "universal", "data", "tool"


class Stop(Exception):
    """Ends an evaluation with a code."""


def need(condition, code):
    if not condition:
        raise Stop(code)


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
    return value == value.strip() and not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in value)


def is_pattern(value):
    if not is_text(value):
        return False
    segments = value.split(".")
    named = segments[:-1] if segments[-1] == "*" else segments
    return "" not in segments and not any("*" in segment for segment in named)


def is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


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


def is_constraint(value):
    if not isinstance(value, dict):
        return False
    kind = set(value)
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


OPERATIONS = is_list_of(lambda v: v == "*" or is_name(v))
KEYS = {  # every key of this version: its domain, and what its value may be
    "tables": (DATA, is_list_of(is_pattern)),
    "operations": (DATA, OPERATIONS),
    "allow": (DATA, is_map_of(is_pattern, OPERATIONS)),
    "columns": (DATA, is_map_of(is_pattern, is_list_of(is_text), empty=False)),
    "tools": (TOOL, is_map_of(is_pattern, is_map_of(is_text, is_argument))),
    "where": (UNIVERSAL, is_map_of(is_text, is_constraint, empty=False)),
    "exp": (UNIVERSAL, is_integer),
    "nbf": (UNIVERSAL, is_integer),
    "aud": (UNIVERSAL, is_list_of(is_name)),
    "task": (UNIVERSAL, is_task),
    "from": ("lineage", is_name),
    "to": ("lineage", is_name),
    "n": ("lineage", lambda v: is_random(v, 11)),
    "depth": ("lineage", lambda v: is_integer(v) and v >= 0),
    "delegate_only": ("lineage", lambda v: v is True),
}


def decode_link(body):
    """Step 5: the link's caveats, or its code. An unknown key counts before an unreadable value."""
    link = decode_object(body)
    need(link is not None, "unreadable_link")
    need(link.keys() <= KEYS.keys(), "unknown_caveat")
    need(link and all(KEYS[key][1](value) for key, value in link.items()), "unreadable_link")
    need(len(link.keys() & {"from", "to", "n"}) in (0, 3), "unreadable_link")
    return link


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
    return is_integer(value) and constraint.get("min", value) <= value <= constraint.get("max", value)


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


def parse(text):
    """Steps 1 and 2: (identifier, [(cid, vid or None)], signature)."""
    need(isinstance(text, str) and len(text) <= TEXT_MAX and text.startswith("cap1_"), "malformed")
    data = unbase64(text[5:])
    need(data and data[0] == 2, "malformed")
    identifier, at = take_field(data, 1, 2)
    need(0 < len(identifier) <= ROOT_MAX and data[at : at + 1] == b"\0", "malformed")
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
    "jti": lambda v: is_random(v, 22),
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


def chain_tag(key, identifier, caveats):
    tag = mac(mac(b"macaroons-key-generator", key), identifier)
    for cid, vid in caveats:
        tag = mac(tag, cid) if vid is None else mac(tag, mac(tag, vid) + mac(tag, cid))
    return tag


def mint(key, root, bodies):
    """The text of a token with this root record and these links (bytes, or objects; (cid, vid) is a third-party caveat)."""

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
    return "cap1_" + base64text(wire + b"\0" + field(6, chain_tag(key, identifier, caveats)))


# ---- 4.2, 4.3: lineage, then one link against an access ------------------------------------------------------------


def fold_lineage(agent, links):
    """Step 6: the current holder."""
    held, left, must_delegate = [agent], None, False
    for link in links:
        if "to" in link:
            need(link["from"] == held[-1] and link["to"] not in held, "broken_delegation")
            need(left != 0, "too_deep")
            held.append(link["to"])
            left, must_delegate = (None if left is None else left - 1), False
        if "depth" in link:
            left = link["depth"] if left is None else min(left, link["depth"])
        must_delegate = must_delegate or "delegate_only" in link
    need(not must_delegate, "delegate_only")
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
    else:
        listed = most_specific(value, table)
        if listed is not None:
            need("columns" in access, "column")
            need("*" in listed or set(access["columns"]) <= set(listed), "column")


def check_tools(value, access):
    constraints, arguments = most_specific(value, access["tool"]), access.get("arguments", {})
    need(constraints is not None, "tool")
    if constraints:
        need(arguments.keys() <= constraints.keys(), "argument")
        for name, constraint in constraints.items():
            need(satisfies(constraint, arguments[name]) if name in arguments else "optional" in constraint, "argument")


def check_link(link, state, access, now, leeway):
    """Step 8 for one link: its caveats by key, then its domains. `state` is the audiences left and the task so far."""
    stated = {domain for domain, fact in ((DATA, "table"), (TOOL, "tool")) if access is not None and fact in access}
    for key in sorted(link):
        value, domain = link[key], KEYS[key][0]
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
        elif key == "where" and access is not None:
            attributes = access.get("attributes", {})
            need(all(name in attributes and satisfies(c, attributes[name]) for name, c in value.items()), "attribute")
        elif domain == DATA and DATA in stated:
            check_data(key, value, access)
        elif domain == TOOL and TOOL in stated:
            check_tools(value, access)
    named = {KEYS[key][0] for key in link} & {DATA, TOOL}
    if named and access is not None:
        need(stated and stated <= named, "domain")


# ---- section 5: the plan -------------------------------------------------------------------------------------------


def evaluate(text, keys, access, *, now, leeway=0, audiences=(), allow_unaddressed=False, caller=None):
    """The code of the decision on this access, a dict of stated facts; None asks all but the access."""
    try:
        identifier, caveats, signature = parse(text)  # 1, 2
        root = decode_root(identifier)  # 3
        key = find_key(keys, root["kid"], root.get("aud"))
        need(chain_tag(key, identifier, caveats) == signature, "bad_signature")  # 4
        need(all(vid is None for _, vid in caveats), "missing_discharge")
        links = [decode_link(cid) for cid, _ in caveats]  # 5
        holder = fold_lineage(root["agent"], links)  # 6
        need(root["iat"] <= now + max(60, leeway), "not_yet_valid")  # 8
        state = {"audiences": set(audiences), "addressed": "aud" in root, "task": root["task"]}
        if "aud" in root:
            state["audiences"] &= {root["aud"]}
            need(state["audiences"], "wrong_audience")
        for link in links:
            check_link(link, state, access, now, leeway)
        need(state["addressed"] or allow_unaddressed or not audiences, "unaddressed")
        if caller:  # 9
            need(caller.get("agent") in (None, holder), "caller")
            need(caller.get("task") is None or at_or_below(caller["task"], state["task"]), "caller")
    except Stop as stop:
        return str(stop)
    return "allowed"
