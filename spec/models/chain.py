"""The chain of HMACs, and what its public names reveal (spec, "Chain", "Link ids")."""

from __future__ import annotations

from spec.models.cases import Broken, Case, Reach, Secure
from spec.models.terms import at, att, code, first_tag, learns, link_id, mac, pair, state

ROOT = first_tag()
SALES = mac(ROOT, "csales")
TOKENS = (learns(SALES),)  # every token that there is, restricted to sales, is in the attacker's hands

CHAIN: tuple[Case, ...] = (
    Secure(
        name="forged",
        claim="whoever has other root keys, and no token, makes no token under this one",
        rules=(learns("kspare"), learns(first_tag(key="kspare"))),
        goal=at(att(ROOT)),
        broken=(
            Broken(
                name="forged_under_zeros",
                fault="a root key of zeros is taken",
                rules=(learns("kspare"), learns(first_tag(key="kspare"))),
                goal=at(att(first_tag(key="zero"))),
            ),
        ),
    ),
    Secure(
        name="link_removed",
        claim="a holder does not get back to the token before its last link",
        rules=TOKENS,
        goal=at(att(ROOT)),
        broken=(
            Broken(
                name="link_removed_where_all_tags_travel",
                fault="a token carries the tag of each of its links",
                rules=(learns(SALES), learns(ROOT)),
                goal=at(att(ROOT)),
            ),
        ),
    ),
    Secure(
        name="link_swapped",
        claim="a holder does not put another link in the place of one that is there",
        rules=TOKENS,
        goal=at(att(mac(ROOT, "cmarket"))),
        broken=(
            Broken(
                name="link_swapped_where_links_are_counted",
                fault="a tag says that there is one link more, and not which",
                rules=(learns(mac(ROOT, "zero")),),
                goal=at(att(mac(ROOT, "zero"))),
            ),
        ),
    ),
    Secure(
        name="links_reordered",
        claim="a holder does not change the order of links",
        rules=(learns(mac(SALES, "cmarket")),),
        goal=at(att(mac(mac(ROOT, "cmarket"), "csales"))),
        broken=(
            Broken(
                name="links_reordered_side_by_side",
                fault="each link has a tag of its own under the first one, and they stand side by side",
                rules=(learns(pair(SALES, mac(ROOT, "cmarket"))),),
                goal=at(att(pair(mac(ROOT, "cmarket"), SALES))),
            ),
        ),
    ),
    Secure(
        name="tokens_spliced",
        claim="a token without restrictions does not help to free another token from its own",
        rules=(learns(first_tag("one(N)")), learns(mac(first_tag("two(N)"), "csales"))),
        goal=att(first_tag("two(n7)")),
        broken=(
            Broken(
                name="tokens_spliced_without_identifier",
                fault="the first tag does not cover the identifier",
                rules=(learns(mac("kroot", "zero")), learns(mac(mac("kroot", "zero"), "csales"))),
                goal=att(mac("kroot", "zero")),
            ),
        ),
    ),
    Secure(
        name="presented_elsewhere",
        claim="a server makes of what was presented to it nothing that another server would take",
        rules=(learns(mac(SALES, "caud")),),
        goal=at(att(mac(SALES, "cother"))),
        broken=(
            Broken(
                name="presented_elsewhere_as_held",
                fault="a client sends the token that it holds",
                rules=(learns(SALES),),
                goal=at(att(mac(SALES, "cother"))),
            ),
        ),
    ),
    Reach(
        name="narrowed",
        claim="any holder adds a link, with no key",
        rules=TOKENS,
        goal=at(att(mac(SALES, "cmarket"))),
    ),
)


# What an operator may publish of every token: the state after, and the id of, its first tag and its link.
STATES = tuple(learns(state(tag)) for tag in (ROOT, SALES))
IDS = tuple(learns(link_id(tag)) for tag in (ROOT, SALES))

NAMES: tuple[Case, ...] = (
    Secure(
        name="ids_reveal_a_token",
        claim="link ids and states, of all tokens and links, give no tag",
        rules=(*STATES, *IDS),
        goal=at(att(SALES)),
        broken=(
            Broken(
                name="ids_reveal_a_token_they_encode",
                fault="a link id is an encoding of the tag that can be undone",
                rules=(*STATES, *(learns(code(pair("llink", tag))) for tag in (ROOT, SALES))),
                goal=at(att(SALES)),
            ),
        ),
    ),
    Secure(
        name="ids_reveal_the_parent",
        claim="link ids and states do not help a holder to get back to the token before its last link",
        rules=(*TOKENS, *STATES, *IDS),
        goal=at(att(ROOT)),
        broken=(
            Broken(
                name="ids_reveal_the_parent_they_are",
                fault="the state is the tag itself",
                rules=(*TOKENS, *IDS, learns(ROOT)),
                goal=at(att(ROOT)),
            ),
        ),
    ),
    Secure(
        name="ids_pass_for_tags",
        claim="no link id is the signature of a narrower token",
        rules=(*STATES, *IDS),
        goal=at(att(mac(SALES, "llink"))),
        broken=(
            Broken(
                name="ids_pass_for_tags_they_are_made_like",
                fault="a link id is the HMAC, under the tag, of the label: what the tag after a link with that text would be",
                rules=(*STATES, *(learns(mac(tag, "llink")) for tag in (ROOT, SALES))),
                goal=at(att(mac(SALES, "llink"))),
            ),
        ),
    ),
    Reach(
        name="ids_of_what_one_holds",
        claim="a holder can name the link that its token ends in",
        rules=TOKENS,
        goal=at(att(link_id(SALES))),
    ),
)
