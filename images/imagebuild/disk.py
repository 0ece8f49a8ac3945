"""Makes disk images out of folders without root, loop devices or mounts, byte for byte the same every time.

Owns partition tables, file systems and qcow2 files of the recipes that call it; knows nothing of what they hold.
"""

import os
import shutil
import stat
import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagebuild.stage import BuildError, run

SECTOR_BYTES = 512
MIB = 1024 * 1024


def set_times(tree: Path, epoch: int) -> None:
    """Give everything below `tree` the same modification time."""
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in (*files, *folders):
            os.utime(Path(folder) / name, (epoch, epoch), follow_symlinks=False)
    os.utime(tree, (epoch, epoch))


def render_cpio(tree: Path, epoch: int) -> bytes:
    """An initramfs ('newc' cpio) of `tree`, root owning all, sorted by name."""
    out = bytearray()

    def add(name: str, mode: int, content: bytes, number: int) -> None:
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, epoch, len(content), 0, 0, 0, 0, len(encoded), 0)
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(content)
        out.extend(b"\0" * (-len(out) % 4))

    for number, path in enumerate(sorted(tree.rglob("*")), start=1):
        mode = path.lstat().st_mode
        content = b""
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
        add(str(path.relative_to(tree)), mode, content, number)
    add("TRAILER!!!", 0, b"", 0)
    return bytes(out)


def pad_to_sector(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % SECTOR_BYTES)


def render_mbr(boot_code: bytes, disk_id: int, partitions: list[tuple[int, int, int, bool]]) -> bytes:
    """A master boot record; each partition is (type, first sector, sectors, active)."""
    if len(boot_code) > 440:
        raise ValueError("boot code is longer than 440 bytes")
    table = bytearray(64)
    for slot, (kind, first_sector, sectors, active) in enumerate(partitions):
        # The CHS fields say "use LBA": no BIOS of a virtual machine reads them.
        use_lba = b"\xfe\xff\xff"
        entry = struct.pack("<B3sB3sII", 0x80 * active, use_lba, kind, use_lba, first_sector, sectors)
        table[slot * 16 : slot * 16 + 16] = entry
    return boot_code.ljust(440, b"\0") + struct.pack("<IH", disk_id, 0) + bytes(table) + b"\x55\xaa"


def make_ext4(
    tree: Path,
    image: Path,
    *,
    size_bytes: int,
    file_system_uuid: str,
    label: str,
    epoch: int,
    options: list[str],
    owner: Callable[[str], int] | None,
) -> None:
    """Write an ext4 file system holding `tree` to `image` (a sparse file).

    `owner` gives the numeric user and group of a path inside the file system; None keeps those of `tree`, which only
    root can have made. `options` go to mke2fs as they are. mke2fs copies owner and change time from the builder's
    files; both are set afterwards so that no builder shows.
    """
    with image.open("wb") as stream:
        stream.truncate(size_bytes)
    fake_time = {"E2FSPROGS_FAKE_TIME": str(epoch)}
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-U", file_system_uuid, "-L", label,
         "-E", f"hash_seed={file_system_uuid},root_owner=0:0", *options, "-d", tree, image],
        environment=fake_time,
    )  # fmt: skip
    commands = [
        f"sif <{inode}> {field} {value}"
        for inode in _used_inodes(image)
        for field, value in (("ctime", f"@{epoch}"), ("ctime_extra", "0"), ("atime", f"@{epoch}"), ("atime_extra", "0"))
    ]
    if owner is not None:
        for path in ["/", *("/" + str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))]:
            if any(character in path for character in ' "\n'):
                raise BuildError(f"{path}: no spaces or quotes in names where owners are set")
            commands += [f"sif {path} uid {owner(path)}", f"sif {path} gid {owner(path)}"]
    script = image.with_suffix(".debugfs")
    script.write_text("\n".join(commands) + "\n")
    run(["debugfs", "-w", "-f", script, image], environment=fake_time)
    script.unlink()
    run(["e2fsck", "-f", "-n", image], environment=fake_time)


def _used_inodes(image: Path) -> list[int]:
    """Numbers of the inodes in use, in order, from the free ranges that dumpe2fs prints for each block group."""
    described = run(["dumpe2fs", image]).decode()
    count = int(next(line.split()[-1] for line in described.splitlines() if line.startswith("Inode count:")))
    free: set[int] = set()
    for line in described.splitlines():
        if line.strip().startswith("Free inodes:"):
            for span in line.split(":")[1].replace(" ", "").split(","):
                if span:
                    first, _, last = span.partition("-")
                    free.update(range(int(first), int(last or first) + 1))
    # Inodes 1 and 3 to 10 are the file system's own and carry no times that matter, the root folder is 2.
    return [2, *(inode for inode in range(11, count + 1) if inode not in free)]


GPT_BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
GPT_LINUX_ROOT_X86_64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"


@dataclass(frozen=True)
class GptPartition:
    """A partition of a GUID partition table; sectors are inclusive."""

    number: int
    kind: str
    uuid: str
    first_sector: int
    last_sector: int


def write_gpt(disk: Path, boot_code: bytes, disk_uuid: str, partitions: list[GptPartition]) -> None:
    """Write a protective MBR with `boot_code` (440 bytes at most) and both copies of the table to a disk file.

    Layout: UEFI specification 2.10, chapter 5.
    """
    sectors = disk.stat().st_size // SECTOR_BYTES
    entries = bytearray(128 * 128)
    for partition in partitions:
        entry = (
            uuid.UUID(partition.kind).bytes_le
            + uuid.UUID(partition.uuid).bytes_le
            + struct.pack("<QQQ", partition.first_sector, partition.last_sector, 0)
        )
        start = (partition.number - 1) * 128
        entries[start : start + len(entry)] = entry

    def header(here: int, other: int, table: int) -> bytes:
        def packed(checksum: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, checksum, 0, here, other, 34, sectors - 34,
                uuid.UUID(disk_uuid).bytes_le, table, 128, 128, zlib.crc32(entries),
            )  # fmt: skip

        return packed(zlib.crc32(packed(0))).ljust(SECTOR_BYTES, b"\0")

    protective = render_mbr(boot_code, 0, [(0xEE, 1, sectors - 1, False)])
    with disk.open("r+b") as stream:
        stream.write(protective + header(1, sectors - 1, 2) + entries)
        stream.seek((sectors - 33) * SECTOR_BYTES)
        stream.write(bytes(entries) + header(sectors - 1, 1, sectors - 33))


def place(source: Path, disk: Path, offset_bytes: int) -> None:
    """Copy `source` into `disk` at an offset, leaving blocks of zeros as holes."""
    with source.open("rb") as reader, disk.open("r+b") as writer:
        writer.seek(offset_bytes)
        while block := reader.read(MIB):
            if block.count(0) == len(block):
                writer.seek(len(block), os.SEEK_CUR)
            else:
                writer.write(block)


def convert_to_qcow2(raw: Path, qcow2: Path, *, compression: str | None) -> None:
    """Turn a raw disk into a qcow2 (version 3) and check it; `compression` is 'zstd', 'zlib' or None."""
    argv: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    if compression:
        argv += ["-c", "-o", f"compat=1.1,compression_type={compression}"]
    # One coroutine: with more, clusters land in the file in whatever order they finish.
    run([*argv, "-m", "1", raw, qcow2], timeout_seconds=1800)
    run(["qemu-img", "check", "-f", "qcow2", qcow2])


def copy_tree(source: Path, target: Path) -> None:
    """Copy a recipe's static files, keeping only the executable bit of their modes."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy.mkdir(exist_ok=True, parents=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
