"""An SSH connection that dies is told of as the broken link it is."""

from __future__ import annotations

import io
from typing import Any

import paramiko
import pytest

from minicloud.hosts.ssh import SshLink


class DyingChannel:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def makefile_stderr(self, mode: str) -> io.BytesIO:
        return io.BytesIO()

    def sendall(self, data: bytes) -> None:
        raise self._error


@pytest.mark.parametrize("error", [EOFError(), paramiko.SSHException("Key-exchange timed out"), OSError("closed")])
def test_whatever_a_send_meets_is_an_os_error(error: Exception) -> None:
    channel: Any = DyingChannel(error)
    transport: Any = None
    link = SshLink(transport, channel, lambda line: None)
    with pytest.raises(OSError):
        link.send(b"frame")
