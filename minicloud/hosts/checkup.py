"""The check-up of this machine as a KVM host and controller: what is there, what is not, and how to mend it.

Owns the questions of `minicloud doctor`; changes nothing on the machine. Called through daemon.py.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OK = "ok"
WARN = "warn"
FAIL = "fail"

COMMAND_SECONDS = 10.0
REAP_SECONDS = 0.5
LEAST_FREE_BYTES = 5 * 1024**3
STA_UNSYNC = 0x0040
# struct timex of glibc is 208 bytes on 64-bit Linux; its `status` follows modes, offset, freq, maxerror and esterror.
TIMEX_BYTES = 256
TIMEX_STATUS_OFFSET = 40


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `status` ok, warn or fail; `found` what is there; `mend` what to do, empty when nothing is wrong."""

    name: str
    status: str
    found: str
    mend: str = ""


def check_up(probe_virt: Callable[[], tuple[str, str]], libvirt_version: Callable[[], str], folder: str) -> list[Check]:
    """Run every check. `probe_virt` answers ("kvm"|"qemu", why); `libvirt_version` raises OSError if none answers.

    `folder` is where disks will be kept.
    """
    return [
        check_kvm(probe_virt),
        check_nested(Path("/sys/module")),
        check_libvirt(libvirt_version),
        check_program("qemu", "qemu-system-x86_64", "qemu-system-x86", FAIL),
        check_program("qemu-img", "qemu-img", "qemu-utils", FAIL),
        check_program("nftables", "nft", "nftables", FAIL),
        check_program("dnsmasq", "dnsmasq", "dnsmasq-base", FAIL),
        check_program("iproute2", "ip", "iproute2", FAIL),
        check_program("ssh", "ssh", "openssh-client", WARN),
        check_lvm(),
        check_disk_space(folder),
        check_reaping_init(),
        check_clock(),
        check_root(),
    ]


def check_kvm(probe_virt: Callable[[], tuple[str, str]]) -> Check:
    """Say whether guests will run under KVM or be emulated, and why."""
    if not Path("/dev/kvm").exists():
        return Check(
            "kvm",
            WARN,
            "/dev/kvm does not exist: guests are emulated (TCG), which is many times slower",
            "enable virtualization (VT-x, AMD-V) in the firmware, or nested virtualization of the outer hypervisor;"
            " then `modprobe kvm_intel` or `modprobe kvm_amd`",
        )
    virt_type, why = probe_virt()
    if virt_type == "kvm":
        return Check("kvm", OK, why)
    return Check(
        "kvm",
        WARN,
        f"/dev/kvm exists but guests do not run under it: {why}",
        "guests are emulated (TCG). On a nested host, ask the outer hypervisor for a full CPU model (host-passthrough)",
    )


def check_nested(modules: Path) -> Check:
    """Say whether guests may be KVM hosts themselves."""
    for module in ("kvm_intel", "kvm_amd"):
        file = modules / module / "parameters" / "nested"
        if file.exists():
            if file.read_text(encoding="ascii").strip() in ("1", "Y"):
                return Check("nested kvm", OK, f"{module} has it on")
            return Check(
                "nested kvm",
                WARN,
                f"{module} has it off: guests cannot run KVM",
                f"echo 'options {module} nested=1' > /etc/modprobe.d/nested.conf, then reload the module",
            )
    return Check(
        "nested kvm", WARN, "no KVM module tells", "needed only by guests that run virtual machines themselves"
    )


def check_libvirt(libvirt_version: Callable[[], str]) -> Check:
    """Say whether the system libvirt answers."""
    try:
        return Check("libvirt", OK, libvirt_version())
    except OSError as error:
        mend = "apt install libvirt-daemon-system, then `systemctl start libvirtd` (or run libvirtd and virtlogd)"
        return Check("libvirt", FAIL, str(error), mend)


def check_program(name: str, program: str, package: str, missing: str) -> Check:
    """Say whether a program is installed, and which version it tells."""
    path = shutil.which(program, path=f"{os.defpath}:/usr/sbin:/sbin")
    if path is None:
        return Check(name, missing, f"{program} is not installed", f"apt install {package}")
    flag = {"ssh": "-V", "ip": "-V"}.get(program, "--version")
    answer = subprocess.run([path, flag], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return Check(name, OK, lines[0] if lines else path)


def check_lvm() -> Check:
    """Say whether LVM thin pools are possible; `directory` pools need neither program nor kernel support."""
    if shutil.which("lvs", path=f"{os.defpath}:/usr/sbin:/sbin") is None:
        return Check("lvm", WARN, "not installed; `directory` pools work without", "apt install lvm2")
    devices = Path("/proc/devices").read_text(encoding="ascii")
    if "device-mapper" not in devices:
        return Check(
            "lvm", WARN, "the kernel has no device-mapper; `directory` pools work without", "modprobe dm_thin_pool"
        )
    return Check("lvm", OK, "lvm2 and device-mapper are there")


def check_disk_space(folder: str) -> Check:
    """Say how much room there is for disks."""
    path = Path(folder)
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    found = f"{free / 1024**3:.1f} GiB free at {path}"
    if free < LEAST_FREE_BYTES:
        return Check("disk space", FAIL, found, "make room, or add the host with --pool on another file system")
    return Check("disk space", OK, found)


def check_reaping_init() -> Check:
    """Say whether process 1 reaps orphans: where it does not, libvirt waits seconds for processes that ended."""
    seconds = _seconds_until_orphan_is_reaped()
    if seconds is not None:
        return Check("reaping init", OK, f"an orphan was reaped after {seconds * 1000:.0f} ms")
    return Check(
        "reaping init",
        FAIL,
        f"an orphan was still a zombie after {REAP_SECONDS:g} s: libvirt will be very slow",
        "in a container use an init (`docker run --init`, `podman run --init`);"
        " else run libvirtd below `unshare --pid --fork --mount-proc` with a reaping first process",
    )


def _seconds_until_orphan_is_reaped() -> float | None:
    """Leave an orphan to process 1 and watch it go. None if it was not reaped within REAP_SECONDS."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0)
        os.write(write_end, str(grandchild).encode())
        os._exit(0)
    os.close(write_end)
    orphan = int(os.read(read_end, 32) or b"0")
    os.close(read_end)
    os.waitpid(child, 0)
    started = time.monotonic()
    while time.monotonic() - started < REAP_SECONDS:
        if not Path(f"/proc/{orphan}").exists():
            return time.monotonic() - started
        time.sleep(0.005)
    return None


def check_clock() -> Check:
    """Say whether the kernel's clock is kept right: signatures of clients more than five minutes away are refused."""
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    status = int.from_bytes(buffer.raw[TIMEX_STATUS_OFFSET : TIMEX_STATUS_OFFSET + 4], "little")
    if state < 0 or status & STA_UNSYNC:
        return Check(
            "clock",
            WARN,
            "nothing keeps it right",
            "apt install systemd-timesyncd or chrony (inside a virtual machine the outer host may do it)",
        )
    return Check("clock", OK, "synchronized")


def check_root() -> Check:
    """Say whether this process may manage guests and networks."""
    if os.geteuid() == 0:
        return Check("root", OK, "running as root")
    return Check("root", WARN, "not running as root: some checks saw less", "run `minicloud doctor` as root")
