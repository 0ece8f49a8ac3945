"""The command line's side of the unix-socket door: one JSON request, one JSON reply. Owns how a failure to reach the
daemon is told. Refuses to import the wire or any client library: a cold start must stay fast.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

UPLOAD_CHUNK_BYTES = 1024 * 1024


class DoorError(Exception):
    """The daemon refused: `code` is EC2's, `message` its sentence."""

    def __init__(self, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.request_id = request_id


class DaemonUnreachableError(Exception):
    """Nothing answers on the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Door:
    """Calls operations of the daemon behind `socket_path`."""

    def __init__(self, socket_path: str, timeout_seconds: float = 60.0) -> None:
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def ec2(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an EC2 operation with botocore-named parameters. Raises DoorError, DaemonUnreachableError."""
        return self._post(f"/v1/ec2/{operation}", parameters)

    def minicloud(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation that AWS does not have. Raises DoorError, DaemonUnreachableError."""
        return self._post(f"/v1/minicloud/{operation}", parameters)

    def call(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Call an operation of any service. Raises DoorError, DaemonUnreachableError."""
        return self._post(f"/v1/{quote(service, safe='')}/{quote(operation, safe='')}", parameters)

    def upload(self, file: BinaryIO, size_bytes: int, progress: Callable[[int], None]) -> str:
        """Stream a disk image into the daemon's spool; return the URL to import it by. Calls progress(bytes sent)."""

        def chunks() -> Any:
            sent = 0
            while chunk := file.read(UPLOAD_CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                progress(sent)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        return str(self._send("PUT", "/v1/minicloud/UploadImport", chunks(), headers)["Url"])

    def _post(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({key: value for key, value in parameters.items() if value is not None}).encode()
        return self._send("POST", path, body, {"Content-Type": "application/json"})

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        connection = _UnixConnection(self._socket_path, self._timeout_seconds)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise DaemonUnreachableError(
                f"no minicloud daemon answers at {self._socket_path}. Start one with `minicloud serve`."
            ) from error
        except PermissionError as error:
            raise DaemonUnreachableError(
                f"{self._socket_path} is not yours to open. Run this as root or as the daemon's user."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachableError(
                f"the minicloud daemon at {self._socket_path} broke off: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()
        return _parse(response.status, text)


def _parse(status: int, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text) if text else {}
    except ValueError as error:
        raise DoorError("InternalError", f"the daemon answered status {status} without JSON") from error
    if status >= 400:
        fault = document.get("Error", {})
        raise DoorError(
            str(fault.get("Code", "InternalError")),
            str(fault.get("Message", f"status {status}")),
            str(document.get("RequestId", "")),
        )
    return dict(document)


def keys_folder() -> Path:
    """Return the folder where this user's generated private keys are kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "minicloud" / "keys"
