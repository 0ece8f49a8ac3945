"""The tiny guest image: Debian's cloud kernel, busybox and dropbear under an init of our own (root/sbin/init).

A disk of two partitions: a FAT file system with boot loader, kernel and initramfs, and the ext4 root file system.
Built without root. Called by `images/build tiny`.
"""

from pathlib import Path

from imagebuild import archive, disk
from imagebuild.stage import BuildError, Progress, run

NEEDED_PROGRAMS = {
    "apt-get": "apt",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "syslinux": "syslinux",
    "/usr/lib/syslinux/modules/bios/ldlinux.c32": "syslinux-common",
    "/usr/lib/syslinux/mbr/mbr.bin": "syslinux-common",
}

RECIPE_DIR = Path(__file__).resolve().parent
# Every time inside the image: 2024-01-01 00:00:00 UTC.
EPOCH = 1704067200
ROOT_UUID = "7e57ab1e-0000-4000-8000-000000000001"
DISK_ID = 0x7E57AB1E
# A volume of 1 GiB, the smallest there is, needs no growing at its first boot.
DISK_BYTES = 1024 * disk.MIB
BOOT_OFFSET = 1 * disk.MIB
ROOT_OFFSET = 24 * disk.MIB

PACKAGES = {
    "busybox": "busybox-static",
    "dropbear": "dropbear-bin",
    "e2fsprogs": "e2fsprogs",
    "util-linux": "util-linux",
    "libc": "libc6",
    "libblkid": "libblkid1",
    "libcom_err": "libcom-err2t64|libcom-err2",
    "libcrypt": "libcrypt1",
    "libext2fs": "libext2fs2t64|libext2fs2",
    "libgmp": "libgmp10",
    "libtomcrypt": "libtomcrypt1",
    "libtommath": "libtommath1",
    "libuuid": "libuuid1t64|libuuid1",
    "libz": "zlib1g",
}
LIBRARIES = {
    "libc": ["libc.so.6"],
    "libblkid": ["libblkid.so.1"],
    "libcom_err": ["libcom_err.so.2"],
    "libcrypt": ["libcrypt.so.1"],
    "libext2fs": ["libext2fs.so.2", "libe2p.so.2"],
    "libgmp": ["libgmp.so.10"],
    "libtomcrypt": ["libtomcrypt.so.1"],
    "libtommath": ["libtommath.so.1"],
    "libuuid": ["libuuid.so.1"],
    "libz": ["libz.so.1"],
}
# Files of packages by the path they get in the image; several names are tried for where Debian keeps them.
PROGRAMS = {
    "/bin/blkid": ("util-linux", ["/sbin/blkid", "/usr/sbin/blkid"]),
    "/bin/dbclient": ("dropbear", ["/usr/bin/dbclient"]),
    "/bin/dropbear": ("dropbear", ["/usr/sbin/dropbear"]),
    "/bin/dropbearkey": ("dropbear", ["/usr/bin/dropbearkey"]),
    "/bin/e2fsck": ("e2fsprogs", ["/sbin/e2fsck", "/usr/sbin/e2fsck"]),
    "/bin/mke2fs": ("e2fsprogs", ["/sbin/mke2fs", "/usr/sbin/mke2fs"]),
    "/bin/resize2fs": ("e2fsprogs", ["/sbin/resize2fs", "/usr/sbin/resize2fs"]),
}
INITRAMFS_MODULES = [
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
    "failover", "net_failover", "virtio_net",
]  # fmt: skip
INITRAMFS_APPLETS = [
    "blockdev", "cttyhack", "dd", "findfs", "insmod", "mount", "setsid", "sh", "switch_root", "usleep",
]  # fmt: skip
ROOT_MODULES = ["button", "evdev", "virtio-rng", "virtio_balloon", "virtio_console"]

# nokaslr, mitigations=off, cryptomgr.notests and tsc=reliable each save boot time on an emulated processor;
# an image for tests has nothing that they would protect.
KERNEL_PARAMETERS = (
    "console=ttyS0 quiet loglevel=3 panic=5 nokaslr mitigations=off cryptomgr.notests tsc=reliable no_timer_check"
    " 8250.nr_uarts=1 apparmor=0 audit=0"
)
SYSLINUX_CONFIG = f"""\
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
  LINUX vmlinuz
  INITRD initrd
  APPEND {KERNEL_PARAMETERS}
"""


def build(work: Path, output: Path, progress: Progress) -> None:
    """Write the finished qcow2 to `output`; everything else stays in `work`. Raises BuildError."""
    with progress.stage("downloading packages"):
        packages = archive.download(list(PACKAGES.values()), work / "debs")
        kernel = _download_kernel(work / "debs")
        progress.say(f"kernel {kernel.version()}")
    with progress.stage("file systems"):
        boot = _make_boot_partition(work, packages, kernel)
        root = _make_root_partition(work, packages, kernel)
    with progress.stage("disk"):
        raw = work / "disk.raw"
        mbr_code = Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()
        boot_sectors = (ROOT_OFFSET - BOOT_OFFSET) // disk.SECTOR_BYTES
        root_sectors = (DISK_BYTES - ROOT_OFFSET) // disk.SECTOR_BYTES
        raw.write_bytes(disk.render_mbr(mbr_code, DISK_ID, [
            (0x0E, BOOT_OFFSET // disk.SECTOR_BYTES, boot_sectors, True),
            (0x83, ROOT_OFFSET // disk.SECTOR_BYTES, root_sectors, False),
        ]))  # fmt: skip
        with raw.open("r+b") as stream:
            stream.truncate(DISK_BYTES)
        disk.place(boot, raw, BOOT_OFFSET)
        disk.place(root, raw, ROOT_OFFSET)
        disk.convert_to_qcow2(raw, output, compression=None)


def _download_kernel(folder: Path) -> archive.Package:
    """The kernel image that the cloud kernel's meta package depends on."""
    meta = archive.download(["linux-image-cloud-amd64"], folder)["linux-image-cloud-amd64"]
    names = [name for name in archive.parse_depends(meta.control()) if name.startswith("linux-image-")]
    if len(names) != 1:
        raise BuildError(f"linux-image-cloud-amd64 depends on {names}, not on one kernel")
    return archive.download(names, folder)[names[0]]


def strip_module_signature(module: bytes) -> bytes:
    """A module without its appended signature: checking one costs an emulated processor many milliseconds.

    Layout: include/linux/module_signature.h; the kernel takes unsigned modules unless module.sig_enforce is set.
    """
    magic = b"~Module signature appended~\n"
    if not module.endswith(magic):
        return module
    descriptor = module[-len(magic) - 12 : -len(magic)]
    signature_bytes = int.from_bytes(descriptor[8:12], "big")
    return module[: -len(magic) - 12 - signature_bytes]


def _write_modules(kernel: archive.Package, names: list[str], folder: Path) -> None:
    by_name = {Path(path).name: content for path, content in kernel.files().items() if path.endswith(".ko")}
    folder.mkdir(parents=True)
    for name in names:
        if f"{name}.ko" not in by_name:
            raise BuildError(f"{kernel.deb.name} has no uncompressed module {name}.ko")
        (folder / f"{name}.ko").write_bytes(strip_module_signature(by_name[f"{name}.ko"]))


def _make_boot_partition(work: Path, packages: dict[str, archive.Package], kernel: archive.Package) -> Path:
    """A FAT file system with syslinux, its configuration, the kernel and the initramfs."""
    files = work / "boot"
    files.mkdir()
    kernels = [path for path in kernel.files() if path.startswith("/boot/vmlinuz-")]
    (files / "vmlinuz").write_bytes(kernel.files()[kernels[0]])
    (files / "initrd").write_bytes(_make_initramfs(work, packages, kernel))
    (files / "syslinux.cfg").write_text(SYSLINUX_CONFIG)
    (files / "ldlinux.c32").write_bytes(Path("/usr/lib/syslinux/modules/bios/ldlinux.c32").read_bytes())
    disk.set_times(files, EPOCH)
    image = work / "boot.fat"
    with image.open("wb") as stream:
        stream.truncate(ROOT_OFFSET - BOOT_OFFSET)
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "MTOOLS_SKIP_CHECK": "1"}
    sectors = (ROOT_OFFSET - BOOT_OFFSET) // disk.SECTOR_BYTES
    hidden = BOOT_OFFSET // disk.SECTOR_BYTES
    run(
        ["mformat", "-i", image, "-T", str(sectors), "-h", "255", "-s", "63", "-H", str(hidden), "-c", "8",
         "-N", f"{DISK_ID:08x}", "-v", "TINYBOOT", "::"],
        environment=environment,
    )  # fmt: skip
    names = ["ldlinux.c32", "syslinux.cfg", "initrd", "vmlinuz"]
    run(["mcopy", "-m", "-i", image, *(files / name for name in names), "::"], environment=environment)
    run(["syslinux", "--install", image], environment=environment)
    return image


def _make_initramfs(work: Path, packages: dict[str, archive.Package], kernel: archive.Package) -> bytes:
    tree = work / "initramfs"
    disk.copy_tree(RECIPE_DIR / "initramfs", tree)
    _write_modules(kernel, INITRAMFS_MODULES, tree / "modules")
    for name in ("bin", "dev", "proc", "sys", "root"):
        (tree / name).mkdir()
    busybox = tree / "bin" / "busybox"
    busybox.write_bytes(_busybox(packages))
    busybox.chmod(0o755)
    for applet in INITRAMFS_APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    return disk.render_cpio(tree, EPOCH)


def _busybox(packages: dict[str, archive.Package]) -> bytes:
    return packages[PACKAGES["busybox"]].file("/bin/busybox", "/usr/bin/busybox")


def _make_root_partition(work: Path, packages: dict[str, archive.Package], kernel: archive.Package) -> Path:
    tree = work / "root"
    folders = (
        "bin", "dev", "etc/dropbear", "home/ec2-user/.ssh", "lib/x86_64-linux-gnu", "lib64", "mnt", "proc",
        "root/.ssh", "run", "sys", "tmp", "usr", "var/lib/tiny", "var/log",
    )  # fmt: skip
    for folder in folders:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    disk.copy_tree(RECIPE_DIR / "root", tree)
    _write_modules(kernel, ROOT_MODULES, tree / "lib" / "modules")
    for path, (package, sources) in PROGRAMS.items():
        _write_program(tree, path, packages[PACKAGES[package]].file(*sources))
    for package, names in LIBRARIES.items():
        for name in names:
            paths = [f"{prefix}/lib/x86_64-linux-gnu/{name}" for prefix in ("", "/usr")]
            _write_program(tree, f"/lib/x86_64-linux-gnu/{name}", packages[PACKAGES[package]].file(*paths))
    loader = packages[PACKAGES["libc"]].file(
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    )
    _write_program(tree, "/lib64/ld-linux-x86-64.so.2", loader)
    _write_program(tree, "/bin/busybox", _busybox(packages))
    for applet in run([tree / "bin" / "busybox", "--list"]).decode().split():
        for folder in ("bin", "sbin"):
            if (tree / folder / applet).exists():
                break
        else:
            (tree / "bin" / applet).symlink_to("busybox")
    for name in ("mkfs.ext4", "mkfs.ext3", "mkfs.ext2"):
        (tree / "bin" / name).unlink(missing_ok=True)
        (tree / "bin" / name).symlink_to("mke2fs")
    (tree / "bin" / "ssh").symlink_to("dbclient")
    for name in ("bin", "sbin", "lib"):
        (tree / "usr" / name).symlink_to("../bin" if name != "lib" else "../lib")
    for private in ("root", "root/.ssh", "home/ec2-user", "home/ec2-user/.ssh", "etc/dropbear"):
        (tree / private).chmod(0o700)
    (tree / "etc" / "shadow").chmod(0o600)
    disk.set_times(tree, EPOCH)
    image = work / "root.ext4"
    disk.make_ext4(
        tree, image, size_bytes=DISK_BYTES - ROOT_OFFSET, uuid=ROOT_UUID, label="tiny-root", epoch=EPOCH,
        options=["-J", "size=4", "-m", "0", "-O", "^metadata_csum"],
        owner=lambda path: 1000 if path.startswith("/home/ec2-user") else 0,
    )  # fmt: skip
    return image


def _write_program(tree: Path, path: str, content: bytes) -> None:
    target = tree / path.lstrip("/")
    target.write_bytes(content)
    target.chmod(0o755)
