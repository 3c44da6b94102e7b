"""Compare the claims of an assertion with a policy, and make the subject's name.

    { provider = "acme", groups = ["finance"], acr = { all = ["mfa"] } }

Each key besides `provider` is a claim. A list means any of its values, and `{ all = […] }` means
all of them. A key that begins with `/` is a JSON Pointer into the claims (RFC 6901). Values are
equal if type and value are equal. Only `sub` may end in `/*` or `:*`, which stands for one or more
further segments.

Nothing here checks a signature. The claims come from `identity`, which has checked it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from captoken._format import names, primitives
from captoken._format.encoding import b64encode
from captoken._format.spelling import shown

Claims: TypeAlias = Mapping[str, Any]
Scalar: TypeAlias = str | int | bool

# What a person can change, or is given to another person later (OpenID Connect Core, 5.7).
_REASSIGNED = frozenset(
    (
        "email",
        "preferred_username",
        "upn",
        "name",
        "nickname",
        "phone_number",
    )
)


def is_reassigned(claim: str) -> bool:
    """Is a claim, by its name or by a JSON Pointer, no way to tell who a person is?

    Only the last part of a pointer counts: `/contact/email` is an address too.
    """
    return claim.rpartition("/")[2] in _REASSIGNED


# --- what a policy wants --------------------------------------------------------------------------

# How `sub` may end in a policy: whatever is below.
_BELOW = ("/*", ":*")

# A template is literals and placeholders: `acme:{sub}`, `acme:{sub#}`.
_PARTS = re.compile(r"\{([^{}#]+)(#?)\}|([^{}]+)")


class Matcher(msgspec.Struct, frozen=True):
    """What one claim has to be. Made by `matcher`, which checks it.

    It does not look at who signed the claims, nor at whether they are still good.
    """

    # Its name, or a JSON Pointer to it.
    claim: str
    values: tuple[Scalar, ...]

    # Each of the values, or any of them?
    all: bool = False

    def matches(self, claims: Claims) -> bool:
        """Do the claims say so? A claim that is missing matches nothing."""
        said = list(_scalars(_found(claims, self.claim)))
        wanted = (any(self._is(value, one) for one in said) for value in self.values)
        return all(wanted) if self.all else any(wanted)

    def _is(self, wanted: Scalar, said: Scalar) -> bool:
        """Is a value of the claim the one that is wanted? `True` is not 1, and 1 is not `"1"`."""
        # In Python `True == 1` holds.
        if type(wanted) is not type(said):
            return False
        if wanted == said:
            return True

        # Not the same, so only a pattern could still match, and only `sub` has patterns.
        if self.claim != "sub" or not isinstance(wanted, str) or not isinstance(said, str):
            return False
        return wanted.endswith(_BELOW) and _is_below(said, wanted[:-1])

    def __str__(self) -> str:
        """For people: `groups is any of finance`."""
        values = ", ".join(map(str, self.values))
        if len(self.values) == 1:
            return f"{self.claim} is {values}"
        how = "each of" if self.all else "any of"
        return f"{self.claim} is {how} {values}"


def matcher(claim: str, wanted: Any) -> Matcher:
    """Read what a policy wants of a claim.

    Does not check that any provider has such a claim: who misses one is refused. Raises ValueError
    for what would match nobody or too many, and TypeError for what is no value.
    """
    names.exact_str(claim, "a claim")
    if not claim or claim == "/":
        raise ValueError("a claim must be a name, or a JSON Pointer like /a/b")

    needs_all = isinstance(wanted, dict)
    if needs_all:
        if wanted.keys() != {"all"}:
            raise ValueError(f"{claim}: write a value, a list, or {{ all = […] }}")
        wanted = wanted["all"]

    values = wanted if isinstance(wanted, list) else [wanted]
    if not values:
        raise ValueError(f"{claim}: an empty list matches nobody")

    for value in values:
        # Check the exact type, because a float or date could be compared in several ways.
        if type(value) not in (str, int, bool):
            raise TypeError(f"{claim}: a value must be a text, an integer or a boolean")
        if isinstance(value, str) and "*" in value:
            _check_star(claim, value)

    return Matcher(
        claim=claim,
        values=tuple(values),
        all=needs_all,
    )


def _check_star(claim: str, value: str) -> None:
    """Raise ValueError for a `*` that stands elsewhere than it means something.

    Elsewhere it would be compared as a character, and whoever wrote it meant a pattern.
    """
    is_pattern = claim == "sub" and value.endswith(_BELOW) and value.count("*") == 1
    if not is_pattern:
        raise ValueError(
            f"{claim}: only sub may have a `*`, and only as /* or :* at its end",
        )

    # `spiffe:*` would be anybody's, and so would `spiffe://*`.
    above = value[:-2]
    names_something = any(separator in above for separator in "/:")
    if not names_something or above.endswith("/"):
        raise ValueError(
            f"{claim}: {value} is too wide: write more before the `*`",
        )


def _is_below(value: str, prefix: str) -> bool:
    """Has the value, behind a prefix that ends in a separator, segments that are not empty?

    An empty one is refused: `a//b` is not below `a/` for everybody who reads it.
    """
    return value.startswith(prefix) and all(value[len(prefix) :].split(prefix[-1]))


def path_of(claim: str) -> list[str]:
    """The names that lead to a claim: its own alone, or those of a JSON Pointer."""
    if not claim.startswith("/"):
        return [claim]
    # In this order, so that `~01` is read as `~1` (RFC 6901, 4).
    return [part.replace("~1", "/").replace("~0", "~") for part in claim[1:].split("/")]


def _found(claims: Claims, claim: str) -> Any:
    """The value of a claim, by its name or by a JSON Pointer through objects. None if missing.

    A pointer does not lead into lists: which place somebody has in one says nothing.
    """
    found: Any = claims
    for name in path_of(claim):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _scalars(said: Any) -> Iterator[Scalar]:
    """What a claim says: itself, or each item of its list. Objects say nothing here."""
    for item in said if isinstance(said, list) else [said]:
        if type(item) in (str, int, bool):
            yield item


# --- the subject's name ---------------------------------------------------------------------------


class Template(msgspec.Struct, frozen=True):
    """How the claims of a provider become a subject: literals, and claims in braces.

    Made by `template`, which checks it. That no two providers make one subject is for the policy.
    """

    # The text that the policy has.
    text: str

    # The literal that it begins with, which no other provider's begins with.
    prefix: str

    # Literal, claim, and whether the claim is digested. The last literal has no claim.
    parts: tuple[tuple[str, str, bool], ...]

    def subject(self, issuer: str, claims: Claims) -> str:
        """The subject. Raises ValueError where the claims give no name for it.

        `issuer` goes into a digest, so that two issuers' equal values are two subjects.
        """
        made = ""
        for number, (literal, claim, digested) in enumerate(self.parts):
            made += literal
            # The last literal.
            if not claim:
                continue

            value = _text_of(claims, claim)
            if digested:
                made += _digest_of(issuer, value)
                continue
            self._check_ends(number, claim, value)
            made += value

        try:
            return names.name(made, "subject")
        except ValueError as error:
            raise ValueError(
                f"{error}; write {{sub#}} in the policy for a digest instead",
            ) from None

    def _check_ends(self, number: int, claim: str, value: str) -> None:
        """Raise ValueError for a value with the character that the literal behind it begins with.

        By `a:{one}/{two}` the values `x/y`, `z` and `x`, `y/z` would be one subject.
        """
        is_last = number + 1 == len(self.parts)
        if is_last:
            return
        following, _, _ = self.parts[number + 1]
        end = following[0]
        if end in value:
            raise ValueError(
                f"{claim} contains {end!r}, which separates the parts of {self.text!r}: write "
                f"{{{claim}#}}"
            )


def _digest_of(issuer: str, value: str) -> str:
    """What stands for a value. 16 bytes of it: nobody finds a second value for one of them."""
    return b64encode(primitives.sha256(f"{issuer}\0{value}".encode())[:16])


def _text_of(claims: Claims, claim: str) -> str:
    """The claim as text. Raises ValueError if it is missing, or is none.

    A boolean is none, though Python counts it among the integers.
    """
    value = _found(claims, claim)
    if type(value) is int:
        return str(value)
    if type(value) is str and value:
        return value
    raise ValueError(
        f"the assertion has no {shown(claim)} to name the subject by",
    )


def template(text: str) -> Template:
    """Read a template.

    Raises ValueError for one that is not to be read, and for one by which several people would be
    one subject, or one could become another.
    """
    parts, last = _parts(text)
    if not parts:
        raise ValueError(
            f"subject {text!r}: all would be one; write a claim, as in acme:{{sub}}",
        )

    prefix, _, _ = parts[0]
    if not prefix:
        raise ValueError(
            f"subject {text!r}: it begins with a literal, as in acme:{{sub}}",
        )
    names.name(prefix, "subject")

    if last:
        parts.append((last, "", False))
    return Template(
        text=text,
        prefix=prefix,
        parts=tuple(parts),
    )


def _parts(text: str) -> tuple[list[tuple[str, str, bool]], str]:
    """The claims of a template, each with the literal before it, and the literal that is left.

    Raises ValueError.
    """
    parts: list[tuple[str, str, bool]] = []
    literal = ""
    at = 0
    for match in _PARTS.finditer(text):
        # A gap is a brace without its other one, or with nothing in it.
        if match.start() != at:
            break
        at = match.end()

        claim, digested, plain = match.groups()
        if plain is not None:
            literal = plain
            continue
        if parts and not literal:
            raise ValueError(f"subject {text!r}: write a literal between two claims")
        if is_reassigned(claim):
            raise ValueError(
                f"subject {text!r}: {claim} can be given to somebody else later; write {{sub}}"
            )
        parts.append((literal, claim, bool(digested)))
        literal = ""

    if at != len(text):
        raise ValueError(
            f"subject {text!r}: braces hold the name of a claim, as in acme:{{sub}}",
        )
    return parts, literal
