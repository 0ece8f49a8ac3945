from __future__ import annotations

import errno

import libvirt
import pytest

from minicloud.errors import PermanentError, RefusedError, TransientError
from minicloud.hosts.libvirt_errors import is_no_domain, is_wrong_state, translate, translate_define


def error(code: int, domain: int = libvirt.VIR_FROM_QEMU, int1: int = 0) -> libvirt.libvirtError:
    made = libvirt.libvirtError("made by a test")
    made.err = (code, domain, "what libvirt said", 2, None, None, None, int1, 0)
    return made


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (error(libvirt.VIR_ERR_XML_ERROR), PermanentError),
        (error(libvirt.VIR_ERR_XML_DETAIL), PermanentError),
        (error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED), PermanentError),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, int1=errno.ENOENT), PermanentError),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, int1=errno.ENOMEM), TransientError),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, int1=errno.ENODEV), TransientError),
        (error(libvirt.VIR_ERR_OPERATION_TIMEOUT), TransientError),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR), RefusedError),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC), TransientError),
        (error(libvirt.VIR_ERR_OPERATION_FAILED), TransientError),
        (error(9999), TransientError),
        # The socket of a libvirtd that restarts does not exist for a moment, which says nothing of a domain.
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.ENOENT), TransientError),
        (error(libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_FROM_REMOTE), TransientError),
    ],
)
def test_codes_decide(made: libvirt.libvirtError, kind: type[Exception]) -> None:
    translated = translate(made, "starting i-1")
    assert type(translated) is kind
    assert "starting i-1: what libvirt said" in translated.detail


def test_permanent_ones_carry_a_code_for_the_state_reason() -> None:
    translated = translate(error(libvirt.VIR_ERR_XML_ERROR), "defining")
    assert isinstance(translated, PermanentError)
    assert translated.code == "Server.InternalError"


def test_an_operation_that_failed_is_a_verdict_only_where_it_was_a_definition() -> None:
    made = error(libvirt.VIR_ERR_OPERATION_FAILED)
    assert type(translate(made, "starting")) is TransientError
    assert type(translate_define(made, "defining")) is PermanentError
    assert type(translate_define(error(libvirt.VIR_ERR_INTERNAL_ERROR), "defining")) is RefusedError


def test_questions_by_code() -> None:
    assert is_no_domain(error(libvirt.VIR_ERR_NO_DOMAIN))
    assert not is_no_domain(error(libvirt.VIR_ERR_OPERATION_INVALID))
    assert is_wrong_state(error(libvirt.VIR_ERR_OPERATION_INVALID))
    assert not is_wrong_state(error(libvirt.VIR_ERR_NO_DOMAIN))
