"""Two companies, no shared secret: each has a key of its own and the other's public key.

    python examples/pairwise_two_companies.py

Bluebird's agents query Acme's catalogue. The companies exchange public keys, once, by whatever they trust: a contract, a
page, a call. From those both derive the same root key, for this issuer at this server and nothing else.
"""

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken.keys import PairwiseKey

# Each side makes its key, keeps it (key.save(path)), and publishes `key.public`.
bluebird, acme, cedar, mallory = (PairwiseKey.generate() for _ in range(4))

# --- Acme trusts two issuers; its servers verify offline, without ever having talked to them --------------------------

catalogue = Verifier(
    acme.serving(issuers=[bluebird.public, cedar.public], audience="catalogue.acme.example"),
    audience="catalogue.acme.example",
)

# --- Bluebird mints for Acme, and its agents narrow as always ----------------------------------------------------------

for_acme = Issuer(bluebird.issuing(server=acme.public, audience="catalogue.acme.example"))
root = for_acme.mint(
    subject="buyer@bluebird.example",
    agent="orchestrator",
    task="restock",
    tables=["products", "prices"],
    operations=["select"],
)
child = root.delegate(to="price-agent", tables=["prices"], expires_in=300)
prices = Access(table="prices", operation="select")

grant = catalogue.authorize(child.present(audience="catalogue.acme.example"), prices)
print(f"Acme lets {grant.actor.name} read prices for {grant.issued.subject}.")

# --- What does not work --------------------------------------------------------------------------------------------------


def refused(what, verifier, text):
    try:
        verifier.authorize(text, prices)
    except Denied as denied:
        print(f"  {denied.code:<14}{what}")
        return
    raise AssertionError(f"this should have been refused: {what}")


print("\nRefused")
forged = Issuer(mallory.issuing(server=acme.public, audience="catalogue.acme.example")).mint(
    subject="buyer@bluebird.example",
    agent="orchestrator",
    task="restock",
    tables=["prices"],
    operations=["select"],
)
refused(
    "Mallory's token: nobody at Acme lists her key, and nothing in a token can", catalogue, forged
)

claimed = bluebird.issuing(
    server=acme.public, audience="catalogue.acme.example"
).current  # a key id is public
posing = Issuer(
    Keyring.from_keys({claimed: bytes(range(32))}, current=claimed).for_audience(
        "catalogue.acme.example"
    )
).mint(
    subject="buyer@bluebird.example",
    agent="orchestrator",
    task="restock",
    tables=["prices"],
    operations=["select"],
)
refused("a key of her own under Bluebird's key id", catalogue, posing)

orders = Verifier(
    acme.serving(issuers=[bluebird.public], audience="orders.acme.example"),
    audience="orders.acme.example",
)
refused("Bluebird's token at another server of Acme's", orders, child.serialize())

# --- What a stolen secret means --------------------------------------------------------------------------------------------

print("\nAcme's secret is stolen")
thief = Issuer(acme.serving(issuers=[bluebird.public], audience="catalogue.acme.example"))
stolen = thief.mint(
    subject="buyer@bluebird.example", agent="x", task="x", tables=["prices"], operations=["select"]
)
assert catalogue.check(stolen, prices)
print("  the thief forges what Acme accepts, at Acme: rotate the key and tell the issuers")
elsewhere = Verifier(
    cedar.serving(issuers=[bluebird.public], audience="cedar.example"), audience="cedar.example"
)
refused("and at Cedar, which trusts Bluebird too", elsewhere, stolen)
