"""Filters of DescribeImages (EC2 API reference, "Filter.N"), and who may see which image."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, false, literal, or_

from minicloud.model.patterns import Pattern
from minicloud.store import schema
from minicloud.store.search import (
    ABSENT,
    Condition,
    Field,
    FilterSet,
    JsonMember,
    any_of,
    boolean,
    concat,
    constant,
    listed,
    listed_objects,
    number,
    text,
    through,
    time,
    when,
)

_images = schema.images.c
_snapshots = schema.snapshots.c


def _member(value: ColumnElement[Any], name: str) -> ColumnElement[str]:
    return JsonMember(value, literal(name))


def _ebs(name: str) -> Field:
    """A member of the mappings that are volumes."""
    return listed_objects(
        _images.block_devices,
        lambda value: when(_member(value, "virtual_name").is_(None), text(_member(value, name))),
    )


def _size(value: ColumnElement[Any]) -> Field:
    """A mapping without a size of its own has its snapshot's."""
    own = _member(value, "size_gib")
    snapshot = through(_member(value, "snapshot_id"), _snapshots.id, number(_snapshots.size_gib))
    return when(_member(value, "virtual_name").is_(None), any_of(text(own), when(own.is_(None), snapshot)))


IMAGES = FilterSet(
    {
        "architecture": text(_images.architecture),
        "block-device-mapping.delete-on-termination": _ebs("delete_on_termination"),
        "block-device-mapping.device-name": listed_objects(
            _images.block_devices, lambda value: text(_member(value, "device_name"))
        ),
        "block-device-mapping.snapshot-id": _ebs("snapshot_id"),
        "block-device-mapping.volume-size": listed_objects(_images.block_devices, _size),
        "block-device-mapping.volume-type": _ebs("volume_type"),
        "block-device-mapping.encrypted": _ebs("encrypted"),
        "boot-mode": text(_images.boot_mode),
        "creation-date": time(_images.created_us),
        "description": text(_images.description),
        "ena-support": boolean(_images.ena_support),
        # Nothing is billed, so nothing is free of charge.
        "free-tier-eligible": constant("false"),
        "hypervisor": constant("xen"),
        "image-allowed": constant("true"),
        "image-id": text(_images.id),
        "image-watermark.source-image-creation-time": ABSENT,
        "image-watermark.source-image-id": ABSENT,
        "image-watermark.source-image-region": ABSENT,
        "image-watermark.watermark-creation-time": ABSENT,
        "image-watermark.watermark-key": ABSENT,
        "image-type": constant("machine"),
        "instance-type-specification.supported-instance-type": ABSENT,
        "instance-type-specification.unsupported-instance-type": ABSENT,
        "is-public": boolean(_images.public),
        "kernel-id": ABSENT,
        "manifest-location": text(concat(_images.account_id, "/", _images.name)),
        "name": text(_images.name),
        "owner-alias": ABSENT,
        "owner-id": text(_images.account_id),
        "platform": ABSENT,
        "product-code": ABSENT,
        "product-code.type": ABSENT,
        "public-ssm-parameter-name": ABSENT,
        "ramdisk-id": ABSENT,
        "root-device-name": text(_images.root_device_name),
        "root-device-type": constant("ebs"),
        **{
            f"scan-result.{name}": ABSENT
            for name in (
                "critical-fix-available-since",
                "finding-scan-date",
                "high-fix-available-since",
                "highest-finding-severity-label",
                "informational-fix-available-since",
                "low-fix-available-since",
                "medium-fix-available-since",
            )
        },
        "source-image-id": text(_images.source_image_id),
        "source-image-region": text(_images.source_region),
        "source-instance-id": ABSENT,
        "state": text(_images.state),
        "state-reason-code": when(_images.state_reason.is_not(None), constant("Server.InternalError")),
        "state-reason-message": text(_images.state_reason),
        "sriov-net-support": ABSENT,
        "virtualization-type": constant("hvm"),
    },
    tagged=_images.id,
)


def visible_to(account_id: str) -> Condition:
    """Images that an account may launch: its own, public ones, those shared with it."""
    return or_(_images.account_id == account_id, _images.public.is_(True), _shared_with([account_id]))


def owned_by(account_ids: Collection[str]) -> Condition:
    """Images of any of the accounts."""
    return _images.account_id.in_(sorted(account_ids))


def launchable_by(asker: str, account_ids: Collection[str], everybody: bool) -> Condition:
    """Images that any of the accounts was named for; with `everybody`, public ones as well.

    Whom an owner shares an image with is told to nobody but each of them: others are looked for among the asker's own.
    """
    found: list[Condition] = [_images.public.is_(True)] if everybody else []
    if asker in account_ids:
        found.append(_shared_with([asker]))
    others = set(account_ids) - {asker}
    if others:
        found.append(and_(owned_by([asker]), _shared_with(others)))
    return or_(false(), *found)


def _shared_with(account_ids: Collection[str]) -> Condition:
    exactly = [Pattern(one, ((one, False),)) for one in sorted(account_ids)]
    return listed(_images.allowed_account_ids)(exactly)
