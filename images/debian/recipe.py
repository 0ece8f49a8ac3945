"""The Debian guest image: stock Debian 12 with cloud-init as Debian ships it, nothing of minicloud inside.

It shows that ordinary cloud images work unmodified. Partitioned like Debian's own cloud images: GPT, the root file
system as partition 1 at the end of the disk, a BIOS boot partition (14) for GRUB. Built by mmdebstrap as root, or in
a user namespace where there is one; no loop devices. Called by `images/build debian`.
"""

import os
import struct
import time
from pathlib import Path

from imagebuild import disk
from imagebuild.stage import Progress, run

NEEDED_PROGRAMS = {
    "debugfs": "e2fsprogs",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}

RECIPE_DIR = Path(__file__).resolve().parent
RELEASE = "bookworm"
# The time of whatever the build itself makes: 2024-01-01 00:00:00 UTC. Debian's files keep theirs.
EPOCH = 1704067200
ROOT_UUID = "deb1a400-0000-4000-8000-000000000001"
ROOT_PARTUUID = "deb1a400-0000-4000-8000-000000000002"
BIOS_BOOT_PARTUUID = "deb1a400-0000-4000-8000-00000000000e"
DISK_UUID = "deb1a400-0000-4000-8000-0000000000ff"
DISK_BYTES = 2048 * disk.MIB
BIOS_BOOT_OFFSET = 1 * disk.MIB
ROOT_OFFSET = 4 * disk.MIB

# What Debian's generic cloud image of this release has, less tools for people at a prompt.
PACKAGES = [
    "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "e2fsprogs", "grub-pc", "ifupdown-",
    "init", "initramfs-tools", "iproute2", "iputils-ping", "isc-dhcp-client", "libpam-systemd",
    "linux-image-cloud-amd64", "netbase", "netplan.io", "openssh-server", "qemu-guest-agent", "sudo",
    "systemd-resolved", "systemd-timesyncd", "udev", "zstd",
]  # fmt: skip
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"]
KEPT = ["/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias"]


def build(work: Path, output: Path, progress: Progress) -> None:
    """Write the finished qcow2 to `output`; everything else stays in `work`. Raises BuildError."""
    tree = work / "tree"
    started = time.time()
    with progress.stage("installing Debian (a minute or two)"):
        _install(tree)
    with progress.stage("root file system"):
        _set_new_times(tree, started)
        root = work / "root.ext4"
        root_bytes = DISK_BYTES - ROOT_OFFSET - disk.MIB
        disk.make_ext4(
            tree, root, size_bytes=root_bytes, file_system_uuid=ROOT_UUID, label="", epoch=EPOCH, options=[], owner=None
        )
    with progress.stage("disk"):
        raw = work / "disk.raw"
        _write_disk(raw, tree, root)
        disk.convert_to_qcow2(raw, output, compression="zstd")


def _install(tree: Path) -> None:
    argv: list[str | Path] = ["mmdebstrap", "--quiet", "--variant=minbase", "--architectures=amd64"]
    argv += [f"--include={','.join(package for package in PACKAGES)}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    argv += [f"--dpkgopt=path-include={pattern}" for pattern in KEPT]
    argv += [f'--customize-hook={RECIPE_DIR / "customize.sh"} "$1"', RELEASE, tree]
    # Not SOURCE_DATE_EPOCH: under it Python files are compiled to be checked against their source at every import.
    run(argv, environment={"IMAGE_EPOCH": str(EPOCH), "ROOT_PARTUUID": ROOT_PARTUUID}, timeout_seconds=1500)


def _set_new_times(tree: Path, started: float) -> None:
    """Give what the build made the recipe's time. Debian's own files keep theirs: compiled Python files name it."""
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in (*files, *folders):
            path = os.path.join(folder, name)  # noqa: PTH118 - names of any bytes, tens of thousands of them
            if os.lstat(path).st_mtime >= started - 1:
                os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    os.utime(tree, (EPOCH, EPOCH))


def _write_disk(raw: Path, tree: Path, root: Path) -> None:
    """Partition table, boot loader and root file system on a sparse raw disk."""
    with raw.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    grub = tree / "boot" / "grub" / "i386-pc"
    core_sector = BIOS_BOOT_OFFSET // disk.SECTOR_BYTES
    boot, core = link_grub((grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes(), core_sector)
    partitions = [
        disk.GptPartition(
            14, disk.GPT_BIOS_BOOT, BIOS_BOOT_PARTUUID, core_sector, ROOT_OFFSET // disk.SECTOR_BYTES - 1
        ),
        disk.GptPartition(
            1, disk.GPT_LINUX_ROOT_X86_64, ROOT_PARTUUID, ROOT_OFFSET // disk.SECTOR_BYTES,
            (DISK_BYTES - disk.MIB) // disk.SECTOR_BYTES - 1,
        ),
    ]  # fmt: skip
    disk.write_gpt(raw, boot[:440], DISK_UUID, partitions)
    with raw.open("r+b") as stream:
        stream.seek(BIOS_BOOT_OFFSET)
        stream.write(core)
    disk.place(root, raw, ROOT_OFFSET)


def link_grub(boot: bytes, core: bytes, core_sector: int) -> tuple[bytes, bytes]:
    """GRUB's first two parts pointed at each other, as grub-bios-setup does on a device.

    boot.img holds the sector of core.img at byte 0x5c (kernel_sector) and, at 0x66, a jump that hard disks replace by
    two no-ops (drive number taken from the BIOS). core.img's first sector ends with a list of where the rest of
    it lies; grub-mkimage filled in all but the sector. (GRUB 2: i386/pc/boot.S, diskboot.S, util/setup.c)
    """
    patched_boot, patched_core = bytearray(boot), bytearray(core)
    patched_boot[0x5C:0x64] = struct.pack("<Q", core_sector)
    patched_boot[0x66:0x68] = b"\x90\x90"
    patched_core[0x1F4:0x1FC] = struct.pack("<Q", core_sector + 1)
    return bytes(patched_boot), bytes(patched_core)
