"""Tokens bound to keys: a stolen one is worth nothing, and each hand-over can be proven to anyone.

    python examples/stolen_token.py

The orchestrator's token is bound to its key when it is minted, and signed over to the key of each
sub-agent. Every request carries a proof by the key: for this server, this request, and once.
"""

import base64
import hmac
import json
import tempfile
from time import time

from captoken import Access, Denied, Issuer, Keyring, Token, Verifier
from captoken.errors import DelegationError
from captoken.keys import HolderKey
from captoken.proof import Evidence, with_proof
from captoken.stores.sqlite import SQLiteReplayStore

keyring = Keyring.generate().for_audience("payroll")

# Which proofs were used is remembered in a file. It is made once, along with the keys, so that it
# knows that none was used before. Every process of the server opens it: `SQLiteReplayStore(path)`.
folder = tempfile.TemporaryDirectory()
proofs = SQLiteReplayStore.create(f"{folder.name}/proofs.db", keys=keyring.key_ids)
payroll = Verifier(keyring, audience="payroll", replays=proofs)

# Each agent makes its own key, and tells the others the public half. No key ever travels.
orchestrator = HolderKey.generate()
clerk = HolderKey.generate()
mallory = HolderKey.generate()

root = Issuer(keyring).mint(
    subject="user:jane",
    agent="orchestrator",
    task="payday",
    key=orchestrator.public,
    tables=["salaries"],
    operations=["select", "update"],
)
token = root.delegate(
    to="clerk", key=clerk.public, signer=orchestrator, tables=["salaries"], operations=["select"]
)
token = Token.parse(token.serialize())  # it travels as text, and narrowing it stays free

# --- The clerk at work: each request with a proof by its key --------------------------------------

reading = Access(table="salaries", operation="select")
text = token.present(audience="payroll", signer=clerk, request=reading)
grant = payroll.authorize(text, reading)
print("The clerk reads. The server knows:")
for actor in grant.chain:
    print(f"  {actor.name}, {actor.basis}")


# --- What a thief can do --------------------------------------------------------------------------


def refused(what: str, code: str, sent: str | Token, access: Access) -> None:
    """The server must deny with this code."""
    try:
        payroll.authorize(sent, access)
    except Denied as denied:
        assert denied.code == code, denied
        print(f"  {code:<14}{what}")
    else:
        raise AssertionError(f"this should have been refused: {what}")


print("\nMallory has read everything that the clerk sent")
alone, _, proof = text.rpartition(".")

refused("the text alone", "proof_missing", alone, reading)
refused("the text and the clerk's proof, again", "replayed", text, reading)

altering = Access(table="salaries", operation="update")
refused("the text with another request", "operation", text, altering)

other = token.present(audience="payroll", expires_in=30)
refused("the clerk's proof behind another text", "bad_proof", f"{other}.{proof}", reading)

hers = with_proof(alone, mallory, audience="payroll", request=reading, clock=time)
refused("a proof by a key of her own", "bad_proof", hers, reading)

print("\nMallory has stolen the token that the clerk holds")
try:
    token.delegate(to="mallory", key=mallory.public, signer=mallory)
    raise AssertionError("signed by the wrong key")
except DelegationError as error:
    print(f"  {error.code:<14}her own library: {error}")

# Without the library she can write the link all the same, since each signature is the key of the
# next. Nobody signed it.
data = base64.urlsafe_b64decode(token.serialize().removeprefix("cap1_") + "==")
links = data[:-35]
last_signature = data[-32:]
body = json.dumps({"key": mallory.public}, separators=(",", ":")).encode()
signature = hmac.digest(last_signature, body, "sha256")
longer = links + bytes([2, len(body)]) + body + b"\0\0\x06\x20" + signature
by_hand = Token.parse("cap1_" + base64.urlsafe_b64encode(longer).rstrip(b"=").decode())
stolen = by_hand.present(audience="payroll", signer=mallory, request=reading)
refused("the token, bound to her key by her own hand", "bad_proof", stolen, reading)

# --- Who handed on to whom ------------------------------------------------------------------------

print("\nWho handed the salaries to the clerk? Anyone can check, without a key of the issuer's:")
exported = json.loads(json.dumps(grant.evidence[0].as_dict()))
evidence = Evidence.from_dict(exported)
assert evidence.holds()
stated = json.loads(evidence.body)
signed = f"{stated['to']} may {stated['operations'][0]} from {stated['tables'][0]}"
print(f"  the key of {stated['from']} signed that {signed}")

altered = Evidence.from_dict({**exported, "body": exported["body"].replace("clerk", "mallory")})
assert not altered.holds()
print("  not a word of it can be changed")

proofs.close()
folder.cleanup()
