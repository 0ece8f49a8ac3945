"""Key pairs: what is made, what may be imported, and EC2's fingerprints as ssh-keygen and openssl compute them."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from support import rows as make
from support.bare_cloud import OTHER, ROOT, UNKNOWN, BareCloud

from minicloud.cloud import keys
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
RSA_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA = RSA_PRIVATE.public_key()


def openssh(key: Any = ED25519) -> bytes:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def rfc4716(key: Any, headers: str = "") -> bytes:
    blob = openssh(key).split()[1].decode()
    lines = "\n".join(blob[start : start + 70] for start in range(0, len(blob), 70))
    return f"---- BEGIN SSH2 PUBLIC KEY ----\n{headers}{lines}\n---- END SSH2 PUBLIC KEY ----\n".encode()


def pem(key: Any) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def der(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def run(*argv: str, input: bytes | None = None) -> bytes:
    return subprocess.run(argv, input=input, capture_output=True, check=True, timeout=120).stdout


def create(bare: BareCloud, name: str = "mine", key_type: str = "ed25519", tags: Any = None) -> keys.KeyPairView:
    return keys.create_key_pair(bare.cloud, ROOT, name, key_type, tags or {})


def import_(bare: BareCloud, name: str = "mine", material: bytes | None = None, tags: Any = None) -> keys.KeyPairView:
    return keys.import_key_pair(bare.cloud, ROOT, name, openssh() if material is None else material, tags or {})


# Made here


def test_an_ed25519_key_is_made(empty: BareCloud) -> None:
    with empty.one_transaction():
        view = create(empty)
    assert view.private_key is not None
    private = load_ssh_private_key(view.private_key.encode(), None)
    assert view.key_pair.public_key.split()[:2] == openssh(private.public_key()).decode().split()
    assert view.key_pair.public_key.split()[2] == "mine"
    assert (view.key_pair.key_type, view.key_pair.account_id, view.key_pair.region) == (
        "ed25519", ROOT.account_id, ROOT.region,
    )  # fmt: skip


def test_an_rsa_key_is_made(empty: BareCloud) -> None:
    view = create(empty, key_type="rsa")
    assert view.private_key is not None
    assert view.private_key.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    private = load_pem_private_key(view.private_key.encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    assert private.key_size == 2048
    assert view.key_pair.public_key == f"{openssh(private.public_key()).decode()} mine"


@pytest.mark.parametrize("key_type", ["dsa", "RSA", ""])
def test_other_types_are_refused(empty: BareCloud, key_type: str) -> None:
    with empty.refuses("InvalidParameterValue", "KeyType"):
        create(empty, key_type=key_type)


def test_the_private_key_is_kept_nowhere(empty: BareCloud) -> None:
    view = create(empty)
    assert view.private_key is not None
    secret = view.private_key.splitlines()[3]
    assert secret not in repr(empty.dump())
    assert keys.describe_key_pairs(empty.cloud, ROOT, [], [])[0].private_key is None


@needs_openssl
def test_the_fingerprint_of_an_rsa_key_made_here_is_openssls(empty: BareCloud) -> None:
    view = create(empty, key_type="rsa")
    assert view.private_key is not None
    as_der = run(
        "openssl", "pkcs8", "-inform", "PEM", "-outform", "DER", "-topk8", "-nocrypt", input=view.private_key.encode()
    )
    digest = run("openssl", "sha1", "-c", input=as_der).decode().split("= ")[-1].strip()
    assert view.key_pair.fingerprint == digest


@needs_openssl
def test_the_fingerprint_of_an_imported_rsa_key_is_openssls(empty: BareCloud) -> None:
    view = import_(empty, material=openssh(RSA))
    private = RSA_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    as_der = run("openssl", "rsa", "-pubout", "-outform", "DER", input=private)
    digest = run("openssl", "md5", "-c", input=as_der).decode().split("= ")[-1].strip()
    assert (view.key_pair.key_type, view.key_pair.fingerprint) == ("rsa", digest)


@needs_ssh_keygen
@pytest.mark.parametrize("imported", [False, True])
def test_the_fingerprint_of_an_ed25519_key_is_ssh_keygens(empty: BareCloud, tmp_path: Path, imported: bool) -> None:
    view = import_(empty) if imported else create(empty)
    file = tmp_path / "key.pub"
    file.write_text(view.key_pair.public_key)
    shown = run("ssh-keygen", "-l", "-E", "sha256", "-f", str(file)).decode().split()[1]
    # EC2 shows the padding that ssh-keygen leaves out.
    assert "SHA256:" + view.key_pair.fingerprint.rstrip("=") == shown
    assert len(base64.b64decode(view.key_pair.fingerprint, validate=True)) == 32


# Imported


@pytest.mark.parametrize("key", [ED25519, RSA], ids=["ed25519", "rsa"])
@pytest.mark.parametrize(
    "form",
    [
        openssh,
        lambda key: openssh(key) + b" me@home\n",
        lambda key: b"\n  " + openssh(key) + b"  \r\n",
        rfc4716,
        lambda key: rfc4716(key, "Comment: 'a key'\n"),
        lambda key: rfc4716(key, "Subject: me\nComment: 'a long \\\ncomment: with base64 AAAA'\n"),
        lambda key: rfc4716(key).replace(b"\n", b"\r\n"),
        pem,
        der,
        lambda key: base64.b64encode(der(key)),
    ],
    ids=["openssh", "comment", "blanks", "rfc4716", "header", "continued", "crlf", "pem", "der", "base64"],
)
def test_a_public_key_is_taken_in_every_form(key: Any, form: Any) -> None:
    assert openssh(keys.parse_public_key(form(key))) == openssh(key)


@needs_ssh_keygen
@pytest.mark.parametrize("form", ["RFC4716", "PKCS8", "PEM"])
def test_what_ssh_keygen_exports_is_taken(tmp_path: Path, form: str) -> None:
    file = tmp_path / "key.pub"
    file.write_bytes(openssh(RSA) + b" me@home\n")
    assert openssh(keys.parse_public_key(run("ssh-keygen", "-e", "-m", form, "-f", str(file)))) == openssh(RSA)


def test_the_comment_becomes_the_key_pairs_name(empty: BareCloud) -> None:
    view = import_(empty, name="work", material=openssh() + b' me@home command="rm -rf /"')
    assert view.key_pair.public_key == f"{openssh().decode()} work"


@pytest.mark.parametrize(
    "material",
    [
        b"",
        b"   ",
        b"hello",
        b"\x00\xff" * 50,
        b"ssh-ed25519",
        b"ssh-ed25519 AAAA",
        b"ssh-ed25519 !!!!",
        openssh()[:-10],
        b"ssh-rsa " + openssh().split()[1],
        b"no-pty " + openssh(),
        b"x" * (32 * 1024 + 1),
        rfc4716(ED25519)[:60],
        b"---- BEGIN SSH2 PUBLIC KEY ----",
        b"---- BEGIN SSH2 PUBLIC KEY ----\n\n---- END SSH2 PUBLIC KEY ----",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        b"\x30\x03\x02\x01\x00",
        RSA_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        RSA_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        openssh(ec.generate_private_key(ec.SECP256R1()).public_key()),
        pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        # A DSA key's beginning.
        b"ssh-dss AAAAB3NzaC1kc3MAAACBAA==",
    ],
    ids=lambda material: repr(material[:24]),
)
def test_bad_material_is_refused(empty: BareCloud, material: bytes) -> None:
    with empty.refuses("InvalidKey.Format"):
        import_(empty, material=material)


# The blob of a DSA key: p, q, g and y of plausible lengths.
DSA = base64.b64encode(
    b"".join(
        len(part).to_bytes(4, "big") + part for part in (b"ssh-dss", *(b"\x7f" * size for size in (128, 20, 127, 126)))
    )
)


@needs_ssh_keygen
def test_certificates_are_refused(empty: BareCloud, tmp_path: Path) -> None:
    for name in ("authority", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    run("ssh-keygen", "-q", "-s", str(tmp_path / "authority"), "-I", "me", "-n", "me", str(tmp_path / "user.pub"))
    with empty.refuses("InvalidKey.Format"):
        import_(empty, material=(tmp_path / "user-cert.pub").read_bytes())


@pytest.mark.parametrize("form", [b"ssh-dss " + DSA, b"---- BEGIN SSH2 PUBLIC KEY ----\n" + DSA + b"\n----"])
def test_dsa_keys_are_refused(empty: BareCloud, form: bytes) -> None:
    with empty.refuses("InvalidKey.Format", "Key is not in valid OpenSSH public key format"):
        import_(empty, material=form)


@pytest.mark.parametrize("bits", [1536, 2560])
def test_rsa_keys_of_other_lengths_are_refused(empty: BareCloud, bits: int) -> None:
    odd = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key()
    with empty.refuses("InvalidKey.Format", "1024, 2048, 3072 or 4096 bits"):
        import_(empty, material=openssh(odd))


PREFIXES = [
    b"",
    b"ssh-rsa ",
    b"ssh-ed25519 ",
    b"-----BEGIN PUBLIC KEY-----\n",
    b"\x30",
    b"---- BEGIN SSH2 PUBLIC KEY ----\n",
]


@given(st.sampled_from(PREFIXES), st.binary(max_size=200), st.booleans())
def test_no_material_is_more_than_refused(prefix: bytes, rest: bytes, encode: bool) -> None:
    with pytest.raises(ApiError):
        keys.parse_public_key(prefix + (base64.b64encode(rest) if encode else rest))


# Names, tags, finding, deleting


@pytest.mark.parametrize("name", ["a", "x" * 255, "my key", "a/b:c+d=e@f"])
def test_names(empty: BareCloud, name: str) -> None:
    assert import_(empty, name).key_pair.name == name


@pytest.mark.parametrize("name", ["", " a", "a ", "x" * 256, "a\nb", "a\tb", "ä", "a\x00"])
@pytest.mark.parametrize("made", [create, import_])
def test_bad_names_are_refused(empty: BareCloud, name: str, made: Any) -> None:
    with empty.refuses("InvalidParameterValue", "KeyName"):
        made(empty, name)


@pytest.mark.parametrize("made", [create, import_])
def test_a_name_is_given_once(empty: BareCloud, made: Any) -> None:
    made(empty)
    with empty.refuses("InvalidKeyPair.Duplicate", "The keypair 'mine' already exists."):
        made(empty)


def test_names_are_of_an_account_and_a_region(empty: BareCloud) -> None:
    for caller in (ROOT, OTHER, Caller(ROOT.account_id, "lab-2")):
        keys.import_key_pair(empty.cloud, caller, "mine", openssh(), {})
    assert [len(keys.describe_key_pairs(empty.cloud, one, [], [])) for one in (ROOT, OTHER)] == [1, 1]


@pytest.mark.parametrize("made", [create, import_])
def test_tags_are_for_key_pairs(empty: BareCloud, made: Any) -> None:
    view = made(empty, tags={"key-pair": {"Name": "x"}})
    assert view.tags == empty.tags(view.key_pair.id) == {"Name": "x"}
    with empty.refuses("InvalidParameterValue", "'instance' is not a valid taggable resource type"):
        made(empty, "other", tags={"instance": {"Name": "x"}})


def test_key_pairs_are_found_by_name_and_by_id(empty: BareCloud) -> None:
    ids = {name: import_(empty, name, tags={"key-pair": {"n": name}}).key_pair.id for name in "cab"}

    def found(names: list[str], key_pair_ids: list[str]) -> list[str]:
        with empty.one_transaction():
            views = keys.describe_key_pairs(empty.cloud, ROOT, names, key_pair_ids)
        assert all(view.tags == {"n": view.key_pair.name} for view in views)
        return [view.key_pair.name for view in views]

    assert found([], []) == ["a", "b", "c"]
    assert found(["b", "a", "b"], []) == ["a", "b"]
    assert found(["b"], [ids["c"], ids["b"]]) == ["b", "c"]


@pytest.mark.parametrize(
    ("names", "key_pair_ids", "message"),
    [
        (["nope"], [], "The key pair 'nope' does not exist"),
        (["nope", "mine", "none"], [], "The key pairs 'nope, none' do not exist"),
        ([], [f"key-{UNKNOWN}"], f"The key pair 'key-{UNKNOWN}' does not exist"),
        ([], ["mine"], "The key pair 'mine' does not exist"),
    ],
)
def test_unknown_key_pairs_are_named(empty: BareCloud, names: list[str], key_pair_ids: list[str], message: str) -> None:
    import_(empty)
    with empty.refuses("InvalidKeyPair.NotFound", message):
        keys.describe_key_pairs(empty.cloud, ROOT, names, key_pair_ids)


def test_no_more_key_pairs_are_named_than_a_request_may(empty: BareCloud) -> None:
    names = [f"k{number}" for number in range(1000)]
    with empty.refuses("InvalidParameterValue", "At most 1000"):
        keys.describe_key_pairs(empty.cloud, ROOT, names, [f"key-{UNKNOWN}"])


@pytest.mark.parametrize("by_id", [False, True])
def test_a_deleted_key_pair_leaves_nothing(empty: BareCloud, by_id: bool) -> None:
    before = empty.dump()
    made = import_(empty, tags={"key-pair": {"Name": "x"}}).key_pair
    name, key_pair_id = (None, made.id) if by_id else (made.name, None)
    with empty.one_transaction():
        assert keys.delete_key_pair(empty.cloud, ROOT, name, key_pair_id) == made.id
    assert empty.dump() == before
    # Again is fine.
    assert keys.delete_key_pair(empty.cloud, ROOT, name, key_pair_id) is None


def test_another_accounts_key_pair_cannot_be_deleted(empty: BareCloud) -> None:
    made = import_(empty).key_pair
    with empty.unchanged():
        assert keys.delete_key_pair(empty.cloud, OTHER, "mine", None) is None
        assert keys.delete_key_pair(empty.cloud, OTHER, None, made.id) is None
        assert keys.delete_key_pair(empty.cloud, ROOT, None, make.number("key", 99)) is None


def test_exactly_one_of_name_and_id(empty: BareCloud) -> None:
    with empty.refuses("MissingParameter"):
        keys.delete_key_pair(empty.cloud, ROOT, None, None)
    with empty.refuses("InvalidParameterCombination"):
        keys.delete_key_pair(empty.cloud, ROOT, "mine", "key-1")
