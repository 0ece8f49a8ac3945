"""tls.py: which files the endpoint can be served with, and what is said of the others."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from support.certificates import make_key, write_certificate, write_key

from minicloud.config import Config
from minicloud.errors import ConfigError
from minicloud.tls import ServerTls, load_tls


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    key = make_key()
    write_certificate(tmp_path / "certificate.pem", key)
    write_key(tmp_path / "key.pem", key)
    return tmp_path / "certificate.pem", tmp_path / "key.pem"


def load(files: tuple[Path, Path]) -> ServerTls:
    return ServerTls(str(files[0]), str(files[1]), "/etc/minicloud/minicloud.yaml")


def test_no_settings_mean_plain_http(files: tuple[Path, Path]) -> None:
    assert load_tls(Config()) is None
    assert load_tls(Config(tls_certificate=str(files[0]), tls_key=str(files[1]))) is not None


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_the_fingerprint_is_of_the_first_certificate(tmp_path: Path, kind: str) -> None:
    key, authority = make_key(kind), make_key()
    leaf = write_certificate(tmp_path / "leaf.pem", key, issuer="authority")
    write_certificate(tmp_path / "authority.pem", authority, "authority")
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "leaf.pem").read_bytes() + (tmp_path / "authority.pem").read_bytes())
    write_key(tmp_path / "key.pem", key)
    tls = load((chain, tmp_path / "key.pem"))
    assert tls.certificate_sha256 == hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    assert not tls.is_self_signed


def test_a_certificate_that_vouches_for_itself_is_known_as_such(files: tuple[Path, Path]) -> None:
    assert load(files).is_self_signed


def gone(certificate: Path, key: Path) -> None:
    certificate.unlink()


def no_key(certificate: Path, key: Path) -> None:
    key.unlink()


def no_certificate_in_it(certificate: Path, key: Path) -> None:
    certificate.write_text("hello")


def a_damaged_certificate(certificate: Path, key: Path) -> None:
    lines = certificate.read_text().splitlines(keepends=True)
    certificate.write_text("".join([lines[0], lines[1], lines[-1]]))


def a_certificate_for_a_key(certificate: Path, key: Path) -> None:
    key.write_bytes(certificate.read_bytes())


def an_encrypted_key(certificate: Path, key: Path) -> None:
    made = make_key()
    write_certificate(certificate, made)
    write_key(key, made, b"secret")


def anothers_key(certificate: Path, key: Path) -> None:
    write_key(key, make_key())


def a_folder(certificate: Path, key: Path) -> None:
    key.unlink()
    key.mkdir()


MISTAKES = [
    (gone, "tls_certificate: .*certificate.pem cannot be read: No such file or directory"),
    (no_key, "tls_key: .*key.pem cannot be read: No such file or directory"),
    (no_certificate_in_it, "tls_certificate: .*certificate.pem holds no certificate in PEM"),
    (a_damaged_certificate, "tls_certificate: .*certificate.pem holds no certificate in PEM"),
    (a_certificate_for_a_key, "tls_key: .*key.pem holds no private key in PEM"),
    (an_encrypted_key, "tls_key: .*key.pem is encrypted: the daemon has nobody to ask"),
    (anothers_key, "tls_key: .*key.pem is not the key of the first certificate in .*, whose subject is 'CN=minicloud'"),
    (a_folder, "tls_key: .*key.pem cannot be read: Is a directory"),
]


@pytest.mark.parametrize(("spoil", "said"), MISTAKES, ids=[spoil.__name__ for spoil, _ in MISTAKES])
def test_files_that_cannot_be_served_are_named(
    files: tuple[Path, Path], spoil: Callable[[Path, Path], None], said: str
) -> None:
    spoil(*files)
    with pytest.raises(ConfigError, match=said) as caught:
        load(files)
    assert str(caught.value).startswith("/etc/minicloud/minicloud.yaml: ")


@pytest.mark.parametrize("spoil", [spoil for spoil, _ in MISTAKES])
def test_a_reload_of_such_files_changes_nothing(
    files: tuple[Path, Path], spoil: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    tls = load(files)
    before = tls.certificate_sha256
    spoil(*files)
    with caplog.at_level(logging.ERROR):
        tls.reload()
    assert tls.certificate_sha256 == before
    assert "the endpoint keeps the certificate it has" in caplog.text
