"""What a libvirt error means for its caller: try again, or give up. Decided by code and domain, never by text. Pure.

Called by everything in hosts/ that calls libvirt; nothing of libvirt's errors leaves the room.
"""

from __future__ import annotations

import errno

import libvirt

from minicloud.errors import HostError, PermanentError, RefusedError, TransientError

INTERNAL_ERROR = "Server.InternalError"

# What was asked is wrong in itself: the same XML or flag will be refused again.
_PERMANENT_CODES = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_OS_TYPE,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_CPU_INCOMPATIBLE,
        libvirt.VIR_ERR_INVALID_MAC,
        libvirt.VIR_ERR_DOM_EXIST,
        libvirt.VIR_ERR_OVERFLOW,
    }
)

# System errors (int1 is the errno) that say a file the domain names is not there or not ours to open. Not ENODEV:
# that is a bridge, which the host side makes again.
_PERMANENT_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM})

# Where the connection itself is at fault, no code says anything about the domain.
_TRANSPORT_DOMAINS = frozenset(
    {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_SSH, libvirt.VIR_FROM_STREAMS}
)


def translate(error: libvirt.libvirtError, what: str) -> HostError:
    """Return the TransientError or PermanentError for a libvirt error; `what` says what was tried, for the log."""
    code, domain = error.get_error_code(), error.get_error_domain()
    detail = f"{what}: {error.get_error_message()} (libvirt code {code}, domain {domain})"
    if domain in _TRANSPORT_DOMAINS:
        return TransientError(detail)
    if code in _PERMANENT_CODES:
        return PermanentError(INTERNAL_ERROR, detail)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() in _PERMANENT_ERRNOS:
        return PermanentError(INTERNAL_ERROR, detail)
    if code == libvirt.VIR_ERR_INTERNAL_ERROR and domain == libvirt.VIR_FROM_QEMU:
        # Such as why QEMU ended at once: for want of memory, and it may start later, or for good.
        return RefusedError(detail)
    return TransientError(detail)


def translate_define(error: libvirt.libvirtError, what: str) -> HostError:
    """As `translate`, for the definition of a domain: there, "operation failed" is a verdict on what was asked.

    It says that the host has no firmware of the kind (UEFI without OVMF), or that the name is another domain's.
    """
    translated = translate(error, what)
    if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED and isinstance(translated, TransientError):
        return PermanentError(INTERNAL_ERROR, translated.detail)
    return translated


def is_no_domain(error: libvirt.libvirtError) -> bool:
    """Say whether libvirt knows no such domain."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def is_wrong_state(error: libvirt.libvirtError) -> bool:
    """Say whether the domain is not in the state the call needs: not running, or running already."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID)
