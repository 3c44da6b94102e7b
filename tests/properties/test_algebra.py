"""D1, D2 and the laws of `Capability`, by brute force over a world small enough to list and rich enough to tell any two apart.

A capability is what it permits: each is turned into the plain list of the world's points that it permits, and then
`meet`, `covers` and `==` must say of the capabilities what intersection, inclusion and equality say of those lists. For
every value that the vocabulary of a family can name, its world has points inside and outside; of what a ledger counts, a
point says how much is taken. What single links permit is asked of the reference evaluator, which knows no capabilities.

Each family has 500 chains of links, drawn once: drawing costs more than deciding. A law takes its own 120 of them, or pairs,
or triples. What a chain permits by itself is likewise found once.
"""

from functools import cache, reduce
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from captoken import Access, Capability
from captoken._format.names import at_or_below
from captoken._language.caveats import V1
from captoken._language.link import Link
from captoken._language.links import read_link
from captoken.caveats import Situation
from tests.longer import SEED, drawing, times
from tests.reference import evaluator
from tests.reference.fixtures import NOW, n

VALUES = ["e", "u", True, False, -1, 0, 1, 2, 3, -0.0, 1.0, 1.5, 2.0, None, "/", "/a", "/a/b", "/a/b/c", "/c"]
HOSTS = ["https://x.b.c", "https://y.b.c", "https://z.b.c", "https://k.x.b.c", "https://l.x.b.c", "https://b.c", "http://x.b.c", "https://x.b.c:8080"]
URLS = [host + path for host in HOSTS for path in ("", "/", "/p", "/p/", "/p/q", "/p/q/r", "/pq", "/z?x=/p")]
ODD_URLS = ["https://u@x.b.c/p", "https://x.b.c/p/../q", "https://X.b.c/p", "https://x.b.c:443/p", "https://x.b.c/p%2fq", "https:"]
ADDRESSES = [f"10.0.0.{last}" for last in range(6)] + ["2001:db8::", "2001:db8::1", "2001:db8::2", "10.0.0.00", "::ffff:a00:0"]
BEGINNINGS = ["a", "ab", "acct", "acct-", "acct-1", "acct-1x", "acct-2", "b", "bx", "10.", "10.0.0.0x", "https:x", "/", "/a", "/a/b", 1, 1.0, 2, True]
STRINGS = [*URLS, *ODD_URLS, *ADDRESSES, *BEGINNINGS, ["acct-1"], None]
SCALARS = ["e", "/", 0, 1, 1.0, None]
ITEMS = [*SCALARS, [], *([item] for item in SCALARS), ["e", 1], ["e"] * 2, ["e"] * 3, [1] * 2, [0] * 2, ["/"] * 2, [None] * 2, [[]], [["e"]]]
ITEMS += [[item] * 3 for item in (0, 1, 1.0, "/", None)] + [[1.0] * 2]
LISTS = [[], *([item] * count for item in ITEMS for count in (1, 2, 3)), ["e", 1], ["e", 1.0], ["e", "e", 1], [[], ["e"]], "e", 1]
SELECT, TOOL = {"table": "sales", "operation": "select"}, {"tool": "t"}


def stated(facts, name, values):
    """The facts, and the facts with each of these values under `name`."""
    return [facts, *({**facts, name: value} for value in values)]


COLUMNS = ((), ("x",), ("y",), ("z",), ("x", "y"))
DATA = [
    more
    for table in ("sales", "m", "m.a", "m.a.c", "m.b", "other")
    for operation in ("select", "insert", "drop")
    for more in stated({"table": table, "operation": operation}, "columns", COLUMNS)
]
CALLS = [z for q in stated({}, "q", VALUES) for p in stated(q, "p", [1, 1.0, "e", "u"]) for z in stated(p, "z", [1])]
FEW_CALLS = [z for q in stated({}, "q", [1, 1.0, "e", "u"]) for z in stated(q, "z", [1])]
WHERE_BOTH = [s for r in stated({}, "r", VALUES) for s in stated(r, "s", [1, 1.0, "e", "u"])]


def tools(calls):
    return [{"tool": tool, "arguments": call} for tool in ("t", "f", "f.r", "f.w", "other") for call in calls]


WORLDS = {
    "data": [*DATA, {}, TOOL, {**SELECT, **TOOL}],
    "tool": [*tools(CALLS), {}, SELECT],
    "where": [{**ask, "attributes": attributes} for ask in ({}, SELECT, TOOL) for attributes in WHERE_BOTH],
    "strings": stated(SELECT, "attributes", [{"r": value} for value in STRINGS]),
    "lists": stated(SELECT, "attributes", [{"r": value} for value in LISTS]),
    "mixed": [
        more
        for ask in (*DATA, *tools(FEW_CALLS), {}, {**SELECT, **TOOL}, {**DATA[-1], **tools(FEW_CALLS)[-3]})
        for more in stated(ask, "attributes", [{"r": value} for value in (1, 1.0, "e", "u")])
    ],
    "universal": stated(SELECT, "attributes", [{"r": "e"}]),
    "counted": [{**SELECT, "cost": cost} for some in stated({}, "u", range(4)) for cost in stated(some, "v", range(4))],
}
MOMENTS = [
    *((now, 4) for now in range(-5, 10)),
    *((now, 0) for now in range(5)),
]  # with a leeway, so that no two bounds say the same
SITUATIONS = [
    (now, leeway, audiences, task)
    for now, leeway in MOMENTS
    for audiences in ((), ("A",), ("B",), ("C",))
    for task in ("t", "t/a", "t/a/b", "t/c", "x")
]
ONE_SITUATION = [(NOW, 0, (), "t")]
COUNTS = [(age, use) for age in (None, *range(5)) for use in range(5)]  # of the overlay in seconds; how many uses it is
POINTS = {
    family: [
        (facts, access, *moment, *counts)
        for facts in world
        for access in [Access(**facts)]
        for moment in (SITUATIONS if family == "universal" else ONE_SITUATION)
        for counts in (COUNTS if family == "counted" else [(None, 0)])
    ]
    for family, world in WORLDS.items()
}


# ---- strategies: a link of one family, from a vocabulary that its world can tell apart ------------------------------


def subset(*items, least=0):
    return st.lists(st.sampled_from(items), unique=True, min_size=least, max_size=3)


def table_of(keys, values, least=0):
    return st.dictionaries(st.sampled_from(keys), values, min_size=least, max_size=3)


PATTERNS = ("sales", "m.*", "m.a", "m.a.*", "*")
OPERATIONS = st.one_of(subset("select", "insert"), st.just(["*"]), st.just(["*", "select"]))
RANGES = (
    st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 2))
    .filter(lambda pair: pair != (None, None))
    .map(
        lambda pair: {
            key: bound
            for key, bound in zip(("min", "max"), sorted(pair) if None not in pair else pair, strict=True)
            if bound is not None
        }
    )
)
CONSTRAINTS = st.one_of(
    st.builds(lambda values: {"in": values}, st.lists(st.sampled_from(["e", "u", 0, 1, 2]), max_size=4)),
    st.just({"in": [True]}),
    st.just({"in": ["/a", 1]}),
    RANGES,
    st.builds(lambda tops: {"path": tops}, subset("/", "/a", "/a/b", "/c")),
    st.just({"any": True}),
)
SIMPLE = st.one_of(
    st.builds(lambda values: {"in": values}, st.lists(st.sampled_from(["e", 1]), max_size=2)),
    st.just({"min": 1, "max": 1}),
    st.just({"any": True}),
)


# Urls and blocks that the world has points inside and outside of; and lists of what they and prefixes hold.
SITES = [
    *("https://x.b.c", "https://x.b.c/p", "https://*.b.c", "https://*.b.c/p/", "https://*.b.c/p/q", "https://*.x.b.c/p"),
    *("https://k.x.b.c/p/q", "https://y.b.c/p/", "http://x.b.c/p", "https://x.b.c:8080"),
]
BLOCKS = ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31", *(f"10.0.0.{n}/32" for n in range(5)), "2001:db8::/127", "2001:db8::1/128"]
STRING_KINDS = st.one_of(
    st.builds(lambda entries: {"url": entries}, st.lists(st.sampled_from(SITES), max_size=4)),
    st.builds(lambda entries: {"cidr": entries}, st.lists(st.sampled_from(BLOCKS), max_size=4)),
    st.builds(lambda entries: {"prefix": entries}, subset("a", "acct-", "acct-1", "b", "10.", "https:")),
    st.builds(lambda entries: {"path": entries}, subset("/", "/a", "/a/b")),
    st.builds(
        lambda values: {"in": values},
        st.lists(st.sampled_from(["acct-1", "b", "10.0.0.0", "10.0.0.1", "10.0.0.2", "https://x.b.c/p", "/a", 1]), max_size=4),
    ),
    st.sampled_from([{"any": True}, {"min": 1}]),
)
INSIDE = st.one_of(
    st.builds(lambda values: {"in": values}, subset("e", 1)),
    st.sampled_from([{"any": True}, {"min": 1, "max": 1}, {"max": 0}, {"path": ["/"]}]),
)


def each(inside):
    return st.builds(
        lambda made, most: {"each": made, **({} if most is None else {"most": most})}, inside, st.none() | st.integers(0, 2)
    )


LIST_KINDS = st.one_of(each(INSIDE), each(each(INSIDE)), st.just({"any": True}), st.just({"in": ["e", 1]}))


def argument(constraint):
    return st.builds(lambda made, optional: {**made, **({"optional": True} if optional else {})}, constraint, st.booleans())


WORLD_CALLS = st.builds(
    lambda q, p: {**q, **p},
    st.one_of(st.just({}), st.builds(lambda a: {"q": a}, argument(CONSTRAINTS))),
    st.one_of(st.just({}), st.builds(lambda a: {"p": a}, argument(SIMPLE))),
)
SMALL_CALLS = st.one_of(st.just({}), st.builds(lambda a: {"q": a}, argument(SIMPLE)))
WHERE = table_of(("r", "s"), SIMPLE, 1)


def link(**optional):
    return st.fixed_dictionaries({}, optional=optional).filter(bool)


DATA_KEYS = {
    "tables": subset(*PATTERNS),
    "operations": OPERATIONS,
    "allow": table_of(PATTERNS, OPERATIONS),
    "columns": table_of(PATTERNS, st.one_of(subset("x", "y"), st.just(["*"])), 1),
}
LINKS = {
    "data": link(**DATA_KEYS),
    "tool": link(tools=table_of(("t", "f.*", "f.r", "*"), WORLD_CALLS)),
    "where": link(where=st.one_of(st.builds(lambda c: {"r": c}, CONSTRAINTS), WHERE)),
    "strings": link(where=st.builds(lambda c: {"r": c}, STRING_KINDS)),
    "lists": link(where=st.builds(lambda c: {"r": c}, LIST_KINDS)),
    "mixed": link(
        tables=subset(*PATTERNS),
        operations=OPERATIONS,
        columns=DATA_KEYS["columns"],
        tools=table_of(("t", "f.*", "f.r", "*"), SMALL_CALLS),
        where=st.builds(lambda c: {"r": c}, SIMPLE),
    ),
    "universal": link(
        exp=st.integers(0, 4),
        nbf=st.integers(0, 4),
        aud=subset("A", "B"),
        task=st.sampled_from(["t", "t/a", "t/a/b", "t/c"]),
        where=st.just({"r": {"any": True}}),
    ),
    "counted": link(
        uses=st.integers(0, 3),
        budget=table_of(("u", "v"), st.integers(0, 2), 1),
        fresh=st.integers(0, 3),
    ),
}
FAMILIES = list(LINKS)


# ---- from links to capabilities to sets ----------------------------------------------------------------------------


def decoded(body):
    return read(evaluator.canonical({**body, "n": n()} if body.keys() & evaluator.COUNTED else body).encode())


@cache
def read(body):
    made = read_link(body, V1)
    assert isinstance(made, Link), (body, made)
    return made


def capability(links):
    return Capability.of([decoded(body) for body in links])


def permitted(one, family):
    """Which points of the family's world a capability permits; a task permits callers in it and below it."""
    asked, points = situated(family)
    allowed = [one.prohibits(access, situation) is None for access, situation in asked]
    return tuple(
        allowed[at]
        and (one.task is None or at_or_below(task, one.task))
        and (one.uses is None or use <= one.uses)
        and all(access.cost[unit] <= most for unit, most in one.budget.items())
        for at, access, task, use in points
    )


@cache
def situated(family):
    """What `prohibits` is asked at the points of a family, each question once; and for each point which one, and the rest."""
    asked, points = {}, []
    for _, access, now, leeway, audiences, task, age, use in POINTS[family]:
        question = (id(access), now, leeway, audiences, age)
        situation = Situation(now, leeway, frozenset(audiences), overlay_age=age)
        points.append((asked.setdefault(question, (len(asked), access, situation))[0], access, task, use))
    return [(access, situation) for _, access, situation in asked.values()], points


def allowed_one_by_one(links, family):
    """The same, asked of the reference evaluator link by link."""
    made = []
    for facts, _, now, leeway, audiences, task, age, use in POINTS[family]:
        state = {"audiences": set(audiences), "addressed": False, "task": ""}
        try:
            for body in links:
                state["task"] = state["task"] or body.get("task", "")
                evaluator.check_whether_it_lives(body, state, now, leeway, age)
                evaluator.check_access(body, facts)
                evaluator.need(use <= body.get("uses", use), "budget_exhausted")
                counted = body.get("budget", {})
                evaluator.need(all(facts["cost"][unit] <= most for unit, most in counted.items()), "budget_exhausted")
            made.append(not state["task"] or evaluator.at_or_below(task, state["task"]))
        except evaluator.Stop:
            made.append(False)
    return tuple(made)


def inside(one, two):
    return all(theirs or not ours for ours, theirs in zip(one, two, strict=True))


def as_lists(body):
    """A capability's JSON with each list of blocks as the list of its addresses: the one exception to `==`."""
    if not isinstance(body, dict):
        return body
    if body.keys() != {"cidr"}:
        return {key: as_lists(value) for key, value in body.items()}
    return {"in": [str(one) for block in body["cidr"] for one in ip_network(block)]}


def same(one, two):
    """Equal, but for a list of addresses and the blocks that hold just these."""
    if one == two or one.nothing or two.nothing or not one.json() or not two.json():
        return one == two
    return capability([as_lists(one.json())]) == capability([as_lists(two.json())])


def drawn(strategy, count):
    """Some hundreds of values of a strategy, the same ones each time."""
    made = []

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value):
        made.append(value)

    if SEED:
        collect = seed(SEED)(collect)
    collect()
    return made


@cache
def pool(family):
    """500 chains of up to three links: the links, the capability, and what it permits."""
    return [
        (links, one, permitted(one, family))
        for links in drawn(st.lists(LINKS[family], min_size=1, max_size=3), times(500))
        for one in [capability(links)]
    ]


def cases(family, law, of):
    """A law's own 120 cases, each `of` so many chains of the pool; and a source of what else it leaves to chance."""
    rng = drawing(f"{law}, {family}")
    return [(rng, *rng.sample(pool(family), of)) for _ in range(times(120))]


# ---- the laws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_capability_permits_what_its_links_permit_one_by_one(family):
    """`prohibits` of up to three links together agrees with the reference evaluator's verdict link by link, at each point."""
    for _, (links, _, permits) in cases(family, "one by one", 1):
        assert permits == allowed_one_by_one(links, family), links


@pytest.mark.parametrize("family", FAMILIES)
def test_a_meet_permits_exactly_what_both_permit(family):
    """The meet's set is the intersection, and the meet is commutative, associative, idempotent, and has the open capability
    for its one."""
    for rng, (first, one, ones), (second, two, twos), (others, *_) in cases(family, "meet", 3):
        third = [rng.choice(others)]
        three, both = capability(third), one.meet(two)
        assert permitted(both, family) == tuple(ours and theirs for ours, theirs in zip(ones, twos, strict=True)), (first, second)
        assert same(both, two.meet(one)), (first, second)
        assert same(both.meet(three), one.meet(two.meet(three))), (first, second, third)
        assert one.meet(one) == one == one.meet(Capability()) == Capability().meet(one), first
        assert same(both, capability([*first, *second])), (first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_covers_is_inclusion_and_is_the_meet(family):
    """`a.covers(b)` iff `a.meet(b) == b`, and iff every point that b permits a permits; but a list covers no block."""
    for _, (first, one, ones), (second, two, twos) in cases(family, "covers", 2):
        narrower = capability([*first, *second])
        for other, others in ((two, twos), (narrower, permitted(narrower, family)), (one, ones)):
            assert one.covers(other) == (one.meet(other) == other), (first, second)
            assert inside(others, ones) == (one.covers(other) or same(one.meet(other), other)), (first, second)
        assert one.meet(narrower) == narrower, (first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_d1_a_child_is_within_its_parent(family):
    """D1: one more link never permits a point that was not permitted; three links of each family."""
    for rng, (links, _, permits), (others, *_) in cases(family, "D1", 2):
        more = rng.choice(others)
        assert inside(permitted(capability([*links, more]), family), permits), (links, more)


@pytest.mark.parametrize("family", FAMILIES)
def test_d2_order_and_repetition_do_not_matter(family):
    """D2: the same links in any order, some twice, are one capability."""
    for rng, (links, one, permits) in cases(family, "D2", 1):
        mixed = links + rng.choices(links, k=rng.randint(0, 2))
        rng.shuffle(mixed)
        assert one == capability(mixed) and permits == permitted(capability(mixed), family), (links, mixed)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_sets_are_equal_capabilities(family):
    """The normal form: of 500 chains, those that permit the same points are equal, and those that do not are not."""
    groups = {}
    for links, one, permits in pool(family):
        groups.setdefault(permits, []).append((one, links))
    firsts = [members[0] for members in groups.values()]
    for (first, its_links), *others in groups.values():
        for other, links in others:
            assert same(first, other), (its_links, links)
    for at, (one, its_links) in enumerate(firsts):
        for other, links in firsts[:at]:
            assert one != other, (its_links, links)
    assert len(groups) > 40 and max(len(members) for members in groups.values()) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_capability_spells_itself_as_one_link(family):
    """`json()` of a capability that permits something, read as one link, is that capability."""
    for _, (links, one, _) in cases(family, "one link", 1):
        if not one.nothing and one.json():
            assert capability([one.json()]) == one, (links, one.json())


def test_the_meet_of_maps_is_no_larger_than_their_sum():
    """20,000 random pairs of maps: the meet has at most as many entries as both together, and decides at each table as both
    do."""
    rng, tables = drawing(20260801), ["sales", "m", "m.a", "m.a.c", "m.b", "other"]

    def allow():
        return {
            pattern: rng.choice([[], ["select"], ["insert"], ["insert", "select"], ["*"]])
            for pattern in rng.sample(PATTERNS, rng.randint(0, 5))
        }

    @cache
    def permitting(items):
        return capability([{"allow": {pattern: list(operations) for pattern, operations in items}}])

    for _ in range(times(20_000)):
        one, two = allow(), allow()
        first, second = (permitting(frozenset((name, tuple(may)) for name, may in each.items())) for each in (one, two))
        both = first.meet(second)
        entries = both.json().get("allow") or dict.fromkeys(both.json().get("tables", ()))
        assert len(entries) <= len({**one, **two})
        table, operation = rng.choice(tables), rng.choice(["select", "insert", "drop"])
        verdicts = [evaluator.most_specific(each, table) or [] for each in (one, two)]
        assert (both.prohibits(Access(table=table, operation=operation)) is None) == all(
            "*" in listed or operation in listed for listed in verdicts
        )


def test_a_list_permits_less_than_the_range_of_its_integers():
    """{"in":[1,2]} and {"min":1,"max":2} differ by 1.0, 1.5 and 2.0: the range covers the list, and the list not the range."""
    listed, ranged = capability([{"where": {"r": {"in": [1, 2]}}}]), capability([{"where": {"r": {"min": 1, "max": 2}}}])
    one, two = permitted(listed, "where"), permitted(ranged, "where")
    assert inside(one, two) and not inside(two, one) and listed != ranged
    assert ranged.covers(listed) and not listed.covers(ranged) and listed.meet(ranged) == ranged.meet(listed) == listed


def test_forty_caveats_in_lists_of_three():
    """D1 at the size of the attack class: forty caveats, every pair and 4,000 of the triples of them, over 200 accesses: 1.2
    million decisions, 0 violations."""
    rng, points = drawing(20260802), [access for _, access, *_ in POINTS["mixed"]][::2][:200]
    forty = [decoded(stated) for family in ("data", "tool", "where", "mixed") for stated in drawn(LINKS[family], 60)[-10:]]
    assert len(forty) == 40

    def verdicts(one):
        return tuple(one.prohibits(access) is None for access in points)

    single = [(Capability.of([made]), verdicts(Capability.of([made]))) for made in forty]
    pairs = {(i, j): (single[i][0].meet(single[j][0])) for i in range(40) for j in range(40)}
    decided = {at: verdicts(pair) for at, pair in pairs.items()}
    for (i, j), verdict in decided.items():
        assert verdict == tuple(a and b for a, b in zip(single[i][1], single[j][1], strict=True))
    for _ in range(times(4000)):
        i, j, k = (rng.randrange(40) for _ in range(3))
        child = verdicts(reduce(Capability.meet, (single[at][0] for at in (i, j, k))))
        assert inside(child, decided[i, j]) and child == tuple(
            a and b for a, b in zip(decided[i, j], single[k][1], strict=True)
        )


def test_a_list_and_the_block_that_holds_the_same_are_the_one_exception():
    """{"in":["10.0.0.0","10.0.0.1"]} and {"cidr":["10.0.0.0/31"]} permit the same and are not equal; the block covers the list,
    and the list not the block."""
    listed = capability([{"where": {"r": {"in": ["10.0.0.0", "10.0.0.1"]}}}])
    block = capability([{"where": {"r": {"cidr": ["10.0.0.0/31"]}}}])
    assert permitted(listed, "strings") == permitted(block, "strings") and listed != block and same(listed, block)
    assert block.covers(listed) and not listed.covers(block) and listed.meet(block) == block.meet(listed) == listed
