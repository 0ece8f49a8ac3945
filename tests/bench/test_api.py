"""How fast the EC2 API is, against moto_server answering the same signed requests in the same run.

Prints ratios and asserts none: machines differ. Run: `scripts/test tests/bench/test_api.py` or `pytest -s` on it.
`BENCH_ROUNDS` sets how often each side runs (in turns); the table shows medians. `BENCH_SIZES` are the numbers of
instances that minicloud alone is measured with, to show how cost grows. Hosts are in memory: no guest runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support.front import IMAGE_ID

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SIZES = [int(one) for one in os.environ.get("BENCH_SIZES", "1,1000,10000,100000").split(",")]
CLIENTS = 16
CLIENT_SECONDS = 5.0
PAGE = 100
FLEET = 1000
MOTO = "moto[ec2,server]==5.2.5"
START_SECONDS = 300.0
FORM = "application/x-www-form-urlencoded; charset=utf-8"


class Endpoint:
    """A server of the EC2 API: its process, and how to speak to it."""

    def __init__(self, process: subprocess.Popen[str], port: int, key_id: str, secret: str) -> None:
        self.process = process
        self._port = port
        self._credentials = Credentials(key_id, secret)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)

    def sign(self, action: str, **parameters: object) -> tuple[str, dict[str, str]]:
        """Return a request's body and headers; tools sign, so both sides are sent signed ones."""
        body = urlencode({"Action": action, "Version": "2016-11-15", **parameters})
        request = AWSRequest("POST", f"http://127.0.0.1:{self._port}/", {"Content-Type": FORM}, body)
        SigV4Auth(self._credentials, "ec2", "us-east-1").add_auth(request)
        return body, dict(request.headers.items())

    def call(self, connection: http.client.HTTPConnection, action: str, **parameters: object) -> str:
        body, headers = self.sign(action, **parameters)
        connection.request("POST", "/", body, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        assert reply.status == 200, text[:500]
        return text

    def resident_mb(self) -> float:
        """The memory of the process that serves."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def describe_all(endpoint: Endpoint, connection: http.client.HTTPConnection) -> int:
    """DescribeInstances, page by page; returns how many there were."""
    found, token = 0, ""
    while True:
        more = {"NextToken": token} if token else {}
        text = endpoint.call(connection, "DescribeInstances", MaxResults=PAGE, **more)
        found += text.count("<instanceId>") - text.count("<attachment><instanceId>")
        token = "".join(re.findall(r"<nextToken>([^<]+)</nextToken>", text))
        if not token:
            return found


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def minicloud(folder: Path, count: int) -> Iterator[Endpoint]:
    folder.mkdir()
    script = Path(__file__).with_name("fake_cloud.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, script, folder, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert len(words) == 2, (folder / "log").read_text()
            yield Endpoint(process, int(process.stdout.readline()), *words)
        finally:
            process.stdin.close()
            process.wait(60)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Endpoint]:
    program = moto_environment() / "bin" / "moto_server"
    port = 18_000 + os.getpid() % 1000
    with (folder / "moto.log").open("w") as log:
        process = subprocess.Popen([program, "-p", str(port)], stdout=log, stderr=log, text=True)
        try:
            endpoint = Endpoint(process, port, "AKIAIOSFODNN7EXAMPLE", "secret")
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    with contextlib.closing(endpoint.connect()) as connection:
                        endpoint.call(connection, "DescribeRegions")
                    break
                except OSError:
                    assert time.monotonic() < end and process.poll() is None, (folder / "moto.log").read_text()
                    time.sleep(0.1)
            yield endpoint
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def moto_environment() -> Path:
    """Return a virtual environment with moto, kept between runs. Skips, by name, where it cannot be had."""
    folder = Path.home() / ".cache/minicloud" / f"bench-{hashlib.sha256(MOTO.encode()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [folder / "bin/pip", "install", "--quiet", MOTO]
        if subprocess.run(install, timeout=600).returncode != 0:
            pytest.skip(f"{MOTO} cannot be installed here")
        (folder / "complete").touch()
    return folder


def test_against_moto(tmp_path: Path) -> None:
    lines = ["| what | minicloud | moto_server | ratio |", "| --- | --- | --- | --- |"]

    def compare(
        what: str, work: Callable[[Endpoint, http.client.HTTPConnection], object], rounds: int = ROUNDS
    ) -> None:
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for side, endpoint in enumerate(sides):
                with contextlib.closing(endpoint.connect()) as connection:
                    times[side].append(seconds(lambda: work(endpoint, connection)))  # noqa: B023
        ours, theirs = (statistics.median(one) * 1000 for one in times)
        lines.append(f"| {what} | {ours:.1f} ms | {theirs:.1f} ms | {ours / theirs:.2f} |")

    with minicloud(tmp_path / "minicloud", 0) as ours, moto(tmp_path) as theirs:
        sides = (ours, theirs)
        images = {ours: IMAGE_ID, theirs: moto_image(theirs)}

        def run(count: int) -> Callable[[Endpoint, http.client.HTTPConnection], object]:
            return lambda endpoint, connection: endpoint.call(
                connection,
                "RunInstances",
                ImageId=images[endpoint],
                InstanceType="t3.nano",
                MinCount=count,
                MaxCount=count,
            )

        for endpoint in sides:
            with contextlib.closing(endpoint.connect()) as connection:
                run(1)(endpoint, connection)
        # A connection's first request pays for the connection.
        compare("50 DescribeInstances of one", lambda endpoint, connection: repeat(endpoint, connection, 50))
        compare("RunInstances of 1", run(1))
        compare(f"RunInstances of {FLEET}", run(FLEET), 1)
        everything = FLEET + 1 + ROUNDS
        compare(
            f"DescribeInstances of {everything}, pages of {PAGE}",
            lambda endpoint, connection: expect(describe_all(endpoint, connection), everything),
        )
        rates = [requests_per_second(endpoint) for endpoint in sides]
        lines.append(
            f"| DescribeInstances of 5 (of {everything}), requests/s at {CLIENTS} clients | {rates[0]:.0f} | "
            f"{rates[1]:.0f} | {rates[1] / rates[0]:.2f} |"
        )
        memory = [endpoint.resident_mb() for endpoint in sides]
        lines.append(
            f"| resident memory with {everything} instances | {memory[0]:.0f} MB | {memory[1]:.0f} MB | "
            f"{memory[0] / memory[1]:.2f} |"
        )
    print("\n" + "\n".join(lines))


def test_how_cost_grows(tmp_path: Path) -> None:
    lines = [
        f"| instances | one by id | by tag | page of {PAGE} | all pages | RunInstances of 1 | of {FLEET} | "
        f"until they run | requests/s at {CLIENTS} | resident |",
        "| --- |" + " --- |" * 9,
    ]
    for size in SIZES:
        with minicloud(tmp_path / str(size), size) as endpoint, contextlib.closing(endpoint.connect()) as connection:
            first = "i-" + f"{1:017x}"

            def median(action: str, **parameters: object) -> float:
                times = [seconds(lambda: endpoint.call(connection, action, **parameters)) for _ in range(ROUNDS * 3)]
                return statistics.median(times) * 1000

            by_id = median("DescribeInstances", **{"InstanceId.1": first})
            by_tag = median("DescribeInstances", **{"Filter.1.Name": "tag:Name", "Filter.1.Value.1": "node-0"})
            page = median("DescribeInstances", MaxResults=PAGE)
            everything = seconds(lambda: expect(describe_all(endpoint, connection), size))  # noqa: B023
            rate = requests_per_second(endpoint)
            launch = {"ImageId": IMAGE_ID, "InstanceType": "t3.nano"}
            one = median("RunInstances", **launch, MinCount=1, MaxCount=1)
            fleet = seconds(
                lambda: endpoint.call(connection, "RunInstances", **launch, MinCount=FLEET, MaxCount=FLEET)  # noqa: B023
            )
            running = seconds(lambda: wait_for_rest(endpoint, connection))
            lines.append(
                f"| {size} | {by_id:.1f} ms | {by_tag:.1f} ms | {page:.1f} ms | {everything:.2f} s | {one:.0f} ms | "
                f"{fleet * 1000:.0f} ms | {running:.1f} s | {rate:.0f} | {endpoint.resident_mb():.0f} MB |"
            )
            print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


def wait_for_rest(endpoint: Endpoint, connection: http.client.HTTPConnection) -> None:
    """Wait until nothing is pending any more."""
    end = time.monotonic() + START_SECONDS
    pending = {"Filter.1.Name": "instance-state-name", "Filter.1.Value.1": "pending", "MaxResults": 5}
    while "<instanceId>" in endpoint.call(connection, "DescribeInstances", **pending):
        assert time.monotonic() < end
        time.sleep(0.1)


def repeat(endpoint: Endpoint, connection: http.client.HTTPConnection, times: int) -> None:
    for _ in range(times):
        endpoint.call(connection, "DescribeInstances")


def expect(found: int, wanted: int) -> None:
    assert found == wanted, f"{found} instances, not {wanted}"


def moto_image(endpoint: Endpoint) -> str:
    with contextlib.closing(endpoint.connect()) as connection:
        text = endpoint.call(connection, "DescribeImages", **{"Owner.1": "amazon"})
    return re.findall(r"<imageId>(ami-[^<]+)</imageId>", text)[0]


def requests_per_second(endpoint: Endpoint) -> float:
    """Describe a small page over and over from many clients at once. Requests are signed beforehand."""
    done = [0] * CLIENTS
    body, headers = endpoint.sign("DescribeInstances", MaxResults=5)
    end = time.monotonic() + CLIENT_SECONDS

    def ask(number: int) -> None:
        with contextlib.closing(endpoint.connect()) as connection:
            while time.monotonic() < end:
                connection.request("POST", "/", body, headers)
                reply = connection.getresponse()
                reply.read()
                assert reply.status == 200
                done[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - began)
