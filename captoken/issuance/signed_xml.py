"""Signed XML, read strictly and checked with keys.

    <Assertion ID="_7"> … <Signature> SignedInfo SignatureValue KeyInfo </Signature> … </Assertion>

XML Signature 1.1, with the two transforms that assertions have: enveloped, and Exclusive XML
Canonicalization 1.0.

1. What two readers could read differently is refused before a parser sees it: a DTD, comments,
   CDATA, processing instructions.
2. The document is what was signed. It has one signature, a child of the root, whose one reference
   is the root's own ID. Nothing is ever looked up by an ID.
3. What is used is what was signed. The digest is over canonical bytes. These bytes are read again,
   and only that reading is returned. The same applies to SignedInfo, which the signature covers.
4. The caller provides the keys. The keys in a message (KeyInfo) are ignored.

This file uses no XML library. Python's own parser reads, and fifty lines here write the canonical
bytes that rule 1 leaves possible. A mistake in them makes a valid signature fail, but no invalid
one pass, because the result is read from the same bytes (rule 3). So a stranger's bytes meet no
larger library in a process that holds root keys.

minisaml is not used, for three reasons. It finds a signature anywhere, and so accepts a document
whose root is not what was signed. It accepts only RSA with SHA-256, and only with the certificate
in the message. And it returns neither ID nor Recipient nor session, so a second reader of the same
document would be needed. A wrapped assertion exploits the difference between two readers.

- `read_xml`: a document, as elements.
- `canonical`: the bytes of an element that digests and signatures cover.
- `opened_xml`: a signed document, up to the question whose key it is. Nothing is verified.
- `certificates`: the public keys of a text with certificates.
- `xml_holds`: whether a signature and the digest in it are valid.
"""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from xml.parsers.expat import ExpatError, ParserCreate

import msgspec

from captoken._format.encoding import own_words
from captoken._format.extras import extra
from captoken._format.spelling import shown
from captoken.issuance.jose import MAX_RSA, MIN_RSA, JoseError, Key, KeySet

# More than assertions have, and little enough to be read before anybody is known.
MAX_DEPTH = 16  # levels of elements
MAX_ELEMENTS = 512
MAX_PREFIXES = 32  # that mean something at a time
MAX_KEYS = 8  # certificates of one provider: each of them may be tried

_XML = "http://www.w3.org/XML/1998/namespace"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_DS = "http://www.w3.org/2000/09/xmldsig#"
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"

# Signatures that are taken, by what XML calls them: the name that a policy has for each, the type
# of key, and the hash. No SHA-1, and no MAC, which whoever checks could make as well.
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_SIGNATURES = {
    f"{_MORE}{name}": (name, kind, hash)
    for name, kind, hash in (
        ("rsa-sha256", "RSA", "SHA256"),
        ("rsa-sha384", "RSA", "SHA384"),
        ("rsa-sha512", "RSA", "SHA512"),
        ("ecdsa-sha256", "ECDSA", "SHA256"),
        ("ecdsa-sha384", "ECDSA", "SHA384"),
        ("ecdsa-sha512", "ECDSA", "SHA512"),
    )
}
XML_ALGORITHMS = tuple(name for name, _, _ in _SIGNATURES.values())

_DIGESTS = {
    "http://www.w3.org/2001/04/xmlenc#sha256": "SHA256",
    f"{_MORE}sha384": "SHA384",
    "http://www.w3.org/2001/04/xmlenc#sha512": "SHA512",
}

_NO_SPACES = str.maketrans("", "", " \t\r\n")

# The one that all certificates of a provider go by. A message names none that is believed.
CERTIFICATES = "certificates"


class XmlError(ValueError):
    """Not to be read, or of no use.

    For issuance alone: at the edges it becomes IssuanceError. Its message may be shown to whoever
    wrote the text.
    """


# --- elements -------------------------------------------------------------------------------------

# A namespace, and a name within it.
Name: TypeAlias = tuple[str, str]
SIGNATURE: Name = (_DS, "Signature")


class Attribute(NamedTuple):
    """An attribute. Declarations of namespaces are none."""

    # The prefix as it was written: canonical bytes keep it.
    prefix: str
    name: Name
    value: str


class Element(msgspec.Struct):
    """An element as it was read. Namespaces are resolved, and their declarations kept apart."""

    # The prefix as it was written, and what it means.
    prefix: str
    name: Name
    attributes: list[Attribute]

    # Each prefix that means something here; "" is the default.
    scope: Mapping[str, str]
    children: list[Element | str]

    def every(self) -> Iterator[Element]:
        """This element and all below it."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.every()

    def elements(self) -> list[Element]:
        """Its children. Raises XmlError if text stands between them."""
        for child in self.children:
            if isinstance(child, str) and child.strip(" \t\r\n"):
                raise XmlError(f"{shown(self.name[1])} has text, which is not for it")
        return [child for child in self.children if isinstance(child, Element)]

    def parts(self, namespace: str, names: Sequence[str], otherwise: str) -> list[Element]:
        """Its children, which have these names, in this order. Raises XmlError: `otherwise`."""
        found = self.elements()
        if [one.name for one in found] != [(namespace, name) for name in names]:
            raise XmlError(otherwise)
        return found

    def text(self) -> str:
        """Its text, all of it. Raises XmlError if it has children."""
        if any(isinstance(child, Element) for child in self.children):
            raise XmlError(f"{shown(self.name[1])} has more than text")
        return "".join(child for child in self.children if isinstance(child, str))

    def stated(self, *needed: str, may: Collection[str] = ()) -> dict[str, str]:
        """Its attributes without a namespace, and it has no others. Raises XmlError."""
        stated = {one.name[1]: one.value for one in self.attributes if not one.name[0]}
        for name in needed:
            if not stated.get(name):
                raise XmlError(f"{shown(self.name[1])} has no {name}")

        # Also of other namespaces: nobody should find anything there that is not read here.
        for one in self.attributes:
            namespace, local = one.name
            if namespace or local not in (*needed, *may):
                raise XmlError(f"{shown(self.name[1])} has {shown(local)}, which is not taken")
        return stated


# --- strict XML -----------------------------------------------------------------------------------

_declaration = re.compile(
    r"<\?xml version=([\"'])1\.0\1"
    r"(?: encoding=([\"'])(?:UTF-8|utf-8)\2)?"
    r"(?: standalone=([\"'])(?:yes|no)\3)?[ \t\r\n]*\?>[ \t\r\n]*"
).match


def read_xml(data: bytes) -> Element:
    """The root of the document that `data` spells, in UTF-8. Raises XmlError, whatever it is.

    Takes data of any length: callers bound it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise XmlError("it is no text in UTF-8") from None

    declared = _declaration(text)
    if declared is not None:
        text = text[declared.end() :]

    # The parser takes what has a zero in it for UTF-16, whatever it is told; and a mark of the
    # order of bytes is read over. Neither would be seen by what follows.
    if "\0" in text or not text.startswith("<"):
        raise XmlError("it does not begin as XML in UTF-8")

    # Elsewhere a `<` is written as an entity. So nothing that begins like this is anything else:
    # no DTD, and so no entities; and no text that is in two pieces for one reader, and lost for
    # another.
    if "<!" in text or "<?" in text:
        raise XmlError("it has a DTD, a comment, CDATA or a processing instruction")
    return _parsed(text)


def _parsed(text: str) -> Element:
    """The root of a document that nobody reads in two ways. Raises XmlError."""
    reader = _Reader()
    parser = ParserCreate("utf-8")
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(text.encode(), True)
    except ExpatError:
        raise XmlError("it is no XML") from None
    return reader.root


class _Reader:
    """What the parser tells becomes elements."""

    # The root, once the first element has begun.
    root: Element

    def __init__(self) -> None:
        # From the root down to the element that the parser is in.
        self._open: list[Element] = []
        self._count = 0

    def begin(self, tag: str, attributes: list[str]) -> None:
        """An element begins. Raises XmlError for names that mean nothing."""
        self._count += 1
        if len(self._open) == MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise XmlError("it is nested too deeply, or has too many parts")

        # They come as one list, in the order that they were written in.
        pairs = list(zip(attributes[::2], attributes[1::2], strict=True))
        scope = self._scope(pairs)
        prefix, name = _resolved(tag, scope, scope[""])
        found = [
            Attribute(*_resolved(key, scope, ""), value)
            for key, value in pairs
            if not _declares(key)
        ]

        # Two prefixes of one namespace: the parser does not see that these are the same.
        if len({one.name for one in found}) != len(found):
            raise XmlError("it has an attribute twice")

        element = Element(
            prefix=prefix,
            name=name,
            attributes=found,
            scope=scope,
            children=[],
        )
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _scope(self, pairs: list[tuple[str, str]]) -> Mapping[str, str]:
        """What prefixes mean from here on. Raises XmlError."""
        outer: Mapping[str, str] = {"": "", "xml": _XML}
        if self._open:
            outer = self._open[-1].scope
        declared = {key[6:]: uri for key, uri in pairs if _declares(key)}
        if any(key == "xmlns:" or key.count(":") > 1 for key, _ in pairs):
            raise XmlError("it has a name that is none")
        for prefix, uri in declared.items():
            # Nobody may give a prefix back, or say what these mean (Namespaces in XML 1.0, 3).
            gives_back = bool(prefix) and not uri
            is_reserved = prefix in ("xml", "xmlns") or uri in (_XML, _XMLNS)
            if gives_back or is_reserved:
                raise XmlError("it declares a namespace that cannot be")
        scope = {**outer, **declared} if declared else outer
        if len(scope) > MAX_PREFIXES:
            raise XmlError("it declares too many namespaces")
        return scope

    def end(self, tag: str) -> None:
        """An element ends: the parser has seen that it is the innermost."""
        self._open.pop()

    def text(self, data: str) -> None:
        """Text comes in pieces, and is one."""
        children = self._open[-1].children
        if children and isinstance(children[-1], str):
            data = children.pop() + data  # type: ignore[operator]
        children.append(data)


def _declares(key: str) -> bool:
    """Is it a declaration of a namespace, and no attribute?"""
    return key == "xmlns" or key.startswith("xmlns:")


def _resolved(tag: str, scope: Mapping[str, str], unprefixed: str) -> tuple[str, Name]:
    """The prefix of a name, and what it means. Raises XmlError."""
    prefix, colon, local = tag.rpartition(":")
    if not colon:
        return "", (unprefixed, local)
    if not prefix or not local or prefix not in scope:
        raise XmlError("it has a name whose prefix is not declared")
    return prefix, (scope[prefix], local)


# --- canonical bytes ------------------------------------------------------------------------------

# Exclusive XML Canonicalization 1.0, without comments, of documents as `read_xml` takes them.
_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"})
_IN_VALUE = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        '"': "&quot;",
        "\t": "&#x9;",
        "\n": "&#xA;",
        "\r": "&#xD;",
    }
)


def canonical(
    element: Element,
    inclusive: Collection[str] = (),
    without: Element | None = None,
) -> bytes:
    """The canonical bytes of an element, and of all below it but `without`.

    `inclusive` are prefixes whose declarations are written even where nothing uses them.
    """
    pieces: list[str] = []
    _write(element, {"": "", "xml": _XML}, frozenset(inclusive), without, pieces)
    return "".join(pieces).encode()


def _write(
    element: Element,
    written: Mapping[str, str],
    inclusive: frozenset[str],
    without: Element | None,
    pieces: list[str],
) -> None:
    """Append an element. `written` are the namespaces that stand declared around it."""
    used = {element.prefix} | {one.prefix for one in element.attributes if one.prefix}
    wanted = used | (inclusive & element.scope.keys())
    changed = {
        prefix: element.scope[prefix]
        for prefix in sorted(wanted)
        if written.get(prefix) != element.scope[prefix]
    }
    tag = _prefixed(element.prefix, element.name)
    pieces.append(f"<{tag}")

    # First the namespaces, by their prefixes; then the attributes, by what they mean.
    for prefix, uri in changed.items():
        key = f"xmlns:{prefix}" if prefix else "xmlns"
        pieces.append(f' {key}="{uri.translate(_IN_VALUE)}"')
    for prefix, name, value in sorted(element.attributes, key=lambda one: one.name):
        key = _prefixed(prefix, name)
        pieces.append(f' {key}="{value.translate(_IN_VALUE)}"')
    pieces.append(">")

    inner = {**written, **changed} if changed else written
    for child in element.children:
        if isinstance(child, str):
            pieces.append(child.translate(_IN_TEXT))
        elif child is not without:
            _write(child, inner, inclusive, without, pieces)
    pieces.append(f"</{tag}>")


def _prefixed(prefix: str, name: Name) -> str:
    """A name as it was written."""
    _, local = name
    return f"{prefix}:{local}" if prefix else local


# --- a signed document ----------------------------------------------------------------------------


class UnverifiedXml(msgspec.Struct, frozen=True):
    """A signed document, taken apart. Anybody may have written it: no signature was looked at."""

    # The root without its signature, read from `signed_content`.
    content: Element
    signed_content: bytes

    # What SignedInfo says, read from `signed`: the digest of the content, and by which hash.
    digest: bytes
    hash: str

    # The signature is over this, by an algorithm that a policy calls so.
    algorithm: str
    signature: bytes
    signed: bytes


def opened_xml(data: bytes) -> UnverifiedXml:
    """A document with a signature over its root. Raises XmlError.

    Whether it is signed is not looked at, nor what it says, beyond that.
    """
    root = read_xml(data)
    signature = _signature_of(root)
    signed_info, value = _parts_of_signature(signature)

    # From here on, what is looked at was read from the bytes that are signed.
    signed = canonical(signed_info)
    method, reference = _parts_of_info(read_xml(signed))
    inclusive, hash, digest = _reference(reference, root)
    signed_content = canonical(root, inclusive, signature)
    return UnverifiedXml(
        content=read_xml(signed_content),
        signed_content=signed_content,
        digest=digest,
        hash=hash,
        algorithm=method,
        signature=_binary(value),
        signed=signed,
    )


def _signature_of(root: Element) -> Element:
    """The one signature of the document, which is a child of its root. Raises XmlError.

    A second element of the root's name, or of its ID, could be taken for what is signed.
    """
    every = list(root.every())
    if sum(one.name == root.name for one in every) > 1:
        raise XmlError(f"it has a second {shown(root.name[1])}")

    # However it is written: readers differ in what they take for an ID.
    ids = [one.value for each in every for one in each.attributes if one.name[1].lower() == "id"]
    if len(set(ids)) != len(ids):
        raise XmlError("it has an ID twice")

    found = [one for one in every if one.name == SIGNATURE]
    if len(found) != 1:
        raise XmlError("it has no signature, or several")
    if not any(child is found[0] for child in root.children):
        raise XmlError("its signature is not one of its root")
    return found[0]


def _parts_of_signature(signature: Element) -> tuple[Element, Element]:
    """What is signed, and the signature. Raises XmlError."""
    signature.stated(may=("Id",))
    parts = signature.elements()
    names = [one.name for one in parts]
    if names not in (
        [(_DS, "SignedInfo"), (_DS, "SignatureValue")],
        [(_DS, "SignedInfo"), (_DS, "SignatureValue"), (_DS, "KeyInfo")],
    ):
        raise XmlError("its signature has not the parts that are taken")

    # It is not looked at. Nobody else should find anything there either.
    for info in parts[2:]:
        if any(one.name[0] != _DS for one in info.every()):
            raise XmlError("its KeyInfo has more than keys and certificates")
    return parts[0], parts[1]


def _parts_of_info(info: Element) -> tuple[str, Element]:
    """The algorithm of the signature, and what it refers to. Raises XmlError."""
    info.stated()
    form, method, reference = info.parts(
        _DS,
        ("CanonicalizationMethod", "SignatureMethod", "Reference"),
        "its signature is not over one reference",
    )
    if _algorithm(form) != _EXCLUSIVE:
        raise XmlError("its signature is not over what exclusive canonicalization gives")
    known = _SIGNATURES.get(_algorithm(method))
    if known is None:
        raise XmlError("the algorithm of its signature is not taken")
    return known[0], reference


def _reference(reference: Element, root: Element) -> tuple[list[str], str, bytes]:
    """The prefixes of its canonical form, the hash, and the digest. Raises XmlError."""
    # The root's own ID, or none: then nothing is equal to it.
    own = [f"#{one.value}" for one in root.attributes if one.name == ("", "ID")]
    if [reference.stated("URI")["URI"]] != own:
        raise XmlError("its signature is not over its root")

    transforms, method, value = reference.parts(
        _DS,
        ("Transforms", "DigestMethod", "DigestValue"),
        "its reference has not the parts that are taken",
    )
    transforms.stated()
    hash = _DIGESTS.get(_algorithm(method))
    if hash is None:
        raise XmlError("the algorithm of its digest is not taken")
    return _inclusive(transforms), hash, _binary(value)


def _inclusive(transforms: Element) -> list[str]:
    """The prefixes that the canonical form keeps. Raises XmlError for any other transform.

    The signature itself is left out, and the rest is made canonical: these two, in this order.
    """
    enveloped, form = transforms.parts(
        _DS, ("Transform", "Transform"), "it has not the two transforms that are taken"
    )
    lists = form.elements()
    named = (_algorithm(enveloped), form.stated("Algorithm")["Algorithm"])
    if named != (_ENVELOPED, _EXCLUSIVE):
        raise XmlError("it has a transform that is not taken")

    # The list of prefixes is the one parameter that is taken, and need not be there.
    if not lists:
        return []
    if len(lists) > 1 or lists[0].name != (_EXCLUSIVE, "InclusiveNamespaces"):
        raise XmlError("it has a transform that is not taken")
    prefixes = lists[0].stated(may=("PrefixList",)).get("PrefixList", "").split()
    if lists[0].elements():
        raise XmlError("it has a transform that is not taken")
    return ["" if prefix == "#default" else prefix for prefix in prefixes]


def _algorithm(element: Element) -> str:
    """The algorithm that an element names, without parameters. Raises XmlError."""
    if element.elements():
        raise XmlError(f"{shown(element.name[1])} has parameters, which are not taken")
    return element.stated("Algorithm")["Algorithm"]


def _binary(element: Element) -> bytes:
    """What an element spells in base64, with line breaks as the writer likes. Raises XmlError."""
    element.stated(may=("Id",))
    text = element.text().translate(_NO_SPACES)
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # of base64, and of characters
        raise XmlError(f"{shown(element.name[1])} is no base64") from None


# --- keys -----------------------------------------------------------------------------------------


def is_pem(text: str) -> bool:
    """Is it the text of certificates, and not where it is?"""
    return "-----BEGIN " in text


def certificates(data: bytes) -> KeySet:
    """The public keys of certificates in PEM, all as one key that goes by `CERTIFICATES`.

    A certificate pins a key here, and says no more: neither its dates nor who signed it are looked
    at. A weak key is refused, and the others stand. Raises JoseError.
    """
    with extra("saml"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.x509 import load_pem_x509_certificates

    if b"PRIVATE KEY" in data:
        raise JoseError("it has a private key: certificates alone are wanted")
    try:
        found = load_pem_x509_certificates(data)
    except ValueError:
        raise JoseError("no certificates in PEM") from None

    if len(found) > MAX_KEYS:
        raise JoseError(f"more than {MAX_KEYS} certificates")

    keys: list[tuple[str, Any]] = []
    refused: list[str] = []
    for number, certificate in enumerate(found, 1):
        try:
            public = certificate.public_key()
            keys.append((_kind_of(public), public))
        except (JoseError, UnsupportedAlgorithm, ValueError) as error:
            refused.append(f"certificate {number}: {own_words(error, 'its key cannot be read')}")
    if not keys:
        return KeySet(keys={}, refused=tuple(refused))

    kinds = {kind for kind, _ in keys}
    able = tuple(name for name, kind, _ in _SIGNATURES.values() if kind in kinds)
    key = Key(kid=CERTIFICATES, algorithms=able, raw=tuple(keys))
    return KeySet(keys={CERTIFICATES: key}, refused=tuple(refused))


def _kind_of(public: Any) -> str:
    """The type of a key. Raises JoseError for one that nobody should trust."""
    with extra("saml"):
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(public, rsa.RSAPublicKey):
        if not MIN_RSA <= public.key_size <= MAX_RSA:
            raise JoseError(f"an RSA key has {MIN_RSA} to {MAX_RSA} bits")
        return "RSA"

    curves = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, curves):
        return "ECDSA"
    raise JoseError("its key is neither RSA nor of a curve that is taken")


def xml_holds(unverified: UnverifiedXml, key: Key) -> bool:
    """Is the signature one of these keys', and the digest that of the content?

    Never raises for what a stranger wrote.
    """
    with extra("saml"):
        from cryptography.hazmat.primitives import hashes

    # Which of them is not said, so that each of that type is tried.
    _, kind, hash = _SIGNATURES[f"{_MORE}{unverified.algorithm}"]
    by = getattr(hashes, hash)()
    if not any(kind == own and _is_signed(unverified, public, by) for own, public in key.raw):
        return False

    # The signature is over the digest, and the digest is of what is handed on.
    digest = hashes.Hash(getattr(hashes, unverified.hash)())
    digest.update(unverified.signed_content)
    return hmac.compare_digest(digest.finalize(), unverified.digest)


def _is_signed(unverified: UnverifiedXml, public: Any, by: Any) -> bool:
    """Is the signature over SignedInfo this key's?"""
    with extra("saml"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    signature = unverified.signature
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, unverified.signed, padding.PKCS1v15(), by)
            return True

        # Two numbers, each as long as the curve's (XML Signature 1.1, 6.4.3).
        size = (public.key_size + 7) // 8
        if len(signature) != 2 * size:
            return False
        numbers = (int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
        public.verify(encode_dss_signature(*numbers), unverified.signed, ec.ECDSA(by))
    except InvalidSignature:
        return False
    return True
