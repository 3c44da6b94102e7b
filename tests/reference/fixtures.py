"""A small world to attack: one key, one root record, and seeded random tokens, accesses and verifier facts.

Everything is made with the reference evaluator, so that captoken is handed texts that it did not write. The only thing
taken from captoken here is its public face, in `verifier` and `access`.
"""

import re

from captoken import Access, Caller, Keyring, Verifier
from tests.reference import evaluator

KEY = bytes(range(1, 33))
OTHER_KEY = bytes(range(101, 133))
NOW = 1_764_061_200
JTI = evaluator.base64text(b"0123456789abcdef")
ROOT = {"agent": "orchestrator", "iat": NOW, "jti": JTI, "kid": "k1", "sub": "user:jane", "task": "task-123", "v": 1}
SALES = {"operations": ["select"], "tables": ["sales"]}
ASK = {"table": "sales", "operation": "select"}


def short(value):
    """A case's name in a test report."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:48]


def n(number=0):
    return evaluator.base64text(number.to_bytes(8, "big"))


def hop(child, parent="orchestrator", number=0, **caveats):
    """A link that delegates."""
    return {"from": parent, "n": n(number), "to": child, **caveats}


def text(*links, key=KEY, **root):
    """A genuine token's text; links are objects, or bytes as they are, or (cid, vid)."""
    return evaluator.mint(key, {**ROOT, **root}, links)


def from_wire(data):
    return "cap1_" + evaluator.base64text(data)


def to_wire(token_text):
    return evaluator.unbase64(token_text[5:])


def sections(token_text):
    """A genuine token taken apart: (identifier, [cid], signature)."""
    identifier, caveats, signature = evaluator.parse(token_text)
    return identifier, [cid for cid, _ in caveats], signature


def assemble(identifier, bodies, signature):
    """The text with these parts, whether or not they belong together."""

    def field(kind, data):
        length, size = b"", len(data)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([kind]) + length + bytes([size]) + data

    middle = b"".join(field(2, body) + b"\0" for body in bodies)
    return from_wire(b"\2" + field(2, identifier) + b"\0" + middle + b"\0" + field(6, signature))


def append(token_text, *links):
    """The same token with more links, as any holder can write them."""
    identifier, bodies, tag = sections(token_text)
    for link in links:
        body = link if isinstance(link, bytes) else evaluator.canonical(link).encode()
        bodies, tag = [*bodies, body], evaluator.mac(tag, body)
    return assemble(identifier, bodies, tag)


def keyring(key=KEY, kid="k1"):
    return Keyring.from_keys({kid: key}, current=kid)


def verifier(now=NOW, ring=None, **facts):
    return Verifier(keyring() if ring is None else ring, clock=lambda: now, **facts)


def access(facts):
    return Access(**facts)


def code(token_text, facts=None, *, caller=None, **verifier_facts):
    """captoken's code for this token and access."""
    who = None if caller is None else Caller(**caller)
    return verifier(**verifier_facts).check(token_text, access(ASK if facts is None else facts), caller=who).code


def expected(token_text, facts=None, *, now=NOW, audience=(), **rest):
    """The reference evaluator's code for the same."""
    names = (audience,) if isinstance(audience, str) else audience
    return evaluator.evaluate(token_text, {"k1": KEY}, ASK if facts is None else facts, now=now, audiences=names, **rest)


# ---- seeded random worlds ------------------------------------------------------------------------------------------

PATTERNS = ["sales", "market.*", "market.eu", "market.eu.*", "*", "hr.*", "hr.pay", "hr"]
TABLES = ["sales", "market", "market.eu", "market.eu.berlin", "hr.pay", "hr", "orders"]
OPERATIONS = ["select", "insert", "update"]
COLUMNS = ["region", "amount", "pay"]
TOOLS = ["search", "files", "files.read", "files.write.all", "mail.send"]
TOOL_PATTERNS = ["search", "files.*", "files.read", "files.write.*", "*", "mail.send"]
ARGUMENTS = ["q", "limit", "path"]
ATTRIBUTES = ["region", "level"]
AGENTS = ["orchestrator", "sales-agent", "report-agent", "mail-agent"]
TASKS = ["task-123", "task-123/a", "task-123/a/b", "task-123/c", "task-1234", "task-12", "other"]
AUDIENCES = ["sales-db", "hr-db", "mail-api"]
UNITS = ["usd_cents", "rows"]
# fmt: off
VALUES = [
    "eu", "us", 0, 1, 5, 10, True, False, "1", "/data", "/data/a", "/data/a/b", "/database", "/", "/data/../etc",
    "/data/%2e%2e", "/data//a", "data", 1.0, 5.5, None, [1], {"a": 1}, "", "\u00e9", -3, -0.0, 10.000000001, 1e300,
    "acct-1", "acct-", "https://x.example.com/a?q=1", "https://x.example.com/a/../b", "https://u@x.example.com/a",
    "https://example.com", "http://10.0.0.7:8080/a", "10.0.0.7", "10.0.0.07", "2001:db8::1", "2001:DB8::1", "::ffff:a00:7",
    [], ["eu"], ["eu", "us", 1], [["eu"]], [[["eu"]]], ["eu", True], [5.5, 1],
]
# fmt: on


def some(rng, pool, low=0, high=3):
    return rng.sample(pool, rng.randint(low, min(high, len(pool))))


SITES = ["https://*.example.com", "https://x.example.com/a", "https://example.com", "http://10.0.0.7:8080", "ws://x.example.com"]


def random_string_constraint(rng):
    kind = rng.choice(["prefix", "url", "cidr"])
    entries = {"prefix": ["acct-", "e", "10.", "http"], "url": SITES, "cidr": ["10.0.0.0/8", "10.0.0.7/32", "2001:db8::/32"]}
    return {kind: some(rng, entries[kind], 0 if rng.random() < 0.1 else 1, 3)}


def random_constraint(rng, deep=0):
    kind = rng.randrange(12)
    if kind > 9 and deep < 4:
        most = {} if rng.random() < 0.5 else {"most": rng.choice([0, 1, 2, 5])}
        return {"each": random_constraint(rng, deep + 1), **most}
    if kind > 7:
        return random_string_constraint(rng)
    if kind < 3:
        return {"in": some(rng, ["eu", "us", 0, 1, 5, True, False, "1"], 0 if rng.random() < 0.1 else 1, 4)}
    if kind < 5:
        low, high = sorted((rng.randint(-1, 6), rng.randint(0, 11)))
        return rng.choice([{"min": low}, {"max": high}, {"min": low, "max": high}])
    return (
        {"path": some(rng, ["/", "/data", "/data/a", "/etc"], 0 if rng.random() < 0.1 else 1, 2)} if kind < 7 else {"any": True}
    )


def random_argument(rng):
    return {**random_constraint(rng), **({"optional": True} if rng.random() < 0.3 else {})}


def random_operations(rng):
    return ["*"] if rng.random() < 0.15 else some(rng, OPERATIONS, 0 if rng.random() < 0.1 else 1)


def random_rows(rng):
    """Entries that name what those over them name."""
    made = {p: {c: random_constraint(rng) for c in some(rng, COLUMNS, 0, 2)} for p in some(rng, PATTERNS, 1, 3)}
    for narrow, entry in made.items():
        over = {c for wide in made for c in made[wide] if wide != narrow and evaluator.matches(wide, narrow)}
        if entry and rng.random() < 0.95:
            entry.update({c: random_constraint(rng) for c in over - entry.keys()})
    return made


def random_caveat(rng, key):
    """A value of this key that a reader understands."""
    return {
        "tables": lambda: some(rng, PATTERNS, 0 if rng.random() < 0.05 else 1, 4),
        "operations": lambda: random_operations(rng),
        "allow": lambda: {p: random_operations(rng) for p in some(rng, PATTERNS, 0 if rng.random() < 0.05 else 1, 4)},
        "columns": lambda: {p: rng.choice([["*"], some(rng, COLUMNS, 0, 3), COLUMNS]) for p in some(rng, PATTERNS, 1, 2)},
        "rows": lambda: random_rows(rng),
        "tools": lambda: {
            p: {a: random_argument(rng) for a in some(rng, ARGUMENTS, 0, 2)} for p in some(rng, TOOL_PATTERNS, 0, 4)
        },
        "where": lambda: {a: random_constraint(rng) for a in some(rng, ATTRIBUTES, 1, 2)},
        "exp": lambda: NOW + rng.choice([-61, -1, 0, 1, 5, 60, 600, 600, 600, 600]),
        "nbf": lambda: NOW + rng.choice([-600, -600, -60, -1, 0, 1, 5, 61]),
        "aud": lambda: some(rng, AUDIENCES, 0 if rng.random() < 0.05 else 1, 3),
        "task": lambda: rng.choice(TASKS[:4] if rng.random() < 0.8 else TASKS),
        "depth": lambda: rng.choice([0, 1, 1, 2, 3]),
        "delegate_only": lambda: True,
        "uses": lambda: rng.choice([0, 1, 3, 100]),
        "budget": lambda: {unit: rng.choice([0, 5, 50]) for unit in some(rng, UNITS, 1, 2)},
        "fresh": lambda: rng.choice([0, 10, 60]),
    }[key]()


# fmt: off
KEYS = [
    "tables", "operations", "allow", "columns", "tools", "where", "exp", "nbf", "aud", "task", "depth", "delegate_only",
    "uses", "budget", "fresh", "rows",
]
# fmt: on
WEIGHTS = [5, 5, 4, 2, 4, 2, 3, 2, 1, 1, 2, 0.4, 0.3, 0.3, 0.3, 1.5]


def random_link(rng, holder):
    """(link, holder after it); mostly whole, sometimes with a delegation that does not follow."""
    link = {key: random_caveat(rng, key) for key in rng.choices(KEYS, WEIGHTS, k=rng.randint(1, 3))}
    if link.keys() & evaluator.COUNTED:
        link["n"] = n(rng.randrange(2**32))
    if rng.random() < 0.25:
        parent = holder if rng.random() < 0.9 else rng.choice(AGENTS)
        child = rng.choice(AGENTS[1:] if rng.random() < 0.9 else AGENTS)
        link.update(hop(child, parent, rng.randrange(2**32)))
        holder = child
    return link, holder


# fmt: off
UNREADABLE = {
    "tables": [
        "sales", ["a..b"], ["a.*.b"], ["*a"], [""], [" a"], [1], [True], {}, ["a\u200b"], ["x" * 257], [["a"]], ["a."], [".a"],
        ["\u00e9" * 129]
    ],
    "operations": ["select", ["a b"], [""], [1], {}, ["\u00e9"], ["x" * 129], ["select\n"], True],
    "allow": [[], {"a..b": []}, {"a": "select"}, {"a": ["a b"]}, {"": ["select"]}, {"a": {"select": True}}, 1],
    "columns": [{}, [], {"a": "x"}, {"a": [""]}, {"*a": ["x"]}, {"a": [1]}, {"a": ["x\u202e"]}],
    "rows": [
        {}, [], {"a": 1}, {"a": {"c": {}}}, {"a": {"": {"any": True}}}, {"a..b": {}}, {"a": {"c": {"in": ["x"], "min": 1}}},
        {"*": {"c": {"any": True}}, "a": {"d": {"any": True}}}, {"a": {"c": {"any": True, "optional": True}}},
    ],
    "tools": [
        [], {"t": []}, {"t": {"q": {}}}, {"t": {"q": {"optional": True}}}, {"t": {"q": {"any": True, "optional": False}}},
        {"t": {"q": {"regex": ".*"}}}, {"t": {"": {"any": True}}}, {"t..u": {}}, {"t": True}, {"t": {"q": {"any": 1}}}
    ],
    "where": [
        {}, [], {"a": {}}, {"a": {"in": "eu"}}, {"a": {"in": ["eu"], "min": 1}}, {"a": {"min": 2, "max": 1}},
        {"a": {"min": "1"}}, {"a": {"min": True}}, {"a": {"any": False}}, {"a": {"path": "/a"}}, {"a": {"path": ["a"]}},
        {"a": {"path": ["/a/../b"]}}, {"a": {"path": ["/a/"]}}, {"a": {"in": [""]}}, {"a": {"in": [[1]]}},
        {"a": {"in": ["x "]}}, {"a": {"max": {}}}, {"a": ["eu"]}, {"a": {"path": ["/a%2Fb"]}}, {"a": {"path": ["/a\\b"]}},
        {"a": {"unlike": 1}}, {"a": {"prefix": "acct-"}}, {"a": {"prefix": [""]}}, {"a": {"prefix": ["/a"]}},
        {"a": {"prefix": ["a://"]}}, {"a": {"prefix": ["a "]}}, {"a": {"prefix": [1]}}, {"a": {"url": "https://a.b"}},
        {"a": {"url": ["https://*.b"]}}, {"a": {"url": ["https://a.b?q"]}}, {"a": {"url": ["https://a.b"] * 17}},
        {"a": {"url": ["https://a.b:443"]}}, {"a": {"url": [True]}}, {"a": {"url": ["https://[::ffff:0:1]"]}},
        {"a": {"cidr": "10.0.0.0/8"}}, {"a": {"cidr": ["10.0.0.0"]}}, {"a": {"cidr": ["10.0.0.1/8"]}}, {"a": {"cidr": [8]}},
        {"a": {"cidr": ["::/0"]}}, {"a": {"cidr": ["::ffff:a00:0/104"]}}, {"a": {"cidr": ["10.0.0.0/33"]}},
        {"a": {"most": 1}}, {"a": {"each": {}}}, {"a": {"each": {"any": True}, "most": -1}}, {"a": {"each": ["eu"]}},
        {"a": {"each": {"any": True}, "most": True}}, {"a": {"each": {"any": True, "optional": True}}},
        {"a": {"each": {"each": {"each": {"each": {"each": {"any": True}}}}}}}, {"a": {"each": {"any": True}, "min": 1}}
    ],
    "exp": [True, "5", [], {}], "nbf": [False, "5", [1]], "aud": ["sales-db", [""], [1], ["a b"], {}, ["\u0430"]],
    "task": ["", "/a", "a/", "a//b", "a/../b", ".", "a b", 1, ["task-123"], "\u00e9"], "depth": [-1, True, "1", []],
    "delegate_only": [False, 1, "true", []], "from": ["", 1, "a b"], "to": ["", True, "a b"],
    "n": ["", "AAAAAAAAAAA=", "AAAAAAAAAA.", "AAAAAAAAAA", "AAAAAAAAAAAA", 1, "AAAAAAAAAA+"],
    "key": [
        "", 1, True, [], {}, "A" * 42, "A" * 43, "A" * 44, "B" * 43, "A" * 42 + "=", "_" * 43, "AQ" + "A" * 41,
        "7f_______________________________________38", "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA_o", "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU", "7v" + "_" * 40 + "38",
    ],
    "uses": [-1, True, "1", [], {}, {"uses": 1}],
    "budget": [{}, [], 5, {"": 1}, {"usd": -1}, {"usd": True}, {"usd": "1"}, {"usd": {}}, {"a b": 1}, {"uses": 1}, {"\u00e9": 1}],
    "fresh": [-1, True, "1", [], {}],
}
# fmt: on
# fmt: off
UNKNOWN = [
    "acme:region", "use", "budgets", "Fresh", "Tables", "table", "EXP", "", "a\u0000b", "exp ", "\u0435xp", "\ufb01",
    "\U00010000",
]
# fmt: on
# fmt: off
NOT_CANONICAL = [
    b"", b"null", b"[]", b"1", b'"x"', b"{", b'{"exp":1764061800', b'{"exp": 1764061800}', b' {"exp":1764061800}',
    b'{"exp":1764061800}\n', b'{"exp":1764061800.0}', b'{"exp":1.7640618e9}', b'{"exp":-0}', b'{"exp":01}', b'{"exp":NaN}',
    b'{"exp":Infinity}', b'{"exp":null}', b'{"exp":9007199254740992}', b'{"exp":-9007199254740992}', b'{"exp":1e400}',
    b'{"exp":1,"exp":1}', b'{"nbf":1,"exp":1764061800}', b'{"tables":["\\u0061"]}', b'{"tables":["\\/"]}',
    b'{"tables":["\\ud800"]}', b'{"tables":["\xed\xa0\x80"]}', b'{"tables":["\xff"]}', b'\xef\xbb\xbf{"exp":1764061800}',
    b'{"tables":["a"],}', b"{'exp':1}", b'{"exp":1764061800}x', b'{"acme:x":null}', b'{"acme:x":1.5}',
    b'{"tables":["\\u00E9"]}', b'{"x":"\x7f\\u007f"}', b'{"x":"\\u001F"}', b'{"\\u0078":1}', b"true", b'{"exp":+1}',
    b'{"exp":.5}',
]
# fmt: on
# fmt: off
CANONICAL_ODDITIES = [
    {}, {"x": "\x7f"}, {"x": "\x1f\t\u2028"}, {"\U00010000": 1, "\uffff": 1}, {"x": {"\ue000": 1, "\U0001f600": 2}},
    {"exp": 2**53 - 1}, {"nbf": 1 - 2**53}, {"tables": ["e\u0301"], "operations": ["select"]}, {"exp": -1}, {"nbf": -1},
]
# fmt: on


def random_odd_link(rng, holder):
    """A link that a reader cannot understand, or can though it looks odd."""
    link, _ = random_link(rng, holder)
    kind = rng.randrange(6)
    if kind == 0:
        key = rng.choice(list(UNREADABLE))
        link[key] = rng.choice(UNREADABLE[key])
    elif kind == 1:
        link[rng.choice(UNKNOWN)] = rng.choice([1, True, "x", [], {}, ["a"]])
    elif kind == 2:
        key = rng.choice(list(UNREADABLE))
        link[key] = rng.choice(UNREADABLE[key])
        link[rng.choice(UNKNOWN)] = 1
    elif kind == 3:
        return rng.choice(NOT_CANONICAL)
    elif kind == 4:
        return rng.choice(CANONICAL_ODDITIES)
    else:
        link = {
            key: value
            for key, value in {**link, **hop("mail-agent", holder)}.items()
            if key not in some(rng, ["from", "to", "n"], 1, 2)
        }
    return link


# fmt: off
ODD_ROOTS = [
    {"iat": NOW + 60}, {"iat": NOW + 61}, {"iat": NOW + 65}, {"iat": -5}, {"iat": True}, {"iat": "1"}, {"v": 2}, {"v": 0},
    {"v": True}, {"v": "1"}, {"v": 2, "new": [1]}, {"kid": "k2"}, {"kid": ""}, {"kid": "k1 "}, {"aud": "sales-db"},
    {"aud": "hr-db"}, {"aud": ""}, {"aud": ["sales-db"]}, {"ext": {"acme:tenant": "t1"}}, {"ext": {"acme:seat": 4}},
    {"ext": {"tenant": "t1"}}, {"ext": {"acme:x": True}}, {"ext": {"acme:x": []}}, {"ext": []}, {"jti": "short"},
    {"jti": JTI[:-1] + "="}, {"jti": JTI[:-1] + "h"}, {"jti": "A" * 22}, {"jti": 1}, {"agent": "a b"}, {"agent": ""}, {"sub": "user jane"}, {"sub": 1},
    {"task": "task-123/"}, {"task": "a/../b"}, {"task": "/a"}, {"extra": 1}, {"tables": ["sales"]}, {"sub": "\u0458ane"},
    {"agent": "x" * 129}, {"agent": "x" * 128}, {"ext": {"acme:note": "x" * 2000}}, {"v": 1.0},
]
# fmt: on


def random_root(rng):
    if rng.random() < 0.88:
        return {**ROOT, "kid": "k2"} if rng.random() < 0.02 else dict(ROOT)
    root = {**ROOT, **rng.choice(ODD_ROOTS)}
    if rng.random() < 0.1:
        del root[rng.choice(list(root))]
    return root


def root_bytes(root):
    """Canonical, but for the float of one odd root."""
    if any(isinstance(value, float) for value in root.values()):
        return evaluator.canonical({**root, "v": 1}).replace('"v":1}', '"v":1.0}').encode()
    return evaluator.canonical(root).encode()


def random_token(rng):
    """The text of a token: mostly genuine, sometimes odd in one way."""
    root = random_root(rng)
    key = KEY if rng.random() < 0.97 else OTHER_KEY
    if isinstance(root.get("aud"), str) and root["aud"].isascii() and rng.random() < 0.9:
        key = evaluator.audience_key(key, root["aud"])
    links, holder = [], "orchestrator"
    for _ in range(rng.choice([1, 1, 1, 2, 2, 2, 3, 3, 4, 5])):
        if rng.random() < 0.04:
            links.append(random_odd_link(rng, holder))
        elif rng.random() < 0.01:
            links.append(
                (b"\x01" * rng.randint(1, 40), bytes(rng.randrange(256) for _ in range(rng.choice([72, 72, 72, 71, 73, 0]))))
            )
        else:
            link, holder = random_link(rng, holder)
            links.append(link)
    if rng.random() < 0.005:
        links = []
    token_text = evaluator.mint(key, root_bytes(root), links)
    return mangled(rng, token_text) if rng.random() < 0.04 else token_text


def mangled(rng, token_text):
    """The same text with one change in its bytes or characters."""
    kind, at = rng.randrange(4), rng.randrange(len(token_text))
    if kind == 0:
        return token_text[:at] + rng.choice("ABCxyz059-_=+/. \n\u00e9") + token_text[at + 1 :]
    if kind == 1:
        return token_text[:at]
    if kind == 2:
        return token_text[:at] + rng.choice("A=\n") + token_text[at:]
    data = bytearray(to_wire(token_text))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return from_wire(bytes(data))


def random_row(rng):
    if rng.random() < 0.15:
        return None
    return {column: rng.choice(VALUES) for column in some(rng, COLUMNS, 1, 3)}


def random_access(rng):
    """The facts of an access that can be built."""
    facts = {}
    domain = rng.random()
    if domain < 0.75:
        facts.update(table=rng.choice(TABLES), operation=rng.choice(OPERATIONS))
        if rng.random() < 0.4:
            facts["columns"] = tuple(some(rng, COLUMNS, 0, 2))
        if rng.random() < 0.4:
            rows = {fact: random_row(rng) for fact in some(rng, ["row", "becomes"], 0, 2)}
            facts.update(rows or {"rows": [{c: random_constraint(rng) for c in some(rng, COLUMNS, 0, 2)}]})
    if domain > 0.65 and domain < 0.97:
        facts["tool"] = rng.choice(TOOLS)
        if rng.random() < 0.8:
            facts["arguments"] = {name: rng.choice(VALUES) for name in some(rng, ARGUMENTS, 0, 2)}
    if rng.random() < 0.6:
        facts["attributes"] = {name: rng.choice(VALUES) for name in some(rng, ATTRIBUTES, 0, 2)}
    if rng.random() < 0.3:
        facts["cost"] = {unit: rng.choice([0, 1, 5, 6]) for unit in some(rng, UNITS, 0, 2)}
    return facts


def random_facts(rng):
    """What a verifier knows: now, leeway, its audiences."""
    facts = {"now": NOW + rng.choice([0, 0, 0, 0, 1, -1, 5]), "leeway": rng.choice([0, 0, 0, 5, 65])}
    if rng.random() < 0.5:
        facts["audience"] = tuple(some(rng, AUDIENCES, 1, 2))
        facts["allow_unaddressed"] = rng.random() < 0.7
    return facts


def random_caller(rng):
    if rng.random() < 0.6:
        return None
    caller = {"agent": rng.choice(AGENTS), "task": rng.choice(TASKS)}
    if rng.random() < 0.5:
        del caller[rng.choice(["agent", "task"])]
    return caller
