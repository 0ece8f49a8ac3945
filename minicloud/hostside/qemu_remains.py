"""Removes what libvirt leaves of a domain that is gone: its QEMU's log, and what a killed libvirtd could not tidy up.

Owns no file while the domain exists: called by verbs.py when an instance ends for good, after its QEMU is gone. It
refuses names that are not instance ids, and removes nothing whose name is not exactly the instance's.
"""

from __future__ import annotations

import os
import re
import shutil

from minicloud.hostside import codes
from minicloud.hostside.failures import Failure

LOG_FOLDER = "/var/log/libvirt/qemu"
RUN_FOLDER = "/run/libvirt/qemu"
STATE_FOLDER = "/var/lib/libvirt/qemu"

_NAME = re.compile(r"i-[0-9a-f]{8,17}")


def ensure_no_remains(
    name: str, log_folder: str = LOG_FOLDER, run_folder: str = RUN_FOLDER, state_folder: str = STATE_FOLDER
) -> None:
    """Remove the logs, the pid file and the folders of a domain; absent ones are fine."""
    if not _NAME.fullmatch(name):
        raise Failure(codes.INTERNAL, f"not an instance id: {name!r}", transient=False)
    # virtlogd rotates NAME.log to NAME.log.0 and so on; libvirt names folders domain-<id>-<name>.
    own = re.escape(name)
    _remove(log_folder, rf"{own}\.log(\.[0-9]+)?")
    _remove(run_folder, rf"{own}\.pid")
    for folder in (state_folder, os.path.join(state_folder, "channel", "target")):
        _remove(folder, rf"domain-[0-9]+-{own}")


def _remove(folder: str, pattern: str) -> None:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if not re.fullmatch(pattern, entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            try:
                os.unlink(entry.path)
            except FileNotFoundError:
                pass
