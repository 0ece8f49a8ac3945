"""The tiny guest image: Debian's cloud kernel, busybox and dropbear under an init of our own (root/sbin/init).

A disk of two partitions: kernel and initramfs as bare sectors, read by our boot sector (boot/boot.S), and the ext4 root
file system. Built without root. Called by `images/build tiny`.
"""

from pathlib import Path

from imagebuild import archive, disk
from imagebuild.stage import BuildError, Progress, run

NEEDED_PROGRAMS = {
    "apt-get": "apt",
    "as": "binutils",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "ld": "binutils",
    "mke2fs": "e2fsprogs",
    "objcopy": "binutils",
    "qemu-img": "qemu-utils",
}

RECIPE_DIR = Path(__file__).resolve().parent
# Every time inside the image: 2024-01-01 00:00:00 UTC.
EPOCH = 1704067200
ROOT_UUID = "7e57ab1e-0000-4000-8000-000000000001"
DISK_ID = 0x7E57AB1E
# A volume of 1 GiB, the smallest there is, needs no growing at its first boot.
DISK_BYTES = 1024 * disk.MIB
BOOT_OFFSET = 1 * disk.MIB
ROOT_OFFSET = 20 * disk.MIB
PARTITION_BARE_DATA = 0xDA
PARTITION_LINUX = 0x83

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
ROOT_MODULES = ["button", "evdev", "virtio_rng", "virtio_balloon", "virtio_console"]

# Each of these saves an emulated processor boot time on what an image for tests does not need: address layout
# randomisation, mitigations, self-tests of ciphers, security modules, probing serial ports that are not there, and
# undoing SMP locks in the kernel's text.
KERNEL_PARAMETERS = (
    "console=ttyS0 quiet loglevel=3 panic=5 nokaslr mitigations=off cryptomgr.notests lsm= audit=0 8250.nr_uarts=1"
    " tsc=reliable no_timer_check noreplace-smp"
)
COMMAND_LINE_BYTES = 1024
# Under TCG alone: calibrating the local APIC's timer takes 100 ms, and what it gains over the HPET is lost there.
# And one processor until the devices have their places (init then adds the others): QEMU before 8.2 dies of SIGSEGV,
# now and then, where one processor moves a PCI device while another writes to its local APIC.
EMULATED_KERNEL_PARAMETERS = f"{KERNEL_PARAMETERS} nolapic_timer maxcpus=1"


def build(work: Path, output: Path, progress: Progress) -> None:
    """Write the finished qcow2 to `output`; everything else stays in `work`. Raises BuildError."""
    with progress.stage("downloading packages"):
        packages = archive.download(list(PACKAGES.values()), work / "debs")
        kernel = _download_kernel(work / "debs")
        progress.say(f"kernel {kernel.version()}")
    with progress.stage("file systems"):
        boot_code, boot_area = _make_boot_area(work, packages, kernel)
        root = _make_root_partition(work, packages, kernel)
    with progress.stage("disk"):
        raw = work / "disk.raw"
        root_sectors = (DISK_BYTES - ROOT_OFFSET) // disk.SECTOR_BYTES
        table = [
            (PARTITION_BARE_DATA, BOOT_OFFSET // disk.SECTOR_BYTES, len(boot_area) // disk.SECTOR_BYTES, True),
            (PARTITION_LINUX, ROOT_OFFSET // disk.SECTOR_BYTES, root_sectors, False),
        ]
        with raw.open("wb") as stream:
            stream.truncate(DISK_BYTES)
            stream.write(disk.render_mbr(boot_code, DISK_ID, table))
            stream.seek(BOOT_OFFSET)
            stream.write(boot_area)
        disk.place(root, raw, ROOT_OFFSET)
        disk.convert_to_qcow2(raw, output, compression=None)


def _download_kernel(folder: Path) -> archive.Package:
    """The kernel image that the cloud kernel's meta package depends on."""
    meta = archive.download(["linux-image-cloud-amd64"], folder)["linux-image-cloud-amd64"]
    names = [name for name in archive.parse_depends(meta.control()) if name.startswith("linux-image-")]
    if len(names) != 1:
        raise BuildError(f"linux-image-cloud-amd64 depends on {names}, not on one kernel")
    return archive.download(names, folder)[names[0]]


def _write_modules(work: Path, kernel: archive.Package, names: list[str], folder: Path) -> None:
    """Write the kernel's modules without signatures and type data, which an emulated processor spends long on.

    objcopy drops what follows the ELF file, so the signature goes too; the kernel takes unsigned modules unless
    module.sig_enforce is set. A '-' in a file's name becomes the '_' of the module's.
    """
    by_name = {Path(path).stem.replace("-", "_"): data for path, data in kernel.files().items() if path.endswith(".ko")}
    folder.mkdir(parents=True)
    for name in names:
        if name not in by_name:
            raise BuildError(f"{kernel.deb.name} has no uncompressed module {name}")
        whole = work / "module.ko"
        whole.write_bytes(by_name[name])
        run(["objcopy", "--remove-section=.BTF", whole, folder / f"{name}.ko"])


def _make_boot_area(work: Path, packages: dict[str, archive.Package], kernel: archive.Package) -> tuple[bytes, bytes]:
    """The boot sector's code, and what it reads: two command lines, the kernel, the initramfs, all in whole sectors."""
    area = bytearray()
    for line in (KERNEL_PARAMETERS, EMULATED_KERNEL_PARAMETERS):
        area += line.encode().ljust(COMMAND_LINE_BYTES, b"\0")
    vmlinuz = next(content for path, content in kernel.files().items() if path.startswith("/boot/vmlinuz-"))
    # Documentation/x86/boot.rst: "HdrS" at 0x202, sectors of the real-mode part less the first at 0x1f1, 0 meaning 4.
    if vmlinuz[0x202:0x206] != b"HdrS":
        raise BuildError("the kernel is no bzImage")
    setup_sectors = (vmlinuz[0x1F1] or 4) + 1
    first_sector = BOOT_OFFSET // disk.SECTOR_BYTES
    symbols = {
        "COMMAND_LINE_LBA": first_sector,
        "EMULATED_COMMAND_LINE_LBA": first_sector + COMMAND_LINE_BYTES // disk.SECTOR_BYTES,
        "KERNEL_LBA": first_sector + len(area) // disk.SECTOR_BYTES,
        "SETUP_SECTORS": setup_sectors,
    }
    area += disk.pad_to_sector(vmlinuz)
    initramfs = _make_initramfs(work, packages, kernel)
    symbols["INITRD_LBA"] = first_sector + len(area) // disk.SECTOR_BYTES
    symbols["INITRD_BYTES"] = len(initramfs)
    symbols["KERNEL_SECTORS"] = symbols["INITRD_LBA"] - symbols["KERNEL_LBA"] - setup_sectors
    area += disk.pad_to_sector(initramfs)
    if BOOT_OFFSET + len(area) > ROOT_OFFSET:
        raise BuildError("kernel and initramfs do not fit before the root file system: raise ROOT_OFFSET")
    return _assemble(work, symbols), bytes(area)


def _assemble(work: Path, symbols: dict[str, int]) -> bytes:
    """The boot sector's code with the places of what it reads built in."""
    definitions = [word for name, value in symbols.items() for word in ("--defsym", f"{name}={value}")]
    run(["as", "--32", *definitions, "-o", work / "boot.o", RECIPE_DIR / "boot" / "boot.S"])
    run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "start", "--oformat", "binary", "-o", work / "boot.bin",
         work / "boot.o"])  # fmt: skip
    return (work / "boot.bin").read_bytes()


def _make_initramfs(work: Path, packages: dict[str, archive.Package], kernel: archive.Package) -> bytes:
    tree = work / "initramfs"
    disk.copy_tree(RECIPE_DIR / "initramfs", tree)
    _write_modules(work, kernel, INITRAMFS_MODULES, tree / "modules")
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
    _write_modules(work, kernel, ROOT_MODULES, tree / "lib" / "modules")
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
    # What the file system already fills; init grows it where the partition is larger.
    root_sectors = (DISK_BYTES - ROOT_OFFSET) // disk.SECTOR_BYTES
    (tree / "var" / "lib" / "tiny" / "root-sectors").write_text(f"{root_sectors}\n")
    for private in ("root", "root/.ssh", "home/ec2-user", "home/ec2-user/.ssh", "etc/dropbear"):
        (tree / private).chmod(0o700)
    (tree / "etc" / "shadow").chmod(0o600)
    disk.set_times(tree, EPOCH)
    image = work / "root.ext4"
    disk.make_ext4(
        tree, image, size_bytes=DISK_BYTES - ROOT_OFFSET, file_system_uuid=ROOT_UUID, label="tiny-root", epoch=EPOCH,
        options=["-J", "size=4", "-m", "0", "-O", "^metadata_csum"],
        owner=lambda path: 1000 if path.startswith("/home/ec2-user") else 0,
    )  # fmt: skip
    return image


def _write_program(tree: Path, path: str, content: bytes) -> None:
    target = tree / path.lstrip("/")
    target.write_bytes(content)
    target.chmod(0o755)
