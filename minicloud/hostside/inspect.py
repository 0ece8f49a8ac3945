"""Decides from its bytes whether a file is the disk image it is declared to be, before any other program reads it.

Pure reading on an open descriptor. Accepts exactly qcow2 (version 2 or 3) and raw, as declared; refuses whatever can
name another file or needs a guess: backing files, external data files, unknown features, encryption, other formats,
files that are two formats at once, sizes and tables that cannot be. Layouts: QEMU's docs/interop/qcow2.txt and the
formats' own specifications. Called by disk_import.py, which then opens the image with the format spelled out.

Nothing a file holds may raise anything but Rejected, or take longer than reading MAX_TABLE_BYTES does.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import List, Optional, Tuple

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

MAX_VIRTUAL_BYTES = 16 * TIB  # EBS's largest gp3 volume.
MAX_TABLE_BYTES = 64 * MIB
MAX_INTERNAL_SNAPSHOTS = 256

FORMATS = ("qcow2", "raw")


class Rejected(Exception):
    """The image is refused; the message is a sentence for whoever brought it, and names nothing of this machine."""


@dataclass(frozen=True)
class Inspection:
    """An accepted image: its format, and the size of the disk it holds in bytes, a whole number of sectors."""

    format: str
    virtual_size_bytes: int


def inspect(fd: int, declared_format: str, max_virtual_bytes: int = MAX_VIRTUAL_BYTES) -> Inspection:
    """Inspect an open file against its declared format, "qcow2" or "raw". Raises Rejected; OSError if unreadable."""
    if declared_format not in FORMATS:
        raise Rejected(f"The format {declared_format!r} is not supported: use qcow2 or raw.")
    file_bytes = os.fstat(fd).st_size
    if file_bytes == 0:
        raise Rejected("The file is empty.")
    found = find_format(fd, file_bytes)
    if found != declared_format:
        shown = found or "not a format that minicloud knows"
        raise Rejected(f"The file is {shown}, not {declared_format} as declared.")
    size_bytes = -(-file_bytes // 512) * 512 if declared_format == "raw" else _Qcow2(fd, file_bytes).check()
    limit = min(max_virtual_bytes, MAX_VIRTUAL_BYTES)
    if size_bytes > limit:
        raise Rejected(f"The disk has {_shown(size_bytes)}, more than the {_shown(limit)} that are allowed.")
    return Inspection(declared_format, size_bytes)


# (offset, bytes, what the file is then). Offsets below zero count from the file's end.
_MAGIC: Tuple[Tuple[int, bytes, str], ...] = (
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (-512, b"conectix", "a VHD image"),
    (-511, b"conectix", "a VHD image"),
    (-512, b"koly", "a DMG image"),
    (0, b"QED\0", "a QED image"),
    (0, b"OOOM", "a UML copy-on-write image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format", "a compressed loop image"),
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (0, b"SKUL\xba\xbe", "a LUKS container"),
    (0x8001, b"CD001", "an ISO 9660 (CD or DVD) image"),
    (0x8801, b"CD001", "an ISO 9660 (CD or DVD) image"),
    (0x9001, b"CD001", "an ISO 9660 (CD or DVD) image"),
    (0, b"\x1f\x8b", "compressed with gzip (decompress it first)"),
    (0, b"\xfd7zXZ\0", "compressed with xz (decompress it first)"),
    (0, b"BZh", "compressed with bzip2 (decompress it first)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd (decompress it first)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it first)"),
    (0, b"PK\x03\x04", "a zip archive (unpack it first)"),
    (257, b"ustar", "a tar archive such as an OVA (unpack it first)"),
)


def find_format(fd: int, file_bytes: int) -> Optional[str]:
    """Return "qcow2", "raw" (nothing else's mark is on it) or what else the file is."""
    for offset, magic, name in _MAGIC:
        place = offset if offset >= 0 else file_bytes + offset
        if place >= 0 and os.pread(fd, len(magic), place) == magic:
            return name
    head = os.pread(fd, 8, 0)
    if head[:4] != b"QFI\xfb":
        return "raw"
    version = int.from_bytes(head[4:8], "big")
    if version in (2, 3):
        return "qcow2"
    return f"a QCOW image of version {version}"


_V2_BYTES = 72
_V3_BYTES = 104
_KNOWN_INCOMPATIBLE = {0: "dirty", 1: "corrupt", 2: "external data file", 3: "compression type", 4: "extended L2"}
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77
_MAX_REFCOUNT_TABLE_BYTES = 8 * MIB
_MAX_L1_BYTES = 32 * MIB
_OFFSET_MASK = 0x00FFFFFFFFFFFE00


class _Qcow2:
    """The checks of a qcow2 file, in the order in which they make each other safe."""

    def __init__(self, fd: int, file_bytes: int) -> None:
        self._fd = fd
        self._file_bytes = file_bytes
        head = self._read(0, 112)
        if len(head) < _V2_BYTES:
            raise Rejected("The qcow2 file ends within its header.")
        (
            self._version,
            self._backing_offset,
            self._backing_bytes,
            self._cluster_bits,
            self._size_bytes,
            self._encryption,
            self._l1_entries,
            self._l1_offset,
            self._refcount_offset,
            self._refcount_clusters,
            self._snapshots,
            self._snapshots_offset,
        ) = struct.unpack_from(">4xIQIIQIIQQIIQ", head)
        self._incompatible, self._refcount_order, self._header_bytes, self._compression = 0, 4, _V2_BYTES, 0
        if self._version == 3:
            if len(head) < _V3_BYTES:
                raise Rejected("The qcow2 file ends within its header.")
            self._incompatible, _, _, self._refcount_order, self._header_bytes = struct.unpack_from(
                ">QQQII", head, _V2_BYTES
            )
            if self._header_bytes > _V3_BYTES and len(head) > _V3_BYTES:
                self._compression = head[_V3_BYTES]

    def check(self) -> int:
        """Return the disk's size in bytes. Raises Rejected."""
        self._check_features()
        self._check_geometry()
        self._check_extensions()
        self._check_tables()
        self._check_is_whole()
        return int(self._size_bytes)

    def _check_features(self) -> None:
        if self._backing_offset or self._backing_bytes:
            raise Rejected("The image has a backing file. Flatten it first, with `qemu-img convert`.")
        if self._encryption:
            raise Rejected("The image is encrypted.")
        if self._incompatible >> len(_KNOWN_INCOMPATIBLE):
            raise Rejected("The image uses qcow2 features that minicloud does not know.")
        if self._incompatible & 1 << 2:
            raise Rejected("The image keeps its data in an external file. Flatten it first, with `qemu-img convert`.")
        if self._incompatible & 1 << 1:
            raise Rejected("The image is marked as corrupt.")
        if self._incompatible & 1:
            raise Rejected("The image was not closed properly. Repair it first, with `qemu-img check -r all`.")
        if self._compression not in (0, 1) or bool(self._incompatible & 1 << 3) != bool(self._compression):
            raise Rejected("The image's compression is not one that minicloud knows.")
        if self._snapshots > MAX_INTERNAL_SNAPSHOTS:
            raise Rejected(
                f"The image holds {self._snapshots} internal snapshots; {MAX_INTERNAL_SNAPSHOTS} are allowed."
            )

    def _check_geometry(self) -> None:
        if not 9 <= self._cluster_bits <= 21:
            raise Rejected("The image states a cluster size that qcow2 does not allow.")
        if self._incompatible & 1 << 4 and self._cluster_bits < 14:
            raise Rejected("The image states a cluster size that qcow2 does not allow with extended L2 entries.")
        if self._refcount_order > 6:
            raise Rejected("The image states a width of reference counts that qcow2 does not allow.")
        if self._version == 3 and (
            self._header_bytes < _V3_BYTES or self._header_bytes % 8 or self._header_bytes > self._cluster_bytes
        ):
            raise Rejected("The image states a header length that qcow2 does not allow.")
        if self._size_bytes == 0:
            raise Rejected("The image holds a disk of no size.")
        if self._size_bytes > MAX_VIRTUAL_BYTES:
            shown = _shown(self._size_bytes)
            raise Rejected(f"The disk has {shown}, more than the {_shown(MAX_VIRTUAL_BYTES)} that are allowed.")
        if self._size_bytes % 512:
            raise Rejected("The image holds a disk that ends within a sector.")

    def _check_extensions(self) -> None:
        area = self._read(0, self._cluster_bytes)
        offset = self._header_bytes
        while offset + 8 <= len(area):
            kind, length = struct.unpack_from(">II", area, offset)
            if kind == _EXTENSION_END:
                return
            if length > len(area) - offset - 8:
                raise Rejected("The image has a header extension that does not fit its header.")
            if kind == _EXTENSION_BACKING_FORMAT:
                raise Rejected(
                    "The image names the format of a backing file. Flatten it first, with `qemu-img convert`."
                )
            if kind == _EXTENSION_DATA_FILE:
                raise Rejected("The image names an external data file. Flatten it first, with `qemu-img convert`.")
            if kind == _EXTENSION_ENCRYPTION:
                raise Rejected("The image is encrypted.")
            offset += 8 + -(-length // 8) * 8

    def _check_tables(self) -> None:
        entry_bytes = 16 if self._incompatible & 1 << 4 else 8
        l1_covers = self._cluster_bytes // entry_bytes * self._cluster_bytes
        if self._l1_entries * 8 > _MAX_L1_BYTES or self._l1_entries < -(-self._size_bytes // l1_covers):
            raise Rejected("The image's L1 table does not fit its disk size.")
        self._check_table("L1 table", self._l1_offset, self._l1_entries * 8)
        refcount_table_bytes = self._refcount_clusters * self._cluster_bytes
        if not 0 < refcount_table_bytes <= _MAX_REFCOUNT_TABLE_BYTES:
            raise Rejected("The image's refcount table has a size that qcow2 does not allow.")
        self._check_table("refcount table", self._refcount_offset, refcount_table_bytes)
        if self._snapshots:
            # Each entry has at least 40 bytes.
            self._check_table("snapshot table", self._snapshots_offset, self._snapshots * 40)

    def _check_table(self, name: str, offset: int, length: int) -> None:
        if offset % self._cluster_bytes or offset < self._cluster_bytes:
            raise Rejected(f"The image's {name} is misplaced.")
        if offset + length > self._file_bytes:
            raise Rejected(f"The image's {name} is outside of the file; was the file transferred whole?")

    def _check_is_whole(self) -> None:
        """Refuse a file that was cut short: a cluster beyond its end is in use. QEMU would read zeros there."""
        counted = self._cluster_bytes * 8 >> self._refcount_order  # clusters that one refcount block counts
        in_file = -(-self._file_bytes // self._cluster_bytes)
        table = self._read(self._refcount_offset, self._refcount_clusters * self._cluster_bytes)
        read_bytes = 0
        for number, (entry,) in enumerate(struct.iter_unpack(">Q", table)):
            block = entry & _OFFSET_MASK
            if not block:
                continue
            self._check_table("refcount block", block, self._cluster_bytes)
            inside = min(max(in_file - number * counted, 0), counted)
            if inside == counted:
                continue
            read_bytes += self._cluster_bytes
            if read_bytes > MAX_TABLE_BYTES:
                raise Rejected("The image's refcount table describes far more than the file holds.")
            bits = 1 << self._refcount_order
            counts = self._read(block, self._cluster_bytes)
            first_bit = inside * bits
            beyond = counts[-(-first_bit // 8) :]
            if beyond.strip(b"\0"):
                raise Rejected("The image uses clusters beyond the end of the file; was it transferred whole?")

    @property
    def _cluster_bytes(self) -> int:
        return 1 << int(self._cluster_bits)

    def _read(self, offset: int, length: int) -> bytes:
        pieces: List[bytes] = []
        while length > 0:
            piece = os.pread(self._fd, length, offset)
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
