"""Keys of one audience, and keys that an issuer and a server have in common (spec, "Keys", "Pairwise keys")."""

from __future__ import annotations

from spec.models.cases import Broken, Case, Reach, Secure
from spec.models.terms import Term, at, att, derive, dh, first_tag, learns, mac, pair, pk


def audience_key(audience: Term) -> Term:
    return mac("kroot", pair("laudience", audience))


HERE = audience_key("here")  # what a server that is called `here` has, and no other key

AUDIENCE: tuple[Case, ...] = (
    Secure(
        name="audience_forges_for_another",
        claim="a server with the key of its audience makes no token for another audience",
        rules=(learns(HERE),),
        goal=at(att(first_tag(key=audience_key("there")))),
        broken=(
            Broken(
                name="audience_forges_for_another_same_key",
                fault="the audience is left out of the key",
                rules=(learns(mac("kroot", "laudience")),),
                goal=at(att(first_tag(key=mac("kroot", "laudience")))),
            ),
        ),
    ),
    Secure(
        name="audience_forges_unaddressed",
        claim="a server with the key of its audience makes no token without an audience",
        rules=(learns(HERE),),
        goal=at(att(first_tag())),
        broken=(
            Broken(
                name="audience_forges_unaddressed_root_key",
                fault="the two servers share the root key",
                rules=(learns("kroot"),),
                goal=at(att(first_tag())),
            ),
        ),
    ),
    Secure(
        name="audience_learns_the_root_key",
        claim="a server with the key of its audience does not learn the root key",
        rules=(learns(HERE),),
        goal=att("kroot"),
        broken=(
            Broken(
                name="audience_learns_the_root_key_joined",
                fault="the key of an audience is root key and audience joined",
                rules=(learns(pair("kroot", pair("laudience", "here"))),),
                goal=att("kroot"),
            ),
        ),
    ),
    Secure(
        name="tag_is_a_key",
        claim="no first tag is the key of an audience, whatever the identifiers of tokens say",
        rules=(learns(mac(derive("kroot"), "X"), "X"),),
        goal=att(audience_key("there")),
        broken=(
            Broken(
                name="tag_is_a_key_not_derived",
                fault="the chain starts from the root key itself, and not from the one derived of it",
                rules=(learns(mac("kroot", "X"), "X"),),
                goal=att(audience_key("there")),
            ),
        ),
    ),
    Reach(
        name="audience_forges_for_itself",
        claim="a server with the key of its audience can make any token for itself",
        rules=(learns(HERE),),
        goal=at(att(first_tag(key=HERE))),
    ),
)

# --- pairwise --------------------------------------------------------------------------------------------------------


def hkdf(secret: Term, info: Term) -> Term:
    return mac(mac("lpairwise", secret), info)


def pairwise(issuer: Term, server: Term, audience: Term = "here") -> Term:
    """The root key that an issuer and a server, by their secret keys, have for an audience."""
    return hkdf(dh(issuer, server), pair(pk(issuer), pk(server), audience))


PUBLIC = tuple(learns(pk(secret)) for secret in ("kissuer", "krival", "kserver", "kneighbour"))
KEY = pairwise("kissuer", "kserver")
REFLECTED = pairwise("kserver", "kissuer")

PAIRWISE: tuple[Case, ...] = (
    Secure(
        name="pairwise_from_outside",
        claim="whoever knows the public keys alone makes no token",
        rules=PUBLIC,
        goal=at(att(first_tag(key=KEY))),
        broken=(
            Broken(
                name="pairwise_from_outside_no_secret",
                fault="the key is derived from what is public, and the shared secret left out",
                rules=PUBLIC,
                goal=at(att(first_tag(key=hkdf("zero", pair(pk("kissuer"), pk("kserver"), "here"))))),
            ),
        ),
    ),
    Secure(
        name="pairwise_by_a_neighbour",
        claim="a server makes no token of its issuer for another server",
        rules=(*PUBLIC, learns("kneighbour")),
        goal=at(att(first_tag(key=KEY))),
        broken=(
            Broken(
                name="pairwise_by_a_neighbour_common_key",
                fault="the issuer has one symmetric key in common with all servers",
                rules=(*PUBLIC, learns("kneighbour"), learns("kcommon")),
                goal=at(att(first_tag(key=hkdf("kcommon", pair(pk("kissuer"), pk("kserver"), "here"))))),
            ),
        ),
    ),
    Secure(
        name="pairwise_by_a_rival",
        claim="an issuer makes no token in the name of another issuer",
        rules=(*PUBLIC, learns("krival")),
        goal=at(att(first_tag(key=KEY))),
        broken=(
            Broken(
                name="pairwise_by_a_rival_server_key",
                fault="a server hands the same symmetric key to all its issuers",
                rules=(*PUBLIC, learns("krival"), learns(hkdf("kserver", "here"))),
                goal=at(att(first_tag(key=hkdf("kserver", "here")))),
            ),
        ),
    ),
    Secure(
        name="pairwise_stolen_elsewhere",
        claim="with a server's stolen secret key nobody makes tokens for another server",
        rules=(*PUBLIC, learns("kserver")),
        goal=at(att(first_tag(key=pairwise("kissuer", "kneighbour")))),
        broken=(
            Broken(
                name="pairwise_stolen_elsewhere_fleet",
                fault="the servers of one fleet have one secret key",
                rules=(*PUBLIC, learns("kserver")),
                goal=at(att(first_tag(key=pairwise("kissuer", "kserver")))),
            ),
        ),
    ),
    Secure(
        name="pairwise_for_another_audience",
        claim="of two audiences of one server, the key of one makes no token for the other",
        rules=(*PUBLIC, learns(KEY)),
        goal=at(att(first_tag(key=pairwise("kissuer", "kserver", "there")))),
        broken=(
            Broken(
                name="pairwise_for_another_audience_left_out",
                fault="the audience is left out of the derivation",
                rules=(*PUBLIC, learns(hkdf(dh("kissuer", "kserver"), pair(pk("kissuer"), pk("kserver"))))),
                goal=at(att(first_tag(key=hkdf(dh("kissuer", "kserver"), pair(pk("kissuer"), pk("kserver")))))),
            ),
        ),
    ),
    Secure(
        name="pairwise_reflected",
        claim="where two are issuer and server to each other, a token for one is none for the other, even if they share a name",
        rules=(*PUBLIC, learns(first_tag(key=KEY))),
        goal=at(att(first_tag(key=REFLECTED))),
        broken=(
            Broken(
                name="pairwise_reflected_no_public_keys",
                fault="the public keys are left out of the derivation",
                rules=(*PUBLIC, learns(first_tag(key=hkdf(dh("kissuer", "kserver"), "here")))),
                goal=at(att(first_tag(key=hkdf(dh("kserver", "kissuer"), "here")))),
            ),
        ),
    ),
    Reach(
        name="pairwise_agreed",
        claim="the issuer's secret key and the server's public one give the key",
        rules=(*PUBLIC, learns("kissuer")),
        goal=att(KEY),
    ),
    Reach(
        name="pairwise_stolen_here",
        claim="with a server's stolen secret key anyone makes tokens of every issuer for that server",
        rules=(*PUBLIC, learns("kserver")),
        goal=at(att(first_tag(key=KEY))),
    ),
)
