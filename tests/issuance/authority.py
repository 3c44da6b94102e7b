"""Authorities of trust domains, and the certificates that they sign: X.509-SVIDs, and what only looks like one."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BITS = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")


def usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{bit: bit in bits for bit in BITS}, encipher_only=False, decipher_only=False)


class Shown:
    """A certificate with its key, and the certificates between it and an authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, between: Sequence[x509.Certificate] = ()) -> None:
        self.certificate, self.key, self.between = certificate, key, tuple(between)

    @property
    def chain(self) -> list[bytes]:
        return [one.public_bytes(Encoding.DER) for one in (self.certificate, *self.between)]

    @property
    def pem(self) -> list[str]:
        """As the TLS extension of ASGI has them."""
        return [one.public_bytes(Encoding.PEM).decode() for one in (self.certificate, *self.between)]

    def headers(self) -> dict[str, str]:
        """As a proxy says it (RFC 9440)."""
        own, *between = (f":{base64.b64encode(one).decode()}:" for one in self.chain)
        return {"client-cert": own} | ({"client-cert-chain": ", ".join(between)} if between else {})

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Files of the certificates, and of the key."""
        certificates, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificates.write_text("".join(self.pem))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificates, key


class Authority:
    """One that signs for a trust domain. Below another one, it is an intermediate authority."""

    def __init__(self, name: str = "acme.example", now: int = 1_764_061_200, above: Authority | None = None) -> None:
        self.now = datetime.fromtimestamp(now, UTC)
        self.above = above
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(
            self.name,
            self.key,
            [x509.UniformResourceIdentifier(f"spiffe://{name}")],
            by=above or self,
            is_authority=True,
            bits=("key_cert_sign", "crl_sign"),
            ends=3600 * 24,
        )

    def svid(self, *uris: str, **how: Any) -> Shown:
        """The certificate of a workload, as SPIRE writes it (pkg/server/credtemplate). `how` is put over what is right."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(one) for one in uris]
        names += [x509.DNSName(one) for one in how.pop("dns", ())]
        subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")])
        made = self._signed(subject, key, names, by=self, is_svid=True, **how)
        return Shown(made, key, () if self.above is None else (self.certificate,))

    def server(self, address: str) -> Shown:
        """The certificate of a server at an IP address."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Shown(self._signed(self.name, key, [x509.IPAddress(ip_address(address))], by=self, is_svid=True), key)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        *,
        by: Authority,
        is_authority: bool = False,
        is_svid: bool = False,
        bits: tuple[str, ...] | None = ("digital_signature", "key_encipherment", "key_agreement"),
        purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
        begins: int = -10,
        ends: int = 3600,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + timedelta(seconds=begins))
            .not_valid_after(self.now + timedelta(seconds=ends))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False)
        )
        if bits is not None:
            builder = builder.add_extension(usage(*bits), critical=True)
        if is_svid and purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(by.key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def bundle(self, **members: Any) -> bytes:
        """A SPIFFE bundle: its certificate, beside a key for JWT-SVIDs."""
        own = {"use": "x509-svid", "kty": "EC", "crv": "P-256", "x5c": [base64.b64encode(self.der).decode()], **members}
        return json.dumps({"keys": [own, {"use": "jwt-svid", "kty": "EC", "kid": "a"}], "spiffe_sequence": 1}).encode()
