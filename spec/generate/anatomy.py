"""What the specification shows byte by byte: the token that opens it; a signed link, a proof and a ticket further down.

All are made by captoken and taken apart here. The vectors have the same ones, built from the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken._language.overlay import delta, snapshot
from captoken.audit import AuditTrail
from captoken.control import Entry, Overlay, Selector
from captoken.discharge import Allow, Discharger
from captoken.keys import AuditKey, DischargerKey, HolderKey, OperatorKey
from captoken.testing import FixedClock, fixed_random
from spec.generate import build

SPECIFICATION = Path(__file__).parent.parent / "captoken-v1.md"
BEGIN, END = "<!-- begin: written by spec/generate/anatomy.py -->\n", "<!-- end -->\n"
AUDIENCE = "sales-db"
CLOCK = FixedClock(build.NOW)
SELECT = {"table": "sales", "operation": "select"}


def _minted(key: str | None = None) -> Token:
    keyring = Keyring.from_keys({"k1": build.KEY}, current="k1")
    issuer = Issuer(keyring, clock=CLOCK, random=fixed_random("spec"))
    return issuer.mint(
        subject="user:jane", agent="orchestrator", task="task-123", tables=["sales", "market.*"], operations=["select"],
        expires_in=600, key=key,
    )  # fmt: skip


def presented() -> str:
    """The text: minted for `orchestrator`, handed on to `sales-agent`, presented to `sales-db`."""
    child = _minted().delegate(to="sales-agent", tables=["sales"], expires_in=300)
    return child.present(audience=AUDIENCE, expires_in=60)


def bound() -> Token:
    """The same, bound to the keys of the two agents, and not presented yet."""
    first, second = (HolderKey.from_bytes(build.secret(name)) for name in ("orchestrator", "sales-agent"))
    root = _minted(first.public)
    return root.delegate(to="sales-agent", key=second.public, signer=first, tables=["sales"], expires_in=300)


def proved() -> tuple[str, str]:
    """That token as it is presented for one access, and the proof of the holder's that its text ends in."""
    key, nonce = HolderKey.from_bytes(build.secret("sales-agent")), build.secret("use", 16)
    held = Token.parse(bound().serialize(), clock=CLOCK, random=lambda _: nonce)
    text = held.present(audience=AUDIENCE, signer=key, request=Access(**SELECT), expires_in=60)
    return text, text.rpartition(".")[2]


def asked() -> Token:
    """The opening's child, before it is presented, with a third-party caveat."""
    child = _minted().delegate(to="sales-agent", tables=["sales"], expires_in=300)
    drawn = iter((build.secret("one"), build.secret("box of one"), build.secret("vid of one", 24)))
    token = Token.parse(child.serialize(), random=lambda _: next(drawn))
    return token.require(build.exchange_public("approvals"), need={"approve": "payment"})


def answered() -> str:
    """The discharge that goes with it, unbound."""
    key = DischargerKey.from_bytes(build.secret("approvals"))
    return Discharger(key, lambda _: Allow(expires_in=60), clock=CLOCK).discharge(asked().needs[0]).serialize()


def _fields(wire: bytes) -> Iterator[tuple[int, int, int]]:
    """Where identifier and links stand: type byte, first byte, end. Lengths here have one byte or two."""
    at = 1
    while wire[at] == 2:
        size, start = wire[at + 1], at + 2
        if size >= 0x80:
            size, start = size & 0x7F | wire[at + 2] << 7, at + 3
        yield at, start, start + size
        at = start + size + 1


def _dump(at: int, data: bytes, note: str = "") -> Iterator[str]:
    """Lines of up to 16 bytes with `note` beside the first; without one, beside each the text that it is."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        beside = row.decode() if not note else note if start == 0 else ""
        yield f"{at + start:4}  {row.hex(' '):<47}  {beside}".rstrip()


def _taken_apart(wire: bytes) -> Iterator[str]:
    yield from _dump(0, wire[:1], "a macaroon of version 2")
    names = ("identifier, the root record", *(f"link {number}" for number in range(64)))
    for name, (at, start, end) in zip(names, _fields(wire), strict=False):
        yield ""
        yield from _dump(at, wire[at:start], f"{name}: {end - start} bytes")
        yield from _dump(start, wire[start:end])
        yield from _dump(end, wire[end : end + 1], "its end")
    yield ""
    yield from _dump(end + 1, wire[end + 1 : end + 2], "the end of the links")
    yield from _dump(end + 2, wire[end + 2 : end + 4], "the signature, the last tag of the chain: 32 bytes")
    yield from _dump(end + 4, wire[end + 4 :], " ")


def _signed(bodies: list[bytes]) -> Iterator[str]:
    tags = [build.derive(build.KEY)]
    for body in bodies:
        tags.append(build.mac(tags[-1], body))
    links = [f"link {number}" for number in range(len(bodies) - 1)]
    yield "the chain: each tag is HMAC-SHA-256, under the one before, of what is named"
    yield f"  key k1      {build.KEY.hex()}"
    yield f"  derived     {tags[0].hex()}  (section Chain)"
    for name, tag in zip(("identifier", *links), tags[1:], strict=True):
        yield f"  {name:<10}  {tag.hex()}"
    yield ""
    yield "link ids: public names of a link and all below it"
    for name, tag in zip(links, tags[2:], strict=True):
        yield f"  {name:<10}  {build.link_id(tag)}"


def _judged(links: list[dict[str, build.Json]]) -> Iterator[str]:
    chain = "orchestrator (issued)" + "".join(f" > {link['to']} (vouched)" for link in links if "to" in link)
    yield f"at {build.NOW} a verifier that has k1 and is called {AUDIENCE} says of select on sales: allowed"
    yield f"  {chain}, for user:jane, in task-123, until {min(link['exp'] for link in links)}"
    yield "and of select on market.eu, which link 1 dropped: table"


def opening() -> str:
    """The first block of the specification."""
    text = presented()
    wire = decoded(text)
    bodies = [wire[start:end] for _, start, end in _fields(wire)]
    blocks = (_taken_apart(wire), _signed(bodies), _judged([json.loads(body) for body in bodies[1:]]))
    return _block(*_rows(text), *(line for block in blocks for line in ("", *block)))


def decoded(text: str) -> bytes:
    """The bytes behind a prefix."""
    return build.unb64(text[text.index("_") + 1 :])


def _rows(text: str) -> list[str]:
    return [text[at : at + 100] for at in range(0, len(text), 100)]


def _block(*lines: str) -> str:
    return "\n".join(("```", *lines, "```", ""))


def _parts(*parts: tuple[bytes, str]) -> Iterator[str]:
    """Bytes that follow on each other, each part with its note; a note that is empty shows the text that they are."""
    at = 0
    for data, note in parts:
        yield from _dump(at, data, note)
        at += len(data)


def _tags(bodies: Iterable[bytes]) -> list[bytes]:
    tags = [build.derive(build.KEY)]
    for body in bodies:
        tags.append(build.mac(tags[-1], body))
    return tags


def signed_link() -> str:
    """The block of section Holder binding: link 1 of a bound token, and what its signature is over."""
    token = bound()
    wire = decoded(token.serialize())
    identifier, first, link = (wire[start:end] for _, start, end in _fields(wire))
    body, signature = link[:-87], link[-86:]
    before = _tags((identifier, first))[-1]
    return _block(
        "link 1, as it travels: a JSON object, a full stop, a signature",
        *_parts((body, ""), (link[-87:-86], "a full stop"), (signature, "")),
        "",
        "what is signed, by the key of orchestrator, to which link 0 had bound the token",
        *_parts(
            (build.label("custody"), "the label, with its byte 00"),
            (build.state(before), "the state after link 0"),
            (build.sha256(body), "SHA-256 of the JSON object"),
        ),
        "",
        f"  seed of orchestrator   {build.secret('orchestrator').hex()}",
        f"  its public key         {build.signing_public('orchestrator').hex()}",
        f"  tag after link 0       {before.hex()}",
        f"  signature              {build.unb64(signature.decode()).hex()[:64]}",
        f"                         {build.unb64(signature.decode()).hex()[64:]}",
        f"  seed of sales-agent    {build.secret('sales-agent').hex()}",
    )


def proof() -> str:
    """The block of section Proof of possession."""
    text, made = proved()
    wire, data = decoded(text.partition(".")[0]), decoded(made)
    state = build.state(wire[-32:])
    request = build.of_access(SELECT)
    return _block(
        "the end of the text, behind the last full stop",
        *_rows(made),
        "",
        *_parts((data[:8], f"made at {build.NOW}"), (data[8:24], "the nonce"), (data[24:], "the signature")),
        "",
        "what is signed, by the key of sales-agent",
        *_parts(
            (build.label("proof"), "the label, with its byte 00"),
            (state, "the state after the last link of what is presented"),
            (build.sha256(AUDIENCE.encode()), f"SHA-256 of {AUDIENCE}"),
            (data[:8], "made at"),
            (data[8:24], "the nonce"),
            (request, "the digest of the request: select on sales"),
        ),
        "",
        "what a store remembers of it: key and nonce, as 16 bytes; and when it was made",
        f"  {build.use(build.signing_public('sales-agent'))['entry']}  {build.NOW}",
    )


def ticket() -> str:
    """The block of section Third-party caveats: the caveat, what is in its boxes, and the discharge."""
    token = asked()
    wire = decoded(token.serialize())
    *links, cid = token.unverified.bodies
    vid = wire[-108:-36]  # before two ends and the signature
    before = _tags((token.unverified.root.encode(), *links))[-1]
    caveat_key = build.secret("one")
    within = build.canonical({"ck": build.b64(caveat_key), "need": {"approve": "payment"}, "v": 1})
    answer = answered()
    made = decoded(answer)
    ended = made[made.index(b'{"exp"') :].partition(b"}")[0] + b"}"
    return _block(
        "the ticket, which is the cid of link 2",
        *(cid.decode()[at : at + 100] for at in range(0, len(cid), 100)),
        "what is sealed in its box, for the discharger",
        *(within.decode()[at : at + 100] for at in range(0, len(within), 100)),
        "",
        "the vid of link 2",
        *_parts(
            (vid[:24], "the nonce"),
            (vid[24:40], "the tag of the secret box, and what it encloses"),
            (vid[40:], "under the tag after link 1: the caveat key, derived"),
        ),
        "",
        f"  secret of the discharger   {build.secret('approvals').hex()}",
        f"  its public key             {build.exchange_public('approvals').hex()}",
        f"  caveat key                 {caveat_key.hex()}",
        f"  derived                    {build.derive(caveat_key).hex()}",
        f"  tag after link 1           {before.hex()}",
        f"  tag after link 2           {wire[-32:].hex()}",
        "",
        f"the discharge: identifier the ticket, one link {ended.decode()}; unbound, and bound to this token",
        *_rows(answer),
        f"  its tag                    {made[-32:].hex()}",
        f"  bound                      {build.pair(bytes(32), wire[-32:], made[-32:]).hex()}",
    )


def stopped() -> bytes:
    """A snapshot that revokes link 1 of the opening, and makes its task one that reads only."""
    wire = decoded(presented())
    bodies = [wire[start:end] for _, start, end in _fields(wire)]
    link = build.link_id(_tags(bodies[:3])[-1])  # of identifier, link 0, link 1
    entries = (
        Entry(id="4Kd0gmYp2nQ", at=build.NOW, by="ops", why="lost laptop", select=Selector(link=link)),
        Entry(
            id="f1Q7yE0mXkA", at=build.NOW, by="ops", why="reads only until the audit is over", until=build.NOW + 86400,
            select=Selector(task="task-123"), link={"operations": ["select"]},
        ),
    )  # fmt: skip
    past = build.past_after(build.snapshot_of(seq=16, past=()))
    return snapshot(OperatorKey.from_bytes(build.secret("operator")), entries, seq=17, issued_at=build.NOW, past=past)


def overlay() -> str:
    """The block of section Overlay."""
    data = stopped()
    body, signature = data[:-87], data[-86:]
    return _block(
        *(data.decode()[at : at + 100] for at in range(0, len(data), 100)),
        "",
        "what is signed, by the key of the operator",
        *_parts((build.label("overlay"), "the label, with its byte 00"), (build.sha256(body), "SHA-256 of the JSON object")),
        "",
        f"  seed of the operator   {build.secret('operator').hex()}",
        f"  its public key         {build.signing_public('operator').hex()}",
        f"  signature              {build.unb64(signature.decode()).hex()[:64]}",
        f"                         {build.unb64(signature.decode()).hex()[64:]}",
    )


def lifted() -> bytes:
    """A delta from that snapshot to one in which the laptop was found."""
    key = OperatorKey.from_bytes(build.secret("operator"))
    known = Overlay.open(stopped(), [key.public])
    return delta(key, known, drop=["4Kd0gmYp2nQ"], add=(), seq=18, issued_at=build.NOW + 5).delta


def changed() -> str:
    """The block of section Overlay on deltas."""
    data = lifted()
    body, signature = data[:-87], data[-86:]
    given = stopped()[:-87].replace(b'"seq":17', b'"seq":18')
    given = given.replace(b'"iat":%d' % build.NOW, b'"iat":%d' % (build.NOW + 5))
    given = given.replace(b'"exp":%d' % (build.NOW + 3600), b'"exp":%d' % (build.NOW + 3605))
    start = given.index(b'{"at"')
    given = given[:start] + given[given.index(b',{"at"') + 1 :]
    given = given.replace(b'"past":[', b'"past":["%b",' % build.b64(build.sha256(stopped()[:-87])).encode())
    return _block(
        *(data.decode()[at : at + 100] for at in range(0, len(data), 100)),
        "",
        "what it gives, of which gives.hash is the SHA-256",
        *(given.decode()[at : at + 100] for at in range(0, len(given), 100)),
        "",
        "what is signed, by the key of the operator",
        *_parts((build.label("delta"), "the label, with its byte 00"), (build.sha256(body), "SHA-256 of the JSON object")),
        "",
        f"  after.hash             {build.sha256(stopped()[:-87]).hex()}",
        f"  gives.hash             {build.sha256(given).hex()}",
        f"  signature              {build.unb64(signature.decode()).hex()[:64]}",
        f"                         {build.unb64(signature.decode()).hex()[64:]}",
    )


def recorded() -> list[bytes]:
    """The trail of a server that allows the opening what it asks for, and then signs."""
    lines: list[bytes] = []
    trail = AuditTrail(lines.append, key=AuditKey.from_bytes(build.secret("server")))
    ring = Keyring.from_keys({"k1": build.KEY}, "k1")
    verifier = Verifier(ring, AUDIENCE, audit=trail, clock=CLOCK)
    verifier.authorize(presented(), Access(**SELECT))
    trail.checkpoint()
    return lines


def audit() -> str:
    """The block of section Audit."""
    lines = recorded()
    shown: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.decode().removesuffix("\n")
        shown += (f"line {number}", *(text[at : at + 100] for at in range(0, len(text), 100)))
    last = build.sha256(lines[-1].removesuffix(b"\n"))
    return _block(
        *shown,
        "",
        f"  seed of the server     {build.secret('server').hex()}",
        f"  its public key         {build.signing_public('server').hex()}",
        f"  the head, to be kept   {len(lines)} {build.b64(last)}",
    )


def specification() -> str:
    """The specification, its blocks as they are written now."""
    whole = SPECIFICATION.read_text(encoding="utf-8")
    blocks = {
        "": opening, "a signed link, ": signed_link, "a proof, ": proof, "a ticket, ": ticket, "a snapshot, ": overlay,
        "a delta, ": changed, "a trail, ": audit,
    }  # fmt: skip
    for name, block in blocks.items():
        begin = BEGIN.replace("written", f"{name}written")
        before, _, rest = whole.partition(begin)
        _, _, after = rest.partition(END)
        whole = before + begin + block() + END + after
    return whole
