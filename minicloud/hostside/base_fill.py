"""The job `fill_base`: brings a snapshot onto this host as a read-only raw file, which overlays stand on.

Arguments: {"path", "size_bytes", "blocks": [[index, sha256, url], ...], "certificate_sha256"}. Owns the base at `path`
and its `.part`.
Every block is verified before it is written; the base has its name only once it is whole, synced and read-only, so
whoever finds it may use it. Jobs that want one base wait for each other; what an earlier one left is checked and kept.
A server at https must show the certificate with that digest (in DER, hex; it came here through the controller's own
connection, so it need not be signed by anybody), or with None one that this host's CA certificates vouch for.
Result: {"fetched_blocks"}; 0 where somebody else had done it. Run by jobs.py in a process of its own.
"""

from __future__ import annotations

import errno
import http.client
import os
import ssl
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from minicloud.hostside import codes, disks, files, pools
from minicloud.hostside.blocks import (
    BLOCK_BYTES,
    CorruptObject,
    block_length,
    decode_block,
    digest,
    is_digest,
    max_stored_bytes,
)
from minicloud.hostside.failures import Failure
from minicloud.hostside.jobs import Context
from minicloud.hostside.sparse import data_blocks

THREADS = 4
ATTEMPTS = 5
REQUEST_SECONDS = 20.0
WAIT_SECONDS = 3600.0
FIRST_PAUSE_SECONDS = 0.2

Block = Tuple[int, str, str]


def check(arguments: Dict[str, Any]) -> None:
    """Refuse arguments that are none. Raises Failure."""
    if arguments.keys() != {"path", "size_bytes", "blocks", "certificate_sha256"}:
        raise Failure(codes.INTERNAL, f"not the arguments of a fill: {sorted(arguments)}", transient=False)
    disks.pool_of_base(arguments["path"])
    _checked(arguments["size_bytes"], arguments["blocks"])
    pin = arguments["certificate_sha256"]
    if pin is not None and not is_digest(pin):
        raise Failure(codes.INTERNAL, f"not the digest of a certificate: {pin!r}", transient=False)


def run(context: Context, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Fill the base. Raises Failure: NO_SPACE, UNAVAILABLE (transient: the source), CORRUPT_BLOCK, INTERNAL."""
    path, size_bytes = arguments["path"], arguments["size_bytes"]
    wanted = _checked(size_bytes, arguments["blocks"])
    pools.ensure_pool(context.state_folder, disks.pool_of_base(path))
    try:
        with files.locked(_lock_path(path), WAIT_SECONDS):
            if os.path.exists(path):
                return {"fetched_blocks": 0}
            fetched = _fill(context, path, size_bytes, wanted, arguments["certificate_sha256"])
            return {"fetched_blocks": fetched}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Failure(codes.NO_SPACE, f"{path}: {os.strerror(error.errno)}", transient=False) from error
        raise Failure(codes.UNAVAILABLE, f"{path}: {error}", transient=True) from error


def clean(arguments: Dict[str, Any]) -> None:
    """Remove what is unfinished, unless another job is at work on the same base."""
    path = arguments["path"]
    try:
        with files.locked(_lock_path(path), 0.0):
            files.remove_file(Path(_part(path)))
    except (Failure, FileNotFoundError):
        pass


def _part(path: str) -> str:
    return path + ".part"


def _lock_path(path: str) -> Path:
    return Path(path + ".lock")


def _checked(size_bytes: Any, listed: List[Any]) -> List[Block]:
    if type(size_bytes) is not int or size_bytes <= 0:
        raise Failure(codes.INTERNAL, f"not a size: {size_bytes!r}", transient=False)
    count = -(-size_bytes // BLOCK_BYTES)
    for index, sha256, url in listed:
        if type(index) is not int or not 0 <= index < count or not is_digest(sha256) or not isinstance(url, str):
            raise Failure(codes.INTERNAL, f"not a block: {[index, sha256]!r}", transient=False)
    return [(index, sha256, url) for index, sha256, url in listed]


def _fill(context: Context, path: str, size_bytes: int, wanted: List[Block], pin: Optional[str]) -> int:
    fd = os.open(_part(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        is_resumed = os.fstat(fd).st_size == size_bytes
        indexes = {index for index, _, _ in wanted}
        if not is_resumed or not indexes.issuperset(data_blocks(fd, size_bytes)):
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size_bytes)
        filler = _Filler(context, fd, size_bytes, wanted, is_resumed, pin)
        fetched = filler.run()
        os.fchmod(fd, 0o444)
        os.fsync(fd)
        os.replace(_part(path), path)
        files.sync_folder(Path(path).parent)
    finally:
        os.close(fd)
    return fetched


class _Filler:
    """A few threads that take blocks from one list until it is empty or one of them fails."""

    def __init__(
        self, context: Context, fd: int, size_bytes: int, wanted: List[Block], is_resumed: bool, pin: Optional[str]
    ) -> None:
        self._context = context
        self._fd = fd
        self._size_bytes = size_bytes
        self._wanted = wanted
        self._is_resumed = is_resumed
        self._pin = pin
        self._lock = threading.Lock()
        self._next = 0
        self._done = 0
        self._fetched = 0
        self._stop = threading.Event()

    def run(self) -> int:
        """Fill everything; returns how many blocks were fetched. Raises the first thread's Failure or OSError."""
        threads = min(THREADS, len(self._wanted))
        if threads:
            with ThreadPoolExecutor(threads) as pool:
                for future in [pool.submit(self._work) for _ in range(threads)]:
                    future.result()
        return self._fetched

    def _work(self) -> None:
        fetcher = _Fetcher(self._stop, self._pin)
        try:
            while not self._stop.is_set():
                with self._lock:
                    if self._next == len(self._wanted):
                        return
                    block = self._wanted[self._next]
                    self._next += 1
                fetched = self._put(fetcher, *block)
                with self._lock:
                    self._done += 1
                    self._fetched += fetched
                    self._context.progress(100 * self._done // len(self._wanted))
        except BaseException:
            self._stop.set()
            raise
        finally:
            fetcher.close()

    def _put(self, fetcher: "_Fetcher", index: int, sha256: str, url: str) -> bool:
        offset, length = index * BLOCK_BYTES, block_length(self._size_bytes, index)
        if self._is_resumed and digest(os.pread(self._fd, length, offset)) == sha256:
            return False
        view = memoryview(fetcher.fetch(url, sha256, length))
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written
        return True


class _Fetcher:
    """One thread's connection to wherever blocks come from; kept open between blocks."""

    def __init__(self, stop: threading.Event, pin: Optional[str]) -> None:
        self._stop = stop
        self._pin = pin
        self._origin: Tuple[str, str] = ("", "")
        self._connection: Optional[http.client.HTTPConnection] = None

    def fetch(self, url: str, sha256: str, length: int) -> bytes:
        """Return a verified block. Tries ATTEMPTS times. Raises Failure."""
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return decode_block(self._get(url, max_stored_bytes(length)), sha256, length)
            except CorruptObject as error:
                failure = Failure(codes.CORRUPT_BLOCK, str(error), transient=False)
            except (OSError, http.client.HTTPException) as error:
                failure = Failure(
                    codes.UNAVAILABLE, f"{_unsigned(url)}: {error or type(error).__name__}", transient=True
                )
            self.close()
            if attempt == ATTEMPTS or self._stop.wait(pause):
                break
            pause *= 2
        raise failure

    def close(self) -> None:
        """Let the connection go."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _get(self, url: str, max_bytes: int) -> bytes:
        parts = urllib.parse.urlsplit(url)
        if self._connection is None or self._origin != (parts.scheme, parts.netloc):
            self.close()
            self._connection = _connect(parts, self._pin)
            self._origin = (parts.scheme, parts.netloc)
        self._connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path, parts.query, "")))
        response = self._connection.getresponse()
        data = response.read(max_bytes + 1)
        if response.status == 404:
            raise Failure(codes.CORRUPT_BLOCK, f"{parts.path}: the store does not hold this block", transient=False)
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}")
        if len(data) <= max_bytes and response.length:
            raise http.client.IncompleteRead(data, response.length)
        if len(data) > max_bytes:
            raise CorruptObject(f"{parts.path} is larger than a block can be")
        return data


def _unsigned(url: str) -> str:
    """Return a URL without its query: the signature in it opens the block to whoever reads a log."""
    return url.partition("?")[0]


class _PinnedConnection(http.client.HTTPSConnection):
    """HTTPS to whoever shows one certificate; its names, dates and signers do not matter beside that."""

    def __init__(self, host: str, port: Optional[int], pin: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(host, port, timeout=REQUEST_SECONDS, context=context)
        self._pin = pin

    def connect(self) -> None:
        """Connect; nothing is sent to a server with another certificate. Raises OSError."""
        super().connect()
        shown = self.sock.getpeercert(binary_form=True)
        if not shown or digest(shown) != self._pin:
            self.close()
            raise ssl.SSLCertVerificationError("the server's certificate is not the one that it should have")


def _connect(parts: urllib.parse.SplitResult, pin: Optional[str]) -> http.client.HTTPConnection:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(codes.INTERNAL, f"not the URL of a block: {_unsigned(parts.geturl())!r}", transient=False)
    if parts.scheme == "https" and pin is not None:
        return _PinnedConnection(parts.hostname, parts.port, pin)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=REQUEST_SECONDS)
