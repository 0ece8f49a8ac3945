"""The format inspection: real images pass, everything that lies, points elsewhere or needs a guess is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicloud.hostside.inspect import GIB, TIB, Inspection, Rejected, inspect

MIB = 1024**2


def inspect_bytes(tmp_path: Path, data: bytes, declared: str = "qcow2", length: int | None = None) -> Inspection:
    path = tmp_path / "image"
    path.write_bytes(data)
    if length is not None:
        os.truncate(path, length)
    return inspect_file(path, declared)


def inspect_file(path: Path, declared: str = "qcow2", **limits: int) -> Inspection:
    fd = os.open(path, os.O_RDONLY)
    try:
        return inspect(fd, declared, **limits)
    finally:
        os.close(fd)


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small qcow2 with some data in it."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "raw").write_bytes(b"minicloud" * 100_000 + bytes(MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "qcow2")
    return (folder / "qcow2").read_bytes()


def patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    return data[:offset] + replacement + data[offset + len(replacement) :]


OPTIONS = [
    "compat=0.10",
    "compat=1.1",
    "compat=1.1,cluster_size=512",
    "compat=1.1,cluster_size=2M",
    "compat=1.1,compression_type=zstd",
    "compat=1.1,extended_l2=on,cluster_size=128k",
    "compat=1.1,refcount_bits=1",
    "compat=1.1,refcount_bits=64",
    "compat=1.1,lazy_refcounts=on",
    "compat=1.1,preallocation=metadata",
    "compat=1.1,preallocation=falloc",
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("flags", [[], ["-c"]])
def test_what_qemu_writes_is_accepted(tmp_path: Path, options: str, flags: list[str]) -> None:
    if flags and "preallocation" in options:
        flags = []
    source = tmp_path / "raw"
    source.write_bytes(os.urandom(3 * MIB) + bytes(2 * MIB) + b"x" * 512)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *flags, "-o", options, source, tmp_path / "image")
    assert inspect_file(tmp_path / "image") == Inspection("qcow2", 5 * MIB + 512)


@pytest.mark.parametrize("size", ["512", "1G", "100G", "16T"])
def test_empty_images_of_any_size_are_accepted(tmp_path: Path, size: str) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "image", size)
    inspect_file(tmp_path / "image")


def test_internal_snapshots_and_bitmaps_are_accepted(tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "1G")
    qemu_img("snapshot", "-c", "one", image)
    qemu_img("bitmap", "--add", image, "b0")
    assert inspect_file(image).virtual_size_bytes == GIB


@pytest.mark.parametrize("length", [1, 511, 512, 513, MIB])
def test_raw_is_accepted_and_rounded_up_to_sectors(tmp_path: Path, length: int) -> None:
    assert inspect_bytes(tmp_path, b"\0" * length, "raw") == Inspection("raw", -(-length // 512) * 512)


def test_a_partitioned_raw_disk_is_accepted(tmp_path: Path) -> None:
    mbr = bytes(446) + b"\x80" + bytes(63) + b"\x55\xaa"
    assert inspect_bytes(tmp_path, mbr + b"EFI PART" + bytes(MIB - 520), "raw").format == "raw"


@pytest.mark.parametrize(
    ("offset", "replacement", "says"),
    [
        (8, struct.pack(">Q", 1024), "backing file"),
        (16, struct.pack(">I", 9), "backing file"),
        (32, struct.pack(">I", 1), "encrypted"),
        (32, struct.pack(">I", 2), "encrypted"),
        (72, struct.pack(">Q", 1 << 0), "not closed properly"),
        (72, struct.pack(">Q", 1 << 1), "corrupt"),
        (72, struct.pack(">Q", 1 << 2), "external file"),
        (72, struct.pack(">Q", 1 << 3), "compression"),
        (72, struct.pack(">Q", 1 << 5), "does not know"),
        (72, struct.pack(">Q", 1 << 63), "does not know"),
        (104, b"\x07", "compression"),
        (60, struct.pack(">I", 100_000), "internal snapshots"),
        (60, struct.pack(">IQ", 2, 1 << 40), "snapshot table"),
        (20, struct.pack(">I", 8), "cluster size"),
        (20, struct.pack(">I", 22), "cluster size"),
        (20, struct.pack(">I", 0xFFFFFFFF), "cluster size"),
        (24, struct.pack(">Q", 0), "no size"),
        (24, struct.pack(">Q", 1 << 62), "more than"),
        (24, struct.pack(">Q", 2**64 - 512), "more than"),
        (24, struct.pack(">Q", 16 * TIB + 512), "more than"),
        (24, struct.pack(">Q", 1025), "within a sector"),
        (24, struct.pack(">Q", 16 * TIB), "L1 table"),
        (36, struct.pack(">I", 0), "L1 table"),
        (36, struct.pack(">I", 0xFFFFFFFF), "L1 table"),
        (40, struct.pack(">Q", 0), "L1 table"),
        (40, struct.pack(">Q", 65537), "L1 table"),
        (40, struct.pack(">Q", 1 << 50), "L1 table"),
        (40, struct.pack(">Q", 2**64 - 65536), "L1 table"),
        (48, struct.pack(">Q", 0), "refcount table"),
        (48, struct.pack(">Q", 1 << 50), "refcount table"),
        (56, struct.pack(">I", 0), "refcount table"),
        (56, struct.pack(">I", 0xFFFFFFFF), "refcount table"),
        (96, struct.pack(">I", 7), "reference counts"),
        (100, struct.pack(">I", 0), "header length"),
        (100, struct.pack(">I", 103), "header length"),
        (100, struct.pack(">I", 105), "header length"),
        (100, struct.pack(">I", 0xFFFFFFF8), "header length"),
        (112, struct.pack(">II", 0xE2792ACA, 3) + b"raw", "backing file"),
        (112, struct.pack(">II", 0x44415441, 8) + b"/etc/pas", "external data file"),
        (112, struct.pack(">II", 0x0537BE77, 16), "encrypted"),
        (112, struct.pack(">II", 0x12345678, 0xFFFFFFFF), "header extension"),
        (65536, struct.pack(">Q", 1 << 50), "refcount block"),
        (65536, struct.pack(">Q", 512), "refcount block"),
    ],
)
def test_lies_in_the_header_are_refused(
    tmp_path: Path, good: bytes, offset: int, replacement: bytes, says: str
) -> None:
    with pytest.raises(Rejected, match=says) as caught:
        inspect_bytes(tmp_path, patched(good, offset, replacement))
    assert str(caught.value).endswith((".", "?"))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("make", ["backing", "json", "nbd", "data_file", "v1"])
def test_what_qemu_makes_that_points_elsewhere_is_refused(tmp_path: Path, make: str) -> None:
    image = tmp_path / "image"
    if make == "backing":
        qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", image, "1G")
    elif make == "json":
        name = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'
        qemu_img("create", "-f", "qcow2", "-u", "-b", name, "-F", "raw", image, "1G")
    elif make == "nbd":
        qemu_img("create", "-f", "qcow2", "-u", "-b", "nbd:127.0.0.1:1", "-F", "raw", image, "1G")
    elif make == "data_file":
        qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", image, "1G")
    else:
        qemu_img("create", "-f", "qcow", image, "1G")
    for declared in ("qcow2", "raw"):
        with pytest.raises(Rejected):
            inspect_file(image, declared)


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx", "vpc", "qed", "parallels"])
def test_other_formats_are_refused_under_any_name(tmp_path: Path, kind: str) -> None:
    qemu_img("create", "-f", kind, tmp_path / "image", "64M")
    for declared in ("qcow2", "raw"):
        with pytest.raises(Rejected):
            inspect_file(tmp_path / "image", declared)


def test_fixed_vhd_shows_only_at_its_end(tmp_path: Path) -> None:
    qemu_img("create", "-f", "vpc", "-o", "subformat=fixed", tmp_path / "image", "2M")
    with pytest.raises(Rejected, match="VHD"):
        inspect_file(tmp_path / "image", "raw")


@pytest.mark.parametrize(
    ("magic", "offset", "says"),
    [
        (b"# Disk DescriptorFile\nversion=1\n", 0, "VMDK"),
        (b"LUKS\xba\xbe\0\x02", 0, "LUKS"),
        (b"CD001", 0x8001, "ISO 9660"),
        (b"\x1f\x8b\x08", 0, "gzip"),
        (b"\xfd7zXZ\0", 0, "xz"),
        (b"PK\x03\x04", 0, "zip"),
        (b"ustar\x0000", 257, "tar"),
        (b"QFI\xfb\0\0\0\x04", 0, "QCOW image of version 4"),
        (b"QFI\xfb\0\0\0\x03", 0, "qcow2, not raw"),
    ],
)
def test_raw_that_bears_another_mark_is_refused(tmp_path: Path, magic: bytes, offset: int, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        inspect_bytes(tmp_path, patched(bytes(MIB), offset, magic), "raw")


@pytest.mark.parametrize("magic", [(0x8001, b"CD001"), (-512, b"conectix"), (257, b"ustar"), (-512, b"koly")])
def test_a_qcow2_that_is_something_else_too_is_refused(tmp_path: Path, good: bytes, magic: tuple[int, bytes]) -> None:
    offset = magic[0] if magic[0] > 0 else len(good) + magic[0]
    with pytest.raises(Rejected):
        inspect_bytes(tmp_path, patched(good, offset, magic[1]))


def test_raw_declared_as_qcow2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="raw, not qcow2"):
        inspect_bytes(tmp_path, bytes(MIB))


@pytest.mark.parametrize("declared", ["vmdk", "", "qcow", "RAW"])
def test_other_declarations_are_refused(tmp_path: Path, good: bytes, declared: str) -> None:
    with pytest.raises(Rejected, match="not supported"):
        inspect_bytes(tmp_path, good, declared)


@pytest.mark.parametrize("declared", ["qcow2", "raw"])
def test_an_empty_file_is_refused(tmp_path: Path, declared: str) -> None:
    with pytest.raises(Rejected, match="empty"):
        inspect_bytes(tmp_path, b"", declared)


def test_files_cut_short_are_refused(tmp_path: Path, good: bytes) -> None:
    for length in (4, 8, 71, 72, 103, 104, 112, 512, 65536, 65544, 131072, 262143, len(good) - 65536, len(good) // 2):
        with pytest.raises(Rejected):
            inspect_bytes(tmp_path, good, length=length)


def test_limits_of_the_caller_hold(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "image").write_bytes(good)
    with pytest.raises(Rejected, match="allowed"):
        inspect_file(tmp_path / "image", max_virtual_bytes=MIB)
    os.truncate(tmp_path / "image", 0)
    os.truncate(tmp_path / "image", 2 * GIB)
    with pytest.raises(Rejected, match="allowed"):
        inspect_file(tmp_path / "image", "raw", max_virtual_bytes=GIB)


def test_a_hostile_refcount_table_costs_bounded_time(tmp_path: Path) -> None:
    """A million refcount blocks, all the same one: it must not be read a million times."""
    table_bytes = 8 * MIB
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 21, GIB, 0, 1, 2 * MIB, 4 * MIB, 4, 0, 0, 0, 0, 0, 4, 104
    )
    path = tmp_path / "image"
    with open(path, "wb") as file:
        file.write(header)
        file.seek(4 * MIB)
        file.write(struct.pack(">Q", 2 * MIB) * (table_bytes // 8))
    # Of this thread, not of the machine: whoever else is busy costs nothing of it.
    started = time.thread_time()
    with pytest.raises(Rejected, match="far more"):
        inspect_file(path)
    assert time.thread_time() - started < 5


# Nothing but a verdict, whatever the bytes.


def verdict(path: Path, declared: str) -> None:
    try:
        found = inspect_file(path, declared)
    except Rejected:
        return
    assert found.format == declared
    assert 0 < found.virtual_size_bytes <= 16 * TIB
    assert found.virtual_size_bytes % 512 == 0


mutations = st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=16)), max_size=6)
fuzz = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@fuzz
@given(changes=mutations, cut=st.one_of(st.none(), st.integers(0, 400_000)))
def test_any_damage_to_a_qcow2_gives_a_verdict(
    tmp_path: Path, good: bytes, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    data = good
    for offset, replacement in changes:
        # Also into the refcount table and block, and the L1 table.
        for base in (0, 65536, 131072, 196608)[: 1 + offset % 4]:
            data = patched(data, base + offset, replacement)
    path = tmp_path / "image"
    path.write_bytes(data[:cut])
    for declared in ("qcow2", "raw"):
        verdict(path, declared)


@fuzz
@given(data=st.binary(max_size=2048), magic=st.sampled_from([b"", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"KDMV"]))
def test_any_bytes_give_a_verdict(tmp_path: Path, data: bytes, magic: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(magic + data)
    for declared in ("qcow2", "raw"):
        verdict(path, declared)


@fuzz
@given(
    numbers=st.tuples(
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(9, 21),
        st.integers(0, 2**45),
        st.integers(0, 1),
        st.integers(0, 2**20),
        st.integers(0, 8).map(lambda n: n << 16),
        st.integers(0, 8).map(lambda n: n << 16),
        st.integers(0, 4),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
    ),
    rest=st.binary(max_size=600),
)
def test_any_plausible_header_gives_a_verdict(tmp_path: Path, numbers: tuple[int, ...], rest: bytes) -> None:
    backing_offset, backing_bytes, *others = numbers
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, *others)
    path = tmp_path / "image"
    path.write_bytes((header + struct.pack(">QQQII", 0, 0, 0, 4, 104) + rest).ljust(600_000, b"\0"))
    verdict(path, "qcow2")
    path.write_bytes(patched(path.read_bytes(), 8, struct.pack(">QI", backing_offset, backing_bytes)))
    verdict(path, "qcow2")
