"""The host's end of a session: reads requests as frames, runs each verb in a thread, writes replies as they are done.

Owns standard input and output of the process, which carry frames and nothing else: whatever a verb or its children
print goes to standard error, which the controller logs. Knows no verb itself (verbs.py has the table). Started by
hosts/session.py through bootstrap.py; ends when its input does, or when the controller has been silent for
SILENCE_SECONDS (it pings more often than that), so that a vanished controller leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

from minicloud.hostside import codes, frames
from minicloud.hostside.failures import Failure

THREADS = 32
MAX_WAITING = 512
SILENCE_SECONDS = 300.0
GRACE_SECONDS = 20.0

Handler = Callable[[str, Dict[str, Any], float], Any]


class Session:
    """Frames in, verbs run, frames out. `handle(verb, arguments, deadline)` answers one request.

    `deadline` is on the monotonic clock: the caller has given up by then, so nothing may be begun after it.
    """

    def __init__(
        self, input_fd: int, output_fd: int, handle: Handler, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._handle = handle
        self._silence_seconds = silence_seconds
        self._write_lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="verb")

    def run(self, hello: Dict[str, Any]) -> None:
        """Serve until the input ends; then wait for what has begun (each verb may be repeated, but why break it)."""
        self._send({"hello": {"protocol": frames.PROTOCOL, **hello}})
        decoder = frames.Decoder()
        try:
            while True:
                ready, _, _ = select.select([self._input_fd], [], [], self._silence_seconds)
                data = os.read(self._input_fd, 1 << 18) if ready else b""
                if not data:
                    break
                for message in decoder.feed(data):
                    self._take(message)
        finally:
            # What has not ended after its grace hangs in a system call, and would keep this process for ever.
            watchdog = threading.Timer(GRACE_SECONDS, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
            self._pool.shutdown(wait=True)
            watchdog.cancel()

    def _take(self, message: Dict[str, Any]) -> None:
        if "ping" in message:
            self._send({"pong": message["ping"]})
            return
        arrived = time.monotonic()
        if not self._waiting.acquire(blocking=False):
            self._send(_failure(message.get("id"), Failure(codes.BUSY, "too many calls are waiting", transient=True)))
            return
        self._pool.submit(self._answer, message, arrived)

    def _answer(self, message: Dict[str, Any], arrived: float) -> None:
        call_id = message.get("id")
        try:
            try:
                deadline = arrived + float(message["deadline_seconds"])
                if time.monotonic() >= deadline:
                    raise Failure(codes.BUSY, "the call waited for a thread until its deadline", transient=True)
                reply = frames.encode(
                    {"id": call_id, "result": self._handle(message["verb"], message["arguments"], deadline)}
                )
            except Failure as failure:
                reply = frames.encode(_failure(call_id, failure))
            except Exception:
                reply = frames.encode({"id": call_id, "bug": traceback.format_exc(limit=-40)[-16384:]})
        finally:
            self._waiting.release()
        self._write(reply)

    def _send(self, message: Dict[str, Any]) -> None:
        self._write(frames.encode(message))

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        with self._write_lock:
            try:
                while view:
                    view = view[os.write(self._output_fd, view) :]
            except BrokenPipeError:
                pass  # The controller is gone; the end of our input says so too.


def _failure(call_id: Any, failure: Failure) -> Dict[str, Any]:
    return {
        "id": call_id,
        "failure": {"code": failure.code, "detail": failure.detail, "transient": failure.transient},
    }


def main(argv: List[str]) -> int:
    """`session --state-folder FOLDER`: serve standard input and output until the input ends."""
    parser = argparse.ArgumentParser(prog="session")
    parser.add_argument("--state-folder", required=True)
    options = parser.parse_args(argv)

    input_fd, output_fd = os.dup(0), os.dup(1)  # os.dup makes them non-inheritable: no child can touch the frames
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)

    from minicloud.hostside import verbs

    verbs.prepare(options.state_folder)

    def handle(verb: str, arguments: Dict[str, Any], deadline: float) -> Any:
        return verbs.call(options.state_folder, verb, arguments, deadline)

    try:
        Session(input_fd, output_fd, handle).run({"pid": os.getpid(), "python": sys.version.split()[0]})
    except frames.FrameError as error:
        sys.stderr.write(f"session: {error}\n")
        return 1
    return 0
