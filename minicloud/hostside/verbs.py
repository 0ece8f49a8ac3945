"""The verbs a controller may call on a host: name, arguments, and what each stands for. One screen of dispatch.

Owns the table and the order of work inside a verb; the work itself is in disks.py, network.py, jobs.py and others.
Every verb may run twice. Verbs that change the world hold the fence of their resource (fences.py) throughout, and
begin nothing after the deadline by which their caller has given up. Called by session.py.
"""

from __future__ import annotations

import base64
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from minicloud.hostside import (
    codes,
    console,
    disks,
    fences,
    files,
    host_facts,
    jobs,
    kvm_probe,
    network,
    pools,
    ports,
    processes,
    qemu_remains,
    supervisor,
)
from minicloud.hostside.failures import Failure


@dataclass(frozen=True)
class Call:
    """What a verb is told beside its arguments: where the host side keeps its state, and when its caller gives up."""

    state_folder: str
    deadline: float

    def fenced(self, resource_id: str, epoch: int) -> Any:
        """Hold the fence of a resource; waits for it no longer than the caller does."""
        return fences.fenced(self.state_folder, resource_id, epoch, self.deadline - time.monotonic())


# Disks are made beside ports, which take longer.
_disk_threads = ThreadPoolExecutor(8, thread_name_prefix="disks")


def prepare(state_folder: str) -> None:
    """Make the state folder, forget what has long ended, and restore what a reboot took; once per session.

    Restoring goes on in the background. Where no port was ever pushed (a controller that is no host) nothing starts.
    """
    files.ensure_folder(Path(state_folder))
    fences.forget_ended(state_folder, time.time())
    if ports.folder(Path(state_folder)).exists():
        _restore_meanwhile(state_folder)


_restoring = threading.Lock()


def _restore_meanwhile(state_folder: str) -> None:
    """Restore the network in the background, unless that is going on."""
    if _restoring.acquire(blocking=False):
        threading.Thread(target=_restore, args=(state_folder,), name="restore", daemon=True).start()


def _restore(state_folder: str) -> None:
    try:
        supervisor.restore(state_folder)
    except Failure as failure:
        sys.stderr.write(f"session: restoring the network: {failure}\n")
    finally:
        _restoring.release()


def call(state_folder: str, verb: str, arguments: Dict[str, Any], deadline: float) -> Any:
    """Run one verb; returns JSON values. Raises Failure; anything else is a bug."""
    function = VERBS.get(verb)
    if function is None:
        raise Failure(codes.INTERNAL, f"no such verb: {verb!r}", transient=False)
    return function(Call(state_folder, deadline), **arguments)


def facts(call: Call) -> Dict[str, Any]:
    """Measure the host (host_facts.py)."""
    return host_facts.measure_host()


def ensure_instance(call: Call, plan: Dict[str, Any], epoch: int) -> None:
    """Make the disks, console folder, ports, rules and metadata of an InstancePlan."""
    with call.fenced(plan["instance_id"], epoch):
        console.ensure_console_folder(plan["console_path"])
        making = _disk_threads.submit(disks.ensure_disks, call.state_folder, plan["disks"])
        try:
            network.ensure_ports(plan["ports"], call.state_folder)
        finally:
            making.exception()  # Both have ended before the fence opens.
        making.result()


def ensure_no_instance(call: Call, removal: Dict[str, Any], epoch: int) -> None:
    """Take away what an InstanceRemoval names; with its console the instance ends for good."""
    with call.fenced(removal["instance_id"], epoch) as fence:
        network.ensure_no_ports(removal["port_ids"], call.state_folder)
        disks.ensure_no_disks(removal["disk_paths"])
        if removal["console_path"] is not None:
            console.ensure_no_console(removal["console_path"])
            qemu_remains.ensure_no_remains(removal["instance_id"])
            fence.end()


def admit_domain(call: Call, instance_id: str, epoch: int) -> Dict[str, Any]:
    """Admit an epoch for what the controller is about to ask libvirt; return the QEMU that libvirt's pid file names."""
    with call.fenced(instance_id, epoch):
        return {"pid": processes.find_by_pid_file(instance_id)}


def end_qemu(call: Call, instance_id: str, epoch: int) -> Dict[str, Any]:
    """Kill the QEMU of a domain that libvirt does not run (any more); wait until it is gone, or the deadline."""
    with call.fenced(instance_id, epoch):
        return {"gone": processes.end_qemu(instance_id, call.deadline - time.monotonic())}


def qemu_processes(call: Call, names: Optional[List[str]] = None) -> Dict[str, int]:
    """Return the process ids of living QEMUs by the names of their domains; of all of them without `names`."""
    return processes.find_qemu(names)


def probe_kvm(call: Call) -> Dict[str, str]:
    """Say whether guests run under KVM here, by running one; remembered until the host boots again."""
    return kvm_probe.probe(call.state_folder, host_facts.measure_host()["boot_id"])


def read_console(call: Call, path: str, max_bytes: int) -> str:
    """Return the end of a console log, as base64."""
    return base64.b64encode(console.read_console(path, max_bytes)).decode("ascii")


def start_job(call: Call, name: str, kind: str, arguments: Dict[str, Any], epoch: int) -> Dict[str, Any]:
    """Start a detached job unless one of that name exists; return its JobStatus either way."""
    with call.fenced(name, epoch):
        return jobs.start(call.state_folder, name, kind, arguments)


def job_status(call: Call, name: str) -> Dict[str, Any]:
    """Return the JobStatus of a job."""
    return jobs.status(call.state_folder, name)


def clean_job(call: Call, name: str, epoch: int) -> None:
    """End a job if it runs; forget it and its partial files."""
    with call.fenced(name, epoch) as fence:
        jobs.clean(call.state_folder, name)
        fence.end()


def inventory(call: Call) -> Dict[str, Any]:
    """List what this host holds under minicloud's names, but for domains, which libvirt knows.

    Controllers ask every few minutes. A session may last for months, so this is also when fences are forgotten, and
    when rules that somebody flushed or servers that somebody killed come back although no instance comes or goes.
    """
    fences.forget_ended(call.state_folder, time.time())
    held_ports = network.list_ports(call.state_folder)
    if held_ports:
        _restore_meanwhile(call.state_folder)
    return {
        "ports": held_ports,
        "routers": network.list_routers(),
        "disk_paths": pools.list_disks(call.state_folder),
        "jobs": jobs.names(call.state_folder),
    }


def pool_usage(call: Call, pool_folder: str) -> Dict[str, int]:
    """Make a directory pool if it is new; return its capacity and free space in bytes."""
    pools.ensure_pool(call.state_folder, pool_folder)
    capacity_bytes, free_bytes = pools.pool_usage(pool_folder)
    return {"capacity_bytes": capacity_bytes, "free_bytes": free_bytes}


VERBS: Dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        facts,
        probe_kvm,
        ensure_instance,
        ensure_no_instance,
        admit_domain,
        end_qemu,
        qemu_processes,
        read_console,
        start_job,
        job_status,
        clean_job,
        inventory,
        pool_usage,
    )
}
