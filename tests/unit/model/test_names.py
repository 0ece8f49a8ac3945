"""Names of what lives on hosts: within the kernel's limits, and never two things of one name."""

from __future__ import annotations

import pytest

from minicloud import ids
from minicloud.model import names

INTERFACES = (
    (names.tap, ids.NETWORK_INTERFACE),
    (names.bridge, ids.SUBNET),
    (names.bridge_veth, ids.SUBNET),
    (names.router_veth, ids.SUBNET),
    (names.transit_veth, ids.VPC),
    (names.router_transit_veth, ids.VPC),
)


@pytest.mark.parametrize(("name", "prefix"), INTERFACES)
def test_interface_names_fit_into_15_bytes(name: object, prefix: str) -> None:
    """Linux: IFNAMSIZ is 16, the ending zero included."""
    assert len(name(ids.make_id(prefix)).encode()) <= 15  # type: ignore[operator]


def test_things_of_one_id_have_different_names() -> None:
    digits = "0123456789abcdef0"
    made = [name(f"{prefix}-{digits}") for name, prefix in INTERFACES]
    assert len(set(made)) == len(made)


def test_volume_serials_fit_into_20_bytes_and_tell_volumes_apart() -> None:
    """virtio-blk: VIRTIO_BLK_ID_BYTES is 20."""
    assert names.volume_serial("vol-0123456789abcdef0") == "vol0123456789abcdef0"
    assert len(names.volume_serial(ids.make_id(ids.VOLUME))) == 20


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (names.volume_path("/pool", "vol-0123456789abcdef0"), "vol-0123456789abcdef0"),
        (names.base_path("/pool", "snap-0123456789abcdef0"), "snap-0123456789abcdef0"),
        (names.ephemeral_path("/pool", "i-0123456789abcdef0", "ephemeral1"), "i-0123456789abcdef0"),
    ],
)
def test_a_file_names_its_owner(path: str, owner: str) -> None:
    assert path.startswith("/pool/")
    assert names.owner_of(path) == owner


def test_files_of_one_pool_do_not_collide() -> None:
    one = "i-0123456789abcdef0"
    assert len({names.ephemeral_path("/pool", one, f"ephemeral{n}") for n in range(8)}) == 8
    assert names.console_path(one).startswith(names.CONSOLE_FOLDER + "/")
