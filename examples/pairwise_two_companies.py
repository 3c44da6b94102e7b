"""Two companies, no shared secret: each has a key of its own and the other's public key.

    python examples/pairwise_two_companies.py

Bluebird's agents query Acme's catalogue. The companies exchange public keys, once, by whatever they
trust: a contract, a page, a call. From those both derive the same root key, for this issuer at this
server and nothing else.
"""

from captoken import Access, Denied, Issuer, Keyring, Token, Verifier
from captoken.keys import PairwiseKey

# Each side makes its key, keeps it (key.save(path)), and publishes `key.public`.
bluebird = PairwiseKey.generate()
acme = PairwiseKey.generate()
cedar = PairwiseKey.generate()
mallory = PairwiseKey.generate()

CATALOGUE = "catalogue.acme.example"
ORDERS = "orders.acme.example"

# --- Acme trusts two issuers; its servers verify offline, without ever having talked to them ------

trusted = acme.serving(issuers=[bluebird.public, cedar.public], audience=CATALOGUE)
catalogue = Verifier(trusted, audience=CATALOGUE)

# --- Bluebird mints for Acme, and its agents narrow as always -------------------------------------


def mint(keyring: Keyring, tables: list[str]) -> Token:
    """A first token for Bluebird's buyer, minted with those keys."""
    return Issuer(keyring).mint(
        subject="buyer@bluebird.example",
        agent="orchestrator",
        task="restock",
        tables=tables,
        operations=["select"],
    )


for_acme = bluebird.issuing(server=acme.public, audience=CATALOGUE)
root = mint(for_acme, ["products", "prices"])
child = root.delegate(to="price-agent", tables=["prices"], expires_in=300)
prices = Access(table="prices", operation="select")

grant = catalogue.authorize(child.present(audience=CATALOGUE), prices)
print(f"Acme lets {grant.actor.name} read prices for {grant.issued.subject}.")

# --- What does not work ---------------------------------------------------------------------------


def refused(what: str, verifier: Verifier, sent: str | Token) -> None:
    """The server must deny, whatever the reason."""
    try:
        verifier.authorize(sent, prices)
    except Denied as denied:
        print(f"  {denied.code:<14}{what}")
        return
    raise AssertionError(f"this should have been refused: {what}")


print("\nRefused")

# Whom a server trusts is listed there. Nothing in a token adds to the list.
forged = mint(mallory.issuing(server=acme.public, audience=CATALOGUE), ["prices"])
refused(
    "Mallory's token: nobody at Acme lists her key, and nothing in a token can", catalogue, forged
)

# A key id is public, so that anybody can claim it. The key itself is not.
claimed = bluebird.issuing(server=acme.public, audience=CATALOGUE).current
guessed = Keyring.from_keys({claimed: bytes(range(32))}, current=claimed)
posed = mint(guessed.for_audience(CATALOGUE), ["prices"])
refused("a key of her own under Bluebird's key id", catalogue, posed)

orders = Verifier(acme.serving(issuers=[bluebird.public], audience=ORDERS), audience=ORDERS)
refused("Bluebird's token at another server of Acme's", orders, child.serialize())

# --- What a stolen secret means -------------------------------------------------------------------

print("\nAcme's secret is stolen")
stolen = mint(acme.serving(issuers=[bluebird.public], audience=CATALOGUE), ["prices"])
assert catalogue.check(stolen, prices)
print("  the thief forges what Acme accepts, at Acme: rotate the key and tell the issuers")

at_cedar = cedar.serving(issuers=[bluebird.public], audience="cedar.example")
elsewhere = Verifier(at_cedar, audience="cedar.example")
refused("and at Cedar, which trusts Bluebird too", elsewhere, stolen)
