"""Seeded random tokens that are bound to keys and ask third parties, with the proofs and discharges that go with them.

Mostly right; wrong in one way or another often enough that every code is met. Made with the reference evaluator and
libsodium, so that captoken is handed texts that it did not write.
"""

from nacl.public import PrivateKey, SealedBox
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from captoken import Verifier
from captoken.stores.memory import MemoryReplayStore
from captoken.stores.ports import Use
from tests.reference import evaluator
from tests.reference.fixtures import (
    AGENTS,
    AUDIENCES,
    KEY,
    NOW,
    ROOT,
    TABLES,
    UNKNOWN,
    UNREADABLE,
    hop,
    keyring,
    random_caveat,
    random_constraint,
    random_link,
    some,
)

SIGNERS = [SigningKey(bytes([number]) * 32) for number in range(1, 6)]
PUBLIC = {signer: evaluator.base64text(bytes(signer.verify_key)) for signer in SIGNERS}
DISCHARGER = PrivateKey(bytes(range(50, 82)))
FOR = evaluator.base64text(bytes(DISCHARGER.public_key))


def draw(rng, size):
    return bytes(rng.randrange(256) for _ in range(size))


class Bound:
    """A token in the making: its caveats, its holder, the key it is bound to, the caveat keys of its third parties."""

    def __init__(self, rng):
        self.rng, self.holder, self.signer = rng, "orchestrator", None
        self.root = dict(ROOT)
        self.caveats, self.asked = [], []

    @property
    def identifier(self):
        return evaluator.canonical(self.root).encode()

    @property
    def tag(self):
        return evaluator.chain_tag(KEY, self.identifier, self.caveats)

    @property
    def text(self):
        return evaluator.mint(KEY, self.root, [(cid, vid) if vid is not None else cid for cid, vid in self.caveats])

    def add(self, link):
        self.caveats.append((link if isinstance(link, bytes) else evaluator.canonical(link).encode(), None))

    def begin(self):
        """Link 0: wide, so that enough is allowed; bound in two of three."""
        rng = self.rng
        link = {"operations": ["*"], "tables": ["*"], "exp": NOW + 600}
        if rng.random() < 0.3:
            link["depth"] = rng.choice([0, 1, 2, 3])
        if rng.random() < 0.65:
            self.signer = rng.choice(SIGNERS)
            link["key"] = PUBLIC[self.signer]
        self.add(link)

    def narrow(self):
        rng = self.rng
        if rng.random() < 0.25:
            link, holder = random_link(rng, self.holder)
            self.holder = holder
            self.add(link)
        else:
            key = rng.choice(["tables", "operations", "exp", "nbf", "task", "where", "columns", "aud"])
            own = {
                "aud": lambda: ["sales-db", *some(rng, AUDIENCES[1:], 0, 2)],
                "where": lambda: {"region": random_constraint(rng)},
            }
            self.add({key: own[key]() if key in own else random_caveat(rng, key)})

    def hand_on(self):
        """To the next agent and a key; or, in one of four, to a key alone, or to an agent alone."""
        rng, signer = self.rng, self.rng.choice(SIGNERS)
        child = rng.choice([name for name in AGENTS if name != self.holder] if rng.random() < 0.9 else AGENTS)
        parent = self.holder if rng.random() < 0.96 else rng.choice(AGENTS)
        link = hop(child, parent, rng.randrange(2**32), key=PUBLIC[signer])
        kind = rng.random()
        if kind < 0.1:
            link = {"key": PUBLIC[signer], "exp": NOW + 500}
        elif kind < (0.2 if self.signer is None else 0.14):
            del link["key"]
        elif kind < 0.3:
            link["tables"] = rng.choice([["*"], ["sales", "market.*"]])
        self.holder = link.get("to", self.holder)
        self.add(self.signed(link))
        self.signer = signer if "key" in link else self.signer

    def signed(self, link):
        """The link with the signature that is due, or with a wrong one, or with one where none is due."""
        rng, body = self.rng, evaluator.canonical(link).encode()
        by = self.signer
        if by is None:
            if rng.random() < 0.94:
                return body
            by = rng.choice(SIGNERS)
        elif "key" not in link and rng.random() < 0.9:
            return body
        message, fault = evaluator.custody_message(self.tag, body), rng.randrange(90)
        if fault == 0:
            return body
        if fault == 1:
            by = rng.choice(SIGNERS)
        elif fault == 2:
            message = evaluator.custody_message(evaluator.chain_tag(KEY, self.identifier, self.caveats[:-1]), body)
        elif fault == 3:
            message = evaluator.custody_message(self.tag, body + b" ")
        elif fault == 4:
            message = rng.choice([body, message[1:], b"", evaluator.sha256(message), message.replace(b"custody", b"proof")])
        signature = by.sign(message).signature
        if fault == 5:
            at = rng.randrange(64)
            signature = signature[:at] + bytes([signature[at] ^ 1 << rng.randrange(8)]) + signature[at + 1 :]
        whole = body + b"." + evaluator.base64text(signature).encode()
        if fault == 6:
            odd = [whole[:-1], whole + b"A", whole + b"==", whole + b"}", whole.replace(b"}.", b"}"), whole + whole[-87:]]
            return rng.choice(odd)
        if fault == 7:
            return whole[:-1] + rng.choice(b"ABCDEFGwQ.-_}").to_bytes(1, "big")
        if fault == 8:
            return evaluator.canonical({**link, "exp": NOW + rng.randrange(900)}).encode() + whole[-87:]
        return whole

    def ask(self):
        """A third-party caveat, its vid nearly always right."""
        rng, tag = self.rng, self.tag
        caveat_key, nonce = draw(rng, 32), draw(rng, 24)
        if rng.random() < 0.2:
            ticket = draw(rng, rng.randint(1, 40))
        else:
            within = {"ck": evaluator.base64text(caveat_key), "need": {"approve": rng.randrange(9)}, "v": 1}
            box = SealedBox(DISCHARGER.public_key).encrypt(evaluator.canonical(within).encode())
            ticket = evaluator.canonical({"box": evaluator.base64text(box), "for": FOR, "v": 1}).encode()
        under, enclosed, fault = tag, evaluator.derive(caveat_key), rng.randrange(40)
        if fault == 0:
            under = draw(rng, 32)
        elif fault == 1:
            under = evaluator.chain_tag(KEY, self.identifier, self.caveats[:-1])
        elif fault == 2:
            enclosed = caveat_key
        vid = bytes(SecretBox(under).encrypt(enclosed, nonce))
        if fault == 3:
            at = rng.randrange(72)
            vid = vid[:at] + bytes([vid[at] ^ 1 << rng.randrange(8)]) + vid[at + 1 :]
        self.caveats.append((ticket, vid))
        self.asked.append((ticket, caveat_key))

    def discharges(self):
        """The texts of the discharges that come with it: nearly always one for each third party, in order."""
        rng, tag = self.rng, self.tag
        made = [self.discharge(ticket, caveat_key, tag) for ticket, caveat_key in self.asked]
        fault = rng.randrange(24)
        if fault == 0 and made:
            made.pop(rng.randrange(len(made)))
        elif fault == 1 and made:
            made.insert(rng.randrange(len(made)), rng.choice(made))
        elif fault == 2:
            rng.shuffle(made)
        elif fault == 3:
            made.insert(rng.randint(0, len(made)), self.discharge(b"another", draw(rng, 32), tag))
        elif fault == 4 and self.asked:
            ticket, caveat_key = rng.choice(self.asked)
            made.append(self.discharge(ticket, caveat_key, tag))
        elif fault == 5 and made:
            made[-1] = rng.choice([made[-1][:-1], made[-1].replace("cap1d_", "cap1u_"), made[-1] + ".", "", made[-1][6:]])
        return made

    def discharge(self, ticket, caveat_key, tag):
        """One discharge, bound to `tag`."""
        rng = self.rng
        links = [{"exp": NOW + rng.choice([60, 60, 60, 60, 5, 1, 0]), **self.restricting()}]
        if rng.random() < 0.2:
            links.append(self.restricting() or {"nbf": 0})
        bound_to, fault = tag, rng.randrange(120)
        if fault == 0:
            bound_to = None
        elif fault == 1:
            bound_to = evaluator.chain_tag(KEY, self.identifier, self.caveats[:-1])
        elif fault == 2:
            caveat_key = rng.choice([draw(rng, 32), evaluator.derive(caveat_key), bytes(32)])
        elif fault == 3:
            del links[0]["exp"]
            links = [link or {"nbf": 0} for link in links]
        elif fault == 4:
            odd = {"task": "task-123", "depth": 3, "delegate_only": True, "key": PUBLIC[SIGNERS[0]]}
            key = rng.choice(list(odd))
            links[-1] = {**links[-1], key: odd[key]}
        elif fault == 5:
            links[-1] = {**links[-1], **hop("mail-agent", self.holder)}
        elif fault == 6:
            key = rng.choice(list(UNREADABLE))
            links[-1] = {**links[-1], key: rng.choice(UNREADABLE[key])}
        elif fault == 7:
            links[-1] = {**links[-1], rng.choice(UNKNOWN): 1}
        elif fault == 8:
            links.append((b"ask", draw(rng, 72)))
        elif fault == 9:
            links[-1] = rng.choice([b"{}", b"exp", b'{"exp":1}.' + b"A" * 86])
        elif fault == 10:
            links = []
        return evaluator.mint(caveat_key, ticket, links, "cap1d_", bound_to)

    def restricting(self):
        rng = self.rng
        if rng.random() < 0.6:
            return {}
        return {
            key: value
            for key, value in (
                ("tables", ["*"] if rng.random() < 0.5 else some(rng, TABLES, 1, 6)),
                ("where", {"region": random_constraint(rng)}),
                ("aud", ["sales-db", *some(rng, AUDIENCES, 0, 1)] if rng.random() < 0.8 else ["mail-api"]),
            )
            if rng.random() < 0.4
        }


def random_bound(rng):
    """A token in the making, and its text with what goes with it."""
    token = Bound(rng)
    token.begin()
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4])):
        rng.choice([token.narrow, token.hand_on, token.hand_on, token.ask])()
    if rng.random() < 0.93:
        token.add({"aud": ["sales-db", *some(rng, AUDIENCES[1:], 0, 1)], "exp": NOW + 60})
    return token, ".".join([token.text, *token.discharges()])


def random_proof(rng, token, audiences, access, now):
    """(end, request, store): what a text ends in, and a function that makes the store with what is in it.

    The end is a proof behind its full stop, nothing, or something that cannot be read.
    """
    request = draw(rng, 32) if rng.random() < 0.3 else None
    digest = evaluator.request_digest(access) if request is None else request
    signer, audience, issued, nonce, tag = token.signer, "sales-db", now, draw(rng, 16), token.tag
    if rng.random() < 0.05 and audiences:
        audience = rng.choice(audiences)
    used, floor, limit = {}, 0, 1000
    if signer is None:
        if rng.random() < 0.9:
            return "", request, lambda: (floor, limit, used)
        signer = rng.choice(SIGNERS)
    fault = rng.randrange(40)
    if fault == 0:
        signer = rng.choice(SIGNERS)
    elif fault == 1:
        audience = rng.choice(AUDIENCES)
    elif fault == 2:
        issued = now + rng.choice([-31, -30, -29, 4, 5, 6, -(10**6), 10**6])
    elif fault == 3:
        tag = evaluator.chain_tag(KEY, token.identifier, token.caveats[:-1])
    elif fault == 4:
        digest = rng.choice([bytes(32), evaluator.request_digest(None), evaluator.sha256(digest)])
    elif fault == 5:
        return "", request, lambda: (floor, limit, used)
    elif fault == 6:
        used = {evaluator.entry(PUBLIC[rng.choice([signer, signer, *SIGNERS])], nonce): now - rng.choice([0, 30])}
    elif fault == 7:
        floor = rng.choice([issued - 1, issued, issued + 1, issued + 5])
    elif fault == 8:
        used = {draw(rng, 16): now - rng.choice([0, 29, 30]) for _ in range(rng.randint(0, 3))}
        limit = rng.randint(0, 4)
    signature = signer.sign(evaluator.proof_message(tag, audience, issued, nonce, digest)).signature
    if fault == 9:
        at = rng.randrange(64)
        signature = signature[:at] + bytes([signature[at] ^ 1 << rng.randrange(8)]) + signature[at + 1 :]
    proof = "cap1p_" + evaluator.base64text(issued.to_bytes(8, "big") + nonce + signature)
    end = f".{proof}"
    if fault == 10:
        dotted = proof[:20] + "." + proof[21:]
        odd = ["", proof[:-1], proof + "A", proof[6:], proof.upper(), proof[:-1] + "B", proof + "=", dotted, proof + end]
        end = f".{rng.choice(odd)}"
    if fault == 11:
        return end, request, None
    return end, request, lambda: (floor, limit, used)


def both_stores(made):
    """The store for captoken, and the same for the reference; none where `made` is None."""
    if made is None:
        return None, None
    floor, limit, used = made()
    ours = MemoryReplayStore(floor=floor, limit=max(limit, len(used)))
    for name, issued in used.items():
        ours.add(Use(name, issued), issued)
    ours._proofs._limit = limit
    return ours, evaluator.Store(floor, limit, used)


def random_server(rng):
    """What a verifier knows that mostly is the server the token is for."""
    facts = {"now": NOW + rng.choice([0, 0, 0, 0, 0, 1, 5, -1]), "leeway": rng.choice([0, 0, 0, 5])}
    kind = rng.random()
    facts["audience"] = ("sales-db",) if kind < 0.8 else tuple(some(rng, AUDIENCES, 1, 2))
    if rng.random() < 0.5:
        facts["allow_unaddressed"] = True
    if kind > 0.97:
        del facts["audience"]
    return facts


def server(now, replays, **facts):
    return Verifier(keyring(), clock=lambda: now, replays=replays, **facts)
