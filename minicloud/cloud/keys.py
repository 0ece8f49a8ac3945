"""Key pairs: made or imported, listed, deleted. A private key leaves here once, in CreateKeyPair's answer, and is kept
nowhere.

Owns the accepted forms of public keys and EC2's fingerprints (EC2 user guide, "Create a key pair": SHA-1 of the private
key in DER for RSA made here, MD5 of the public key in DER for RSA imported, SHA-256 of OpenSSH's form for ED25519).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
    load_ssh_public_key,
)

from minicloud import ids
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import KEY_PAIRS, MAX_IDS, check_ids, require, too_many
from minicloud.cloud.tags import TagSpecifications, check_tag_specifications
from minicloud.errors import ApiError
from minicloud.model.resources import KeyPair
from minicloud.store.filters.key_pairs import KEY_PAIRS as KEY_PAIR_FILTERS
from minicloud.store.search import EVERYTHING, Asked
from minicloud.store.store import Tx

KEY_TYPES = ("rsa", "ed25519")
RSA_BITS = 2048
IMPORTED_RSA_BITS = (1024, 2048, 3072, 4096)
MAX_NAME = 255
_OPENSSH_KINDS = (b"ssh-rsa ", b"ssh-rsa\t", b"ssh-ed25519 ", b"ssh-ed25519\t")
MAX_MATERIAL_BYTES = 32 * 1024

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyPairView:
    """A key pair and its tags; `private_key` is set only in the answer that made it."""

    key_pair: KeyPair
    tags: Mapping[str, str]
    private_key: str | None = None


def create_key_pair(
    cloud: Cloud, caller: Caller, name: str, key_type: str, specifications: TagSpecifications
) -> KeyPairView:
    """Make a key pair of type "rsa" or "ed25519". Raises InvalidKeyPair.Duplicate, InvalidParameterValue."""
    _check_name(name)
    check_tag_specifications(specifications, [KEY_PAIRS.tag_type])
    if key_type not in KEY_TYPES:
        raise ApiError("InvalidParameterValue", f"Value ({key_type[:100]}) for parameter KeyType is invalid.")
    # Outside the transaction: an RSA key takes a tenth of a second.
    if key_type == "ed25519":
        edwards = ed25519.Ed25519PrivateKey.generate()
        private_key = edwards.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public, fingerprint = _openssh(edwards.public_key()), _sha256_fingerprint(edwards.public_key())
    else:
        made = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        private_key = made.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        der = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public, fingerprint = _openssh(made.public_key()), hashlib.sha1(der).digest().hex(":")
    view = _insert(cloud, caller, name, key_type, fingerprint, public, specifications)
    return KeyPairView(view.key_pair, view.tags, private_key.decode())


def import_key_pair(
    cloud: Cloud, caller: Caller, name: str, material: bytes, specifications: TagSpecifications
) -> KeyPairView:
    """Register a public key made elsewhere. Raises InvalidKey.Format, InvalidKeyPair.Duplicate."""
    _check_name(name)
    check_tag_specifications(specifications, [KEY_PAIRS.tag_type])
    key = parse_public_key(material)
    if isinstance(key, rsa.RSAPublicKey):
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key_type, fingerprint = "rsa", hashlib.md5(der, usedforsecurity=False).digest().hex(":")
    else:
        key_type, fingerprint = "ed25519", _sha256_fingerprint(key)
    return _insert(cloud, caller, name, key_type, fingerprint, _openssh(key), specifications)


def describe_key_pairs(
    cloud: Cloud, caller: Caller, names: Iterable[str], key_pair_ids: Iterable[str], asked: Asked = EVERYTHING
) -> list[KeyPairView]:
    """Return the key pairs named or numbered, all if none is, by name.

    Raises InvalidKeyPair.NotFound, InvalidParameterValue (too many).
    """
    wanted_names, wanted_ids = list(dict.fromkeys(names)), list(key_pair_ids)
    if len(wanted_names) + len(wanted_ids) > MAX_IDS:
        raise too_many()

    def look(tx: Tx) -> list[KeyPairView]:
        owned: dict[str, object] = {"account_id": caller.account_id, "region": caller.region}
        if wanted_names or wanted_ids:
            named = tx.key_pairs.where(**owned, name=wanted_names)
            absent = sorted(set(wanted_names) - {row.name for row in named}, key=wanted_names.index)
            if absent:
                raise _not_found(absent)
            owned["id"] = {row.id for row in (*require(tx, caller, KEY_PAIRS, wanted_ids), *named)}
        rows = sorted(tx.key_pairs.search(KEY_PAIR_FILTERS, asked, **owned).items, key=lambda row: row.name)
        tags = tx.tags.of([row.id for row in rows])
        return [KeyPairView(row, tags.get(row.id, {})) for row in rows]

    return cloud.store.read(look)


def delete_key_pair(cloud: Cloud, caller: Caller, name: str | None, key_pair_id: str | None) -> str | None:
    """Delete a key pair and return its id; None if there was none, which is fine (EC2 API reference, DeleteKeyPair).

    Instances keep the key they were launched with. Raises InvalidKeyPair.NotFound for what cannot be an id.
    """
    if (name is None) == (key_pair_id is None):
        if name is None:
            raise ApiError("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
        raise ApiError("InvalidParameterCombination", "KeyName and KeyPairId cannot both be given")
    if key_pair_id is not None:
        check_ids(KEY_PAIRS, [key_pair_id])

    def decide(tx: Tx) -> str | None:
        own = {"account_id": caller.account_id, "region": caller.region}
        wanted = {"name": name} if name is not None else {"id": key_pair_id}
        for row in tx.key_pairs.where(**own, **wanted):
            tx.tags.delete(row.id)
            tx.key_pairs.delete(row.id)
            return row.id
        return None

    return cloud.store.write(decide)


def find_key_pair(tx: Tx, caller: Caller, name: str) -> KeyPair:
    """Return the key pair an instance is to be launched with. Raises InvalidKeyPair.NotFound."""
    found = tx.key_pairs.where(account_id=caller.account_id, region=caller.region, name=name)
    if not found:
        raise _not_found([name])
    return found[0]


def parse_public_key(material: bytes) -> PublicKey:
    """Read a public key in OpenSSH's, RFC 4716's, PEM or DER form. Raises InvalidKey.Format."""
    if len(material) > MAX_MATERIAL_BYTES:
        raise _bad_key()
    key = _load(material.strip())
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if not isinstance(key, rsa.RSAPublicKey):
        raise _bad_key()
    if key.key_size not in IMPORTED_RSA_BITS:
        raise ApiError("InvalidKey.Format", "Key length must be 1024, 2048, 3072 or 4096 bits for an RSA key")
    return key


def _load(material: bytes) -> object:
    try:
        if material.startswith(b"-----"):
            return load_pem_public_key(material)
        if material.startswith(b"---- BEGIN SSH2 PUBLIC KEY ----"):
            return _load_rfc4716(material)
        if material.startswith(b"ssh-"):
            return _load_openssh(material)
        der = material if material.startswith(b"\x30") else base64.b64decode(material, validate=True)
        return load_der_public_key(der)
    except (ValueError, binascii.Error, UnsupportedAlgorithm, UnicodeDecodeError):
        raise _bad_key() from None


def _load_openssh(material: bytes) -> object:
    """Read OpenSSH's form. Other kinds (DSA, whose loading is deprecated; certificates) are not even parsed."""
    if not material.startswith(_OPENSSH_KINDS):
        raise ValueError
    return load_ssh_public_key(material)


def _load_rfc4716(material: bytes) -> object:
    """Read RFC 4716's form: headers (with backslash continuation) and base64 between two marker lines."""
    lines = re.sub(rb"\\\r?\n", b"", material).splitlines()[1:-1]
    blob = base64.b64decode(b"".join(line for line in lines if b":" not in line), validate=True)
    length = int.from_bytes(blob[:4], "big")
    return _load_openssh(blob[4 : 4 + length] + b" " + base64.b64encode(blob))


def _insert(
    cloud: Cloud,
    caller: Caller,
    name: str,
    key_type: str,
    fingerprint: str,
    public_key: str,
    specifications: TagSpecifications,
) -> KeyPairView:
    tags = dict(specifications.get(KEY_PAIRS.tag_type, {}))

    def decide(tx: Tx) -> KeyPairView:
        if tx.key_pairs.count(account_id=caller.account_id, region=caller.region, name=name):
            raise ApiError("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")
        row = KeyPair(
            id=cloud.make_id(ids.KEY_PAIR),
            account_id=caller.account_id,
            region=caller.region,
            name=name,
            key_type=key_type,
            fingerprint=fingerprint,
            public_key=f"{public_key} {name}",
            created_us=tx.now_us,
        )
        tx.key_pairs.insert(row)
        tx.tags.set(row.id, tags)
        return KeyPairView(row, tags)

    return cloud.store.write(decide)


def _check_name(name: str) -> None:
    # The name ends up as the comment of an authorized key, on one line.
    if not 1 <= len(name) <= MAX_NAME or name != name.strip() or not name.isascii() or not name.isprintable():
        raise ApiError(
            "InvalidParameterValue",
            f"Value for parameter KeyName is invalid. It must be 1 to {MAX_NAME} ASCII characters without leading or "
            "trailing spaces.",
        )


def _not_found(names: list[str]) -> ApiError:
    shown = ", ".join(name[:255] for name in names)
    plural = "The key pair '{}' does not exist" if len(names) == 1 else "The key pairs '{}' do not exist"
    return ApiError("InvalidKeyPair.NotFound", plural.format(shown))


def _bad_key() -> ApiError:
    return ApiError("InvalidKey.Format", "Key is not in valid OpenSSH public key format")


def _openssh(key: PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _sha256_fingerprint(key: PublicKey) -> str:
    blob = base64.b64decode(_openssh(key).split()[1])
    return base64.b64encode(hashlib.sha256(blob).digest()).decode()
