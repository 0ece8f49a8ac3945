"""The endpoint's certificate: loaded from the operator's two files, checked, and loaded anew without a restart.

Owns the server's SSLContext (TLS 1.2 and up) and the fingerprint by which hosts know the certificate. Refuses clients'
certificates, and to make any of its own. Built by daemon.py, served by listen.py; `minicloud init` asks it whether
clients need the certificate as their CA bundle.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from minicloud.config import Config
from minicloud.errors import ConfigError

log = logging.getLogger(__name__)


class ServerTls:
    """The certificate in use. `context` stays the same object; connections that come after a reload get the new one."""

    def __init__(self, certificate_path: str, key_path: str, config_path: str) -> None:
        """Load both files, PEM. Raises ConfigError that says which of them is not what it should be, and how."""
        self._certificate_path = certificate_path
        self._key_path = key_path
        self._config_path = config_path
        leaf = self._check()
        self.context = self._current = self._load()
        # A context that has loaded two certificates offers either, by what the client likes: so each has its own.
        self.context.sni_callback = self._choose
        self._take(leaf)

    @property
    def certificate_sha256(self) -> str:
        """The SHA-256 digest, in hex, of the certificate in DER: what a host compares with what it is shown."""
        return self._certificate_sha256

    @property
    def is_self_signed(self) -> bool:
        """Whether nobody but the certificate itself vouches for it, so that clients must be given it."""
        return self._is_self_signed

    def reload(self) -> None:
        """Load the files anew for connections to come. What cannot be used is logged, and the old certificate stays."""
        try:
            leaf = self._check()
            self._current = self._load()
        except ConfigError as error:
            log.error("the endpoint keeps the certificate it has: %s", error)
            return
        self._take(leaf)
        log.info("the endpoint has a new certificate, SHA-256 %s", self.certificate_sha256)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Give a connection that begins the certificate of today. OpenSSL asks also where the client names nobody."""
        connection.context = self._current

    def _take(self, leaf: x509.Certificate) -> None:
        self._certificate_sha256 = leaf.fingerprint(hashes.SHA256()).hex()
        self._is_self_signed = leaf.issuer == leaf.subject

    def _check(self) -> x509.Certificate:
        """Return the leaf, which comes first in its file. OpenSSL's own errors would not say which file is meant."""
        pem = self._read("tls_certificate", self._certificate_path)
        try:
            leaf = x509.load_pem_x509_certificates(pem)[0]
            public_key = leaf.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise self._refusal(
                "tls_certificate", f"{self._certificate_path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
            ) from error
        pem = self._read("tls_key", self._key_path)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError as error:
            raise self._refusal(
                "tls_key", f"{self._key_path} is encrypted: the daemon has nobody to ask for its password"
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise self._refusal(
                "tls_key", f"{self._key_path} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
            ) from error
        if _spki(key.public_key()) != _spki(public_key):
            raise self._refusal(
                "tls_key",
                f"{self._key_path} is not the key of the first certificate in {self._certificate_path}, whose subject "
                f"is {leaf.subject.rfc4514_string()!r}",
            )
        return leaf

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate_path, self._key_path)
        except (OSError, ValueError) as error:
            raise self._refusal("tls_certificate", f"{self._certificate_path} cannot be served: {error}") from error
        return context

    def _read(self, key: str, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise self._refusal(key, f"{path} cannot be read: {error.strerror}") from error

    def _refusal(self, key: str, why: str) -> ConfigError:
        return ConfigError(f"{self._config_path}: {key}: {why}")


def load_tls(config: Config) -> ServerTls | None:
    """Return the configured certificate, None where the endpoint speaks plain HTTP. Raises ConfigError."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    return ServerTls(config.tls_certificate, config.tls_key, config.path)


def _spki(key: object) -> bytes:
    public_bytes = getattr(key, "public_bytes")  # noqa: B009 - the union of key types has no common base
    encoded: bytes = public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded
