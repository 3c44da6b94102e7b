"""Vectors of other ways to ask a verifier: caveats of an embedder's, one grant again and again, dry runs."""

from __future__ import annotations

from collections.abc import Iterator

from spec.generate.binding import BOUND, HERE, STORE, addressed, shown
from spec.generate.build import (
    JTI,
    KEY,
    NOW,
    Json,
    Parts,
    asking,
    bundle,
    discharge,
    entry,
    hand_over,
    of_access,
    proof,
    signing_public,
    snapshot,
    token,
    use,
)
from spec.generate.control import HERE_ALONE, OPERATOR, budget, changed, costing, counted, spent, uses
from spec.generate.table import SALES, SELECT, Table, call, ended, facts, keyring

HR: dict[str, Json] = {"table": "hr", "operation": "select"}
ISSUER = "the issuer"
REGION = "acme:region"


def tables() -> Iterator[Table]:
    yield own_caveats()
    yield grants()
    yield dry_runs()


# --- caveats of an embedder's ----------------------------------------------------------------------------------------


def own(does: str, domain: str = "all", key: str = REGION, **more: Json) -> dict[str, Json]:
    """An own caveat as FORMAT.md describes it."""
    return {"key": key, "domain": domain, "does": does, **more}


def own_caveats() -> Table:
    table = Table("own_caveats", "Caveats under keys of an embedder's that the verifier knows: when they are asked, and what they say.")
    first, second = (0, ISSUER), (1, "orchestrator")

    def allow(name: str, rule: str, known: list[Json], parts: Parts, access: Json = SELECT, **more: Json) -> None:
        table.allow(name, rule, parts, access, presented={"own": known}, **more)

    def deny(name: str, rule: str, code: str, known: list[Json], parts: Parts, access: Json = SELECT,
             place: tuple[int, str] | None = first, **more: Json) -> None:  # fmt: skip
        table.deny(name, rule, code, parts, access, presented={"own": known}, place=place, **more)

    said = token({**SALES, REGION: ["eu"]})
    later = token(SALES, {REGION: ["eu"]})
    among: dict[str, Json] = {**SELECT, "attributes": {"region": "eu"}}
    allow("that_holds", "15.12", [own("holds")], said)
    deny("that_nobody_knows", "17.3", "unknown_caveat", [], said)
    deny("of_another_key", "17.3", "unknown_caveat", [own("holds", key="acme:regions")], said)
    deny("of_the_key_in_capitals", "17.3", "unknown_caveat", [own("holds", key="acme:Region")], said)
    deny("that_prohibits", "15.12", "attribute", [own("prohibits")], said)
    deny("that_prohibits_with_a_code", "15.12", "tool", [own("prohibits", code="tool")], said)
    deny("that_prohibits_with_a_code_that_is_none", "15.12", "attribute", [own("prohibits", code="region")], said)
    deny("that_prohibits_by_saying_allowed", "15.12", "attribute", [own("prohibits", code="allowed")], said)
    deny("that_fails", "15.12", "attribute", [own("fails")], said)
    deny("that_answers_true", "15.12", "attribute", [own("answers", value=True)], said)
    deny("that_answers_false", "15.12", "attribute", [own("answers", value=False)], said)
    deny("that_answers_a_number", "15.12", "attribute", [own("answers", value=0)], said)
    deny("that_takes_no_such_value", "17.2", "unreadable_link", [own("refuses_value")], said)
    allow("in_a_later_link", "15.12", [own("holds")], later)
    deny("in_a_later_link_that_prohibits", "26.3", "attribute", [own("prohibits")], later, place=second)
    handed = token(SALES, hand_over("sales-agent"), {REGION: ["eu"]})
    allow("below_a_hand_over", "15.12", [own("holds")], handed)
    deny("below_a_hand_over_that_prohibits", "26.3", "attribute", [own("prohibits")], handed, place=(2, "sales-agent"))

    # What it is asked about: here whether the access states the attribute `region` with a value of the list.
    allow("that_asks_about_an_attribute", "15.12", [own("attribute_in")], said, among)
    deny("that_asks_about_another_value", "15.12", "attribute", [own("attribute_in")], said, {**among, "attributes": {"region": "us"}})
    deny("that_asks_about_what_is_not_stated", "15.10", "attribute", [own("attribute_in")], said)
    both = token({**SALES, REGION: ["eu", "us"]}, {REGION: ["us"]})
    allow("twice", "19.1", [own("attribute_in")], both, {**SELECT, "attributes": {"region": "us"}})
    deny("twice_of_which_the_second_prohibits", "19.1", "attribute", [own("attribute_in")], both, among, place=second)
    turned = token({**SALES, REGION: ["us"]}, {REGION: ["eu", "us"]})
    allow("twice_the_other_way_round", "19.1", [own("attribute_in")], turned, {**SELECT, "attributes": {"region": "us"}})
    deny("twice_of_which_the_first_prohibits", "19.1", "attribute", [own("attribute_in")], turned, among)

    # Domains.
    search, data = call("search"), own("holds", "data")
    rows = token({"nbf": NOW, REGION: ["eu"]})
    allow("of_the_domain_data", "18.3", [data], rows)
    deny("of_the_domain_data_closes_tools", "18.3", "domain", [data], rows, search)
    allow("of_the_domain_tool", "18.3", [own("holds", "tool")], rows, search)
    deny("of_the_domain_tool_closes_data", "18.3", "domain", [own("holds", "tool")], rows)
    allow("of_all_domains_closes_nothing", "18.3", [own("holds")], rows, search)
    kept = token({**SALES, "tools": {"*": {}}, REGION: ["eu"]})
    allow("of_the_domain_data_that_holds", "18.2", [data], kept)
    allow("of_the_domain_data_is_not_asked_about_tools", "18.2", [own("prohibits", "data")], kept, search)
    deny("of_the_domain_data_is_asked_about_data", "18.2", "attribute", [own("prohibits", "data")], kept)
    deny("of_all_domains_is_asked_about_tools", "18.2", "attribute", [own("prohibits")], kept, search)

    # Without an access.
    allow("is_not_asked_without_an_access", "24.8", [own("prohibits")], said, None)
    allow("that_needs_no_access", "24.8", [own("holds", asks_access=False)], said, None)
    deny("that_needs_no_access_and_prohibits", "24.8", "attribute", [own("prohibits", asks_access=False)], said, None)
    for domain in ("data", "tool"):
        allow(f"of_the_{domain}_domain_is_not_asked_without_an_access", "18.2", [own("prohibits", domain=domain, asks_access=False)], said, None)
    allow("that_needs_no_access_is_asked_with_one", "24.8", [own("holds", asks_access=False)], said)
    deny("that_needs_no_access_prohibits_with_one", "24.8", "attribute", [own("prohibits", asks_access=False)], said)

    # In which order.
    table.beside("that_holds")
    deny("after_another_key_of_its_link", "17.7", "attribute", [own("prohibits")], said, HR)
    deny("before_another_key_of_its_link", "17.7", "operation", [own("prohibits", key="zoo:region", code="tool")],
         token({**SALES, "zoo:region": 1}), {**SELECT, "operation": "insert"})  # fmt: skip
    deny("after_what_ends", "24.5", "expired", [own("prohibits", asks_access=False)], token({**SALES, REGION: 1}, {"exp": NOW}),
         place=second)  # fmt: skip
    table.beside("in_a_later_link")
    deny("unknown_beside_one_that_is_known", "17.3", "unknown_caveat", [own("holds")], token(SALES, {REGION: 1, "acme:x": 1}), place=second)

    # Elsewhere than in a link of the token.
    asked = asking(token(SALES), "one")
    answer = discharge("one", {"exp": NOW + 60, REGION: ["eu"]})
    allow("in_a_discharge", "33.6", [own("holds")], asked, discharges=(answer,))
    table.deny("in_a_discharge_that_prohibits", "33.7", "attribute", bundle(asked, answer), presented={"own": [own("prohibits")]},
               place=(1, "the discharger"))  # fmt: skip
    table.deny("in_a_discharge_that_nobody_knows", "33.6", "unknown_caveat", bundle(asked, answer), presented={"own": []},
               place=(1, "the discharger"))  # fmt: skip
    return table


# --- one grant -------------------------------------------------------------------------------------------------------


def grants() -> Table:
    """A grant is made of a text at a moment; then it is asked, step by step, each at its own moment."""
    table = Table("grants", "One grant that is asked again and again: fresh time and overlay, what counts, and when it is too old.")

    def row(name: str, rule: str, parts: Parts, steps: list[Json], answers: list[Json], end: str | None = None, max_age: Json = "left out",
            known: dict[str, Json] | None = None, **given: Json) -> None:  # fmt: skip
        stated: dict[str, Json] = {
            "token": ended(parts.text, end), "keyring": keyring({"k1": KEY}), "facts": facts(**(known or {})), **given, "steps": steps,
        }  # fmt: skip
        if max_age != "left out":
            stated["max_age"] = max_age
        table.add(name, rule, "grant", stated, answers=answers)

    def denied(name: str, rule: str, parts: Parts, code: str, end: str | None = None, place: tuple[int, str] | None = None,
               known: dict[str, Json] | None = None, **given: Json) -> None:  # fmt: skip
        stated: dict[str, Json] = {
            "token": ended(parts.text, end), "keyring": keyring({"k1": KEY}), "facts": facts(**(known or {})), **given,
            "steps": [step()],
        }  # fmt: skip
        where = {} if place is None else {"link": place[0], "added_by": place[1]}
        table.add(name, rule, "grant", stated, code, **where)

    def step(access: Json = SELECT, after: int = 0, **more: Json) -> dict[str, Json]:
        return {"access": access, "now": NOW + after, **more}

    yes: dict[str, Json] = {"code": "allowed"}

    def no(code: str, link: int | None = None, added_by: str | None = None) -> dict[str, Json]:
        return changed({"code": code, "link": link, "added_by": added_by})

    plain = token({**SALES, "exp": NOW + 600})
    row("of_one_access", "24.9", plain, [step()], [yes])
    row("of_several_accesses", "24.9", plain, [step(), step(HR), step({**SELECT, "operation": "insert"}), step()],
        [yes, no("table", 0, ISSUER), no("operation", 0, ISSUER), yes])  # fmt: skip
    denied("of_a_token_that_has_ended", "24.9", plain, "expired", place=(0, ISSUER), known={"now": NOW + 600})
    row("until_the_token_ends", "24.9", plain, [step(after=599), step(after=600), step(HR, 600), step(after=599)],
        [yes, no("expired", 0, ISSUER), no("expired", 0, ISSUER), yes])  # fmt: skip
    row("with_leeway", "24.9", plain, [step(after=604), step(after=605)], [yes, no("expired", 0, ISSUER)], known={"leeway": 5})
    row("without_an_access", "24.8", plain, [step(None, how="recheck"), step(None, 600, how="recheck")], [yes, no("expired", 0, ISSUER)])
    row("with_callers", "24.7", plain, [step(caller={"agent": "orchestrator"}), step(caller={"agent": "mail-agent"}), step()],
        [yes, no("caller"), yes])  # fmt: skip

    # How old it may be.
    ever = token(SALES)
    row("of_an_hour_ago", "24.15", ever, [step(after=3600), step(after=3601), step(HR, 3601)], [yes, no("stale_grant"), no("stale_grant")])
    row("of_a_bound_of_its_own", "24.15", ever, [step(after=10), step(after=11)], [yes, no("stale_grant")], max_age=10)
    row("of_no_bound", "24.15", ever, [step(after=10**9), step(after=-60)], [yes, yes], max_age=None)
    row("of_no_bound_by_a_clock_that_is_behind", "24.15", ever, [step(after=-61), step(after=-10**6)], [no("not_yet_valid")] * 2, max_age=None)
    row("of_later", "24.15", ever, [step(after=-60), step(after=-61), step()], [yes, no("stale_grant"), yes])
    row("that_is_too_old_is_told_before_the_end", "24.15", plain, [step(after=3601)], [no("stale_grant")])
    row("that_is_too_old_is_told_before_the_caller", "24.15", ever, [step(after=3601, caller={"agent": "mail-agent"})], [no("stale_grant")])
    row("that_is_too_old_for_a_dry_run", "24.15", ever, [step(after=3601, how="explain"), step(after=3601, how="recheck")],
        [no("stale_grant"), no("stale_grant")])  # fmt: skip

    # The overlay is asked each time.
    def over(*entries: Json, iat: int = NOW) -> str:
        return snapshot(*entries, iat=iat).decode()

    first: dict[str, Json] = {"snapshot": over(), "operators": [OPERATOR], "max_staleness": 60, "allow_stale": False}
    gone, less = entry(token=JTI), changed(entry(token=JTI), link={"operations": ["insert"]})
    row("that_is_revoked_meanwhile", "24.9", plain, [step(), step(snapshot=over(gone)), step(after=1)],
        [yes, no("revoked", added_by="ops"), no("revoked", added_by="ops")], overlay=first)  # fmt: skip
    row("that_is_narrowed_for_a_while", "24.9", plain, [step(snapshot=over(less)), step(snapshot=over())],
        [no("narrowed", added_by="ops"), yes], overlay=first)  # fmt: skip
    row("whose_overlay_grows_stale", "24.9", plain, [step(after=60), step(after=61), step(after=61, snapshot=over(iat=NOW + 61))],
        [yes, no("stale_overlay"), yes], overlay=first)  # fmt: skip
    row("that_is_revoked_before_a_dry_run", "24.16", plain, [step(snapshot=over(gone), how="explain"), step(how="recheck")],
        [no("revoked", added_by="ops"), no("revoked", added_by="ops")], overlay=first)  # fmt: skip
    row("that_is_too_old_and_revoked", "24.15", ever, [step(after=3601, snapshot=over(gone, iat=NOW + 3601))], [no("stale_grant")],
        overlay=first)  # fmt: skip

    # What counts.
    three = token(uses(2, **HERE_ALONE))
    here: dict[str, Json] = {"audiences": HERE}
    short = no("budget_exhausted", 0, ISSUER)
    row("each_access_counts", "24.9", three, [step(), step(), step()], [yes, yes, short], known=here, **counted())
    row("what_is_denied_does_not_count", "24.16", three, [step(HR), step(HR), step(), step(), step()],
        [no("table", 0, ISSUER)] * 2 + [yes, yes, short], known=here, **counted())  # fmt: skip
    row("a_dry_run_does_not_count", "24.16", three, [*[step(how="explain")] * 3, step(), step(), step(how="explain")],
        [yes] * 5 + [short], known=here, **counted())  # fmt: skip
    row("a_recheck_asks_no_ledger", "24.19", three, [step(), step(), step(how="recheck"), step()], [yes, yes, yes, short], known=here,
        **counted())  # fmt: skip
    row("a_recheck_of_another_access", "24.19", three, [step(HR, how="recheck"), step(how="recheck")], [no("table", 0, ISSUER), yes],
        known=here, **counted())  # fmt: skip
    row("nothing_counts_without_an_access", "38.5", three, [step(None, how="recheck")] * 3 + [step()] * 3, [yes] * 5 + [short],
        known=here, **counted())  # fmt: skip
    money = token({**HERE_ALONE, **budget(cents=10)})
    row("costs_add_up", "24.9", money, [step(costing(cents=6)), step(costing(cents=6)), step(costing(cents=4)), step(SELECT)],
        [yes, short, yes, no("cost_unstated", 0, ISSUER)], known=here, **counted())  # fmt: skip
    row("without_a_ledger", "38.7", three, [step(), step(how="recheck")], [no("store_unavailable"), yes], known=here)

    # Of a bound token: its proof is for the moment at which the grant is made, and used once.
    bound = addressed(BOUND)
    once = proof(bound, "orchestrator", of_access(None))
    row("of_a_bound_token_once", "24.9", bound, [step()], [yes], once, known=here, replays=STORE)
    row("of_a_bound_token", "24.9", bound, [step(), step(HR), step(after=59)], [yes, no("table", 0, ISSUER), yes], once, known=here,
        replays=STORE)  # fmt: skip
    denied("of_a_bound_token_without_a_proof", "24.9", bound, "proof_missing", known=here, replays=STORE)
    denied("of_a_bound_token_with_a_proof_for_an_access", "29.5", bound, "bad_proof", proof(bound, "orchestrator", of_access(SELECT)),
           known=here, replays=STORE)  # fmt: skip
    used = {**STORE, "used": [use(signing_public("orchestrator"))]}
    denied("of_a_proof_that_was_used", "31.2", bound, "replayed", once, known=here, replays=used)
    return table


# --- dry runs --------------------------------------------------------------------------------------------------------


def dry_runs() -> Table:
    """What a dry run says, and then what the same verifier decides: nothing was taken before it."""
    table = Table("dry_runs", "Dry runs: what they say, stores looked at; and the decision behind them, for which nothing was taken.")

    def row(name: str, rule: str, parts: Parts | str, code: str, then: str, access: Json = SELECT, **more: Json) -> None:
        table.dry(name, rule, parts, code, then, access, **more)

    plain = token({**SALES, "exp": NOW + 600})
    row("allowed", "24.16", plain, "allowed", "allowed")
    row("another_table", "24.16", plain, "table", "table", HR)
    row("ended", "24.16", plain, "expired", "expired", now=NOW + 600)
    row("another_caller", "24.16", plain, "caller", "caller", caller={"agent": "mail-agent"})
    row("forged", "24.16", plain.signed(bytes(32)), "bad_signature", "bad_signature")
    row("without_an_access", "24.16", plain, "allowed", "allowed", None)
    row("without_an_access_ended", "24.16", plain, "expired", "expired", None, now=NOW + 600)

    one, here = token(uses(1, **HERE_ALONE)), {"audiences": HERE}
    row("of_the_last_use", "24.16", one, "allowed", "allowed", presented=counted(), **here)
    row("of_no_use_left", "24.16", one, "budget_exhausted", "budget_exhausted", presented=counted(spent(one, 0, "uses", 1)), **here)
    row("without_a_ledger", "38.7", one, "store_unavailable", "store_unavailable", **here)
    money = token({**HERE_ALONE, **budget(cents=10)})
    row("of_a_cost_that_is_left", "24.16", money, "allowed", "allowed", costing(cents=10), presented=counted(), **here)
    row("of_a_cost_that_is_not_left", "24.16", money, "budget_exhausted", "budget_exhausted", costing(cents=10),
        presented=counted(spent(money, 0, "cents", 1)), **here)  # fmt: skip
    row("of_a_cost_that_is_not_stated", "38.2", money, "cost_unstated", "cost_unstated", presented=counted(), **here)

    bound = addressed(BOUND)
    about = proof(bound, "orchestrator", of_access(SELECT))
    row("of_a_proof", "24.16", bound, "allowed", "allowed", presented=shown(about), **here)
    used = {**STORE, "used": [use(signing_public("orchestrator"))]}
    row("of_a_proof_that_was_used", "24.16", bound, "replayed", "replayed", presented=shown(about, replays=used), **here)
    row("of_a_proof_for_another_access", "24.16", bound, "bad_proof", "bad_proof", {**SELECT, "columns": []}, presented=shown(about), **here)
    row("without_a_proof", "24.16", bound, "proof_missing", "proof_missing", presented=shown(None), **here)
    row("without_a_store", "24.16", bound, "store_unavailable", "store_unavailable", presented={"proof": about}, **here)
    row("of_a_full_store", "24.16", bound, "store_unavailable", "store_unavailable", presented=shown(about, replays={**STORE, "limit": 0}), **here)

    def over(*entries: Json) -> dict[str, Json]:
        stated = {"snapshot": snapshot(*entries).decode(), "operators": [OPERATOR], "max_staleness": 60, "allow_stale": False}
        return {"overlay": stated}

    row("beside_an_overlay", "24.16", plain, "allowed", "allowed", presented=over())
    row("revoked", "24.16", plain, "revoked", "revoked", presented=over(entry(token=JTI)))
    row("narrowed", "24.16", plain, "narrowed", "narrowed", presented=over(changed(entry(token=JTI), link={"operations": ["insert"]})))
    row("beside_a_stale_overlay", "24.16", plain, "stale_overlay", "stale_overlay", presented=over(), now=NOW + 61)
    row("of_an_access_that_cannot_be_stated", "7.7", plain, "usage", "usage", {"table": "sales"})
    asked = asking(token(SALES), "one")
    row("of_what_was_answered", "24.16", bundle(asked, discharge("one", {"exp": NOW + 60})), "allowed", "allowed")
    row("of_what_was_not_answered", "24.16", asked, "missing_discharge", "missing_discharge")
    return table
