"""A person approves: the clerk's token is worth nothing until somebody has said yes.

    python examples/human_approval.py              asks on the terminal
    python examples/human_approval.py < /dev/null  lets the rule of the example decide

And then it is good for exactly what was seen. The orchestrator adds the question to the token
before it hands it on, offline; the clerk cannot take it off. Over HTTP the approver is a small
service with a page for the person: docs/discharges.md.
"""

import sys
from collections.abc import Mapping
from typing import Any

from captoken import Access, Denied, Issuer, Keyring, Token, Verifier
from captoken.discharge import Allow, Discharge, Discharger, Refuse, Ticket, Wait
from captoken.errors import DischargeError
from captoken.keys import DischargerKey

keyring = Keyring.generate().for_audience("bank")
bank = Verifier(keyring, audience="bank")

# --- The approver: knows its own key, and nothing of tokens or of the bank ------------------------


def policy(need: Mapping[str, Any]) -> Wait | Refuse:
    """What is asked was sealed by the orchestrator.

    Payments are for a person to decide, and nothing else is approved.
    """
    if need == {"approve": "bank.pay", "task": "payables"}:
        return Wait(person=True)
    return Refuse("never heard of it")


approver = Discharger(DischargerKey.generate(), policy)


def person(question: str, usual: bool) -> bool:
    """Somebody looks at it. Without a terminal: yes to what is usual."""
    if sys.stdin.isatty():
        answer = input(f"  {question} [y/N] ")
        return answer.strip().lower() == "y"
    print(f"  {question} {'yes' if usual else 'no'}")
    return usual


def only(to: str, cents: int) -> dict[str, dict[str, dict[str, Any]]]:
    """One payment, and nothing else."""
    return {"bank.pay": {"to": {"in": [to]}, "cents": {"in": [cents]}}}


def consent(ticket: Ticket, to: str, cents: int) -> Discharge:
    """The answer to a ticket: a discharge for the one payment that the person saw.

    Whatever else the clerk may do, the discharge narrows it to that.
    """
    if approver.answer(ticket) != Wait(person=True):
        raise DischargeError("nothing that a person is asked", "refused")
    if not person(f"pay {cents / 100:.2f} to {to}?", usual=to == "paper-mill.example"):
        raise DischargeError("the approver said no", "refused")
    return approver.approve(ticket, Allow(expires_in=60, tools=only(to, cents)))


# --- The orchestrator hands on a token that asks --------------------------------------------------

root = Issuer(keyring).mint(
    subject="user:jane",
    agent="orchestrator",
    task="payables",
    tools={"bank.pay": {"to": {"any": True}, "cents": {"max": 500_000}}},
)
asking = root.require(
    approver.public,
    need={"approve": "bank.pay", "task": "payables"},
    location="https://approve.example",
)
clerk = asking.delegate(
    to="clerk-agent", tools={"bank.pay": {"to": {"any": True}, "cents": {"max": 90_000}}}
)

# --- The clerk pays -------------------------------------------------------------------------------

clerk = Token.parse(clerk.serialize())
(ticket,) = clerk.needs


def pay(token: Token, to: str, cents: int) -> str:
    """What the bank says to one payment."""
    print(f"  bank.pay(to={to!r}, cents={cents})")
    payment = Access(tool="bank.pay", arguments={"to": to, "cents": cents})
    try:
        grant = bank.authorize(token.present(audience="bank"), payment)
    except Denied as denied:
        return f"denied, {denied.decision.summary}"
    return f"paid, by {grant.actor.name} for {grant.issued.subject}"


def ask_and_pay(to: str, cents: int) -> str:
    """The clerk shows its ticket to the approver, and pays with what comes back."""
    try:
        discharge = consent(ticket, to, cents)
    except DischargeError as error:
        return f"{error.code}: {error}"
    return pay(clerk.with_discharge(discharge), to, cents)


print("Without asking")
silent = pay(clerk, "paper-mill.example", 83_000)
print(f"      {silent}")

print("\nFor the paper mill")
usual = ask_and_pay("paper-mill.example", 83_000)
print(f"      {usual}")

print("\nFor somebody new")
new = ask_and_pay("quick-cash.example", 89_000)
print(f"      {new}")

print("\nConsent to one payment, used for another")
yes = approver.approve(ticket, Allow(expires_in=60, tools=only("paper-mill.example", 100)))
other = pay(clerk.with_discharge(yes), "quick-cash.example", 100)
print(f"      {other}")

print("\nConsent to more than the clerk may do")
yes = approver.approve(ticket, Allow(expires_in=60))
more = pay(clerk.with_discharge(yes), "paper-mill.example", 90_001)
print(f"      {more}")

assert silent.startswith("denied, missing_discharge")
assert other.startswith("denied, argument")
assert more.startswith("denied, argument")
if not sys.stdin.isatty():
    assert usual == "paid, by clerk-agent for user:jane"
    assert new == "refused: the approver said no"
