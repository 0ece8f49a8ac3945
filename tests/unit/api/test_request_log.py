"""The request log: what a line says, how it is kept, and that it neither fails a request nor grows without bound."""

from __future__ import annotations

import json
import logging
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support import rows as make

from minicloud.api import request_log as module
from minicloud.api.request_files import RequestFiles, parse_line
from minicloud.api.request_log import Entry, RequestLog, clean
from minicloud.api.resource_ids import MAX_SHOWN, choose_resource_ids, find_made, find_named
from minicloud.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(tmp_path: Path, clock: ManualClock) -> RequestLog:
    return RequestLog(tmp_path / "requests", clock, 1.0)


def answer(log: RequestLog, operation: str = "DescribeRegions", status: int = 200, code: str | None = None) -> Entry:
    entry = log.begin("request", "endpoint", "192.0.2.7")
    entry.asks("ec2", operation)
    if code is not None:
        entry.refused(code)
    log.end(entry, status, 10)
    return entry


def lines(log: RequestLog) -> list[dict[str, Any]]:
    """What the files hold, the oldest first."""
    log.flush()
    return [parse_line(line) or {} for _, line in log.files.newest_first()][::-1]


def value(log: RequestLog, name: str, **labels: str) -> float:
    return sum(one.value for one in log.samples() if one.name == name and labels.items() <= one.labels.items())


def test_a_line_says_who_asked_what_and_how_it_ended(log: RequestLog, clock: ManualClock) -> None:
    entry = log.begin("request-1", "endpoint", "192.0.2.7")
    entry.claims("AKIAEXAMPLE")
    entry.asks("ec2", "RunInstances")
    entry.account_id = "100000000001"
    entry.names({"ImageId": make.number("ami", 1)})
    entry.made_of({"ReservationId": make.number("r", 1), "Instances": [{"InstanceId": make.number("i", 1)}]})
    clock.advance(0.25)
    log.end(entry, 200, 1234)
    assert lines(log) == [
        {
            "Sequence": 1,
            "Time": "2023-11-14T22:13:20.000Z",
            "RequestId": "request-1",
            "Door": "endpoint",
            "Principal": "AKIAEXAMPLE",
            "AccountId": "100000000001",
            "SourceAddress": "192.0.2.7",
            "Service": "ec2",
            "Operation": "RunInstances",
            "ResourceIds": [make.number("i", 1), make.number("ami", 1)],
            "ResourceCount": 2,
            "LatencyMs": 250.0,
            "Slow": False,
            "Status": 200,
            "Code": None,
            "ReplyBytes": 1234,
        }
    ]


def test_what_a_client_sends_slowly_is_no_latency_of_ours(log: RequestLog, clock: ManualClock) -> None:
    entry = log.begin("request", "endpoint", "192.0.2.7")
    clock.advance(30)
    log.arrived(entry)
    clock.advance(0.5)
    log.end(entry, 200, 0)
    assert entry.latency_seconds == pytest.approx(0.5)
    assert not entry.slow


def test_claims_cannot_forge_a_line_or_a_terminal(log: RequestLog) -> None:
    entry = log.begin("request", "endpoint", "192.0.2.7")
    entry.claims('AKIA\n{"Sequence":9}', None, "Run\x1b[2JInstances\u202e" + "x" * 500)
    log.end(entry, 400, 0)
    (line,) = lines(log)
    assert line["Principal"] == 'AKIA?{"Sequence":9}'
    assert line["Operation"].startswith("Run?[2JInstances?xxx")
    assert len(line["Operation"]) == module.MAX_CLAIM
    assert clean("") is None and clean(None) is None


# Ids


def test_ids_are_found_by_form_wherever_they_stand() -> None:
    parameters = {
        "InstanceIds": [make.number("i", 1), "i-0123abcd", "i-nonsense", "web"],
        "NetworkInterfaces": [{"SubnetId": make.number("subnet", 1)}],
        "ClientToken": "token-0123abcd",
        "Count": 5,
    }
    assert find_named(parameters) == (make.number("i", 1), "i-0123abcd", make.number("subnet", 1))


def test_what_only_looks_makes_nothing() -> None:
    output = {"Reservations": [{"Instances": [{"InstanceId": make.number("i", 1)}]}]}
    assert find_made("DescribeInstances", output) == ()
    assert find_made("RebootInstances", None) == ()


def test_what_was_made_stands_at_the_top_of_a_result() -> None:
    volume = {"Ebs": {"VolumeId": make.number("vol", 1)}}
    instance = {"InstanceId": make.number("i", 1), "OwnerId": "100000000001", "BlockDeviceMappings": [volume]}
    assert find_made("RunInstances", {"Instances": [instance]}) == (make.number("i", 1),)


def test_of_a_thousand_ids_the_first_are_shown_and_all_are_counted() -> None:
    many = [make.number("i", n) for n in range(1000)]
    shown, count = choose_resource_ids(many, [many[0], make.number("ami", 1)])
    assert shown == tuple(many[:MAX_SHOWN])
    assert count == 1001


def test_parameters_that_nest_without_end_end_here() -> None:
    deep: Any = make.number("i", 1)
    for _ in range(500):
        deep = [deep]
    assert find_named({"A": deep}) == ()


# Files


def test_numbers_go_on_after_a_restart(log: RequestLog, tmp_path: Path, clock: ManualClock) -> None:
    answer(log)
    log.flush()
    again = RequestLog(tmp_path / "requests", clock, 1.0)
    answer(again)
    assert [one["Sequence"] for one in lines(again)] == [1, 2]


def test_the_ring_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    files = RequestFiles(tmp_path / "requests", max_file_bytes=1000, max_files=3)
    for number in range(500):
        files.append([{"N": number, "Padding": "x" * 50}])
    kept = sorted((tmp_path / "requests").iterdir())
    assert len(kept) == 3
    assert sum(path.stat().st_size for path in kept) < 3 * 1100
    found = [parse_line(line) for _, line in files.newest_first()]
    assert [one["N"] for one in found if one] == list(range(499, 499 - len(found), -1))
    assert len(found) > 20


def test_lines_longer_than_a_block_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicloud.api.request_files.BLOCK_BYTES", 7)
    files = RequestFiles(tmp_path / "requests")
    files.append([{"N": number} for number in range(30)])
    assert [sequence for sequence, _ in files.newest_first()] == list(range(30, 0, -1))
    assert [sequence for sequence, _ in files.newest_first(before=4)] == [3, 2, 1]


@pytest.mark.parametrize("torn", [b'{"Sequence":3,"Ti', b"\x00\xff", b'{"Sequence":3,"Time":"x"', b'"', b"[]"])
def test_a_torn_line_harms_no_other(tmp_path: Path, torn: bytes) -> None:
    files = RequestFiles(tmp_path / "requests")
    files.append([{"N": 1}, {"N": 2}])
    (path,) = (tmp_path / "requests").iterdir()
    with path.open("ab") as file:
        file.write(torn)
    again = RequestFiles(tmp_path / "requests")
    again.append([{"N": 3}])
    found = [one for _, line in again.newest_first() if (one := parse_line(line))]
    assert [one["N"] for one in found] == [3, 2, 1]


def test_files_are_for_their_owner_alone(log: RequestLog, tmp_path: Path) -> None:
    answer(log)
    log.flush()
    folder = tmp_path / "requests"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_a_folder_that_was_taken_away_is_made_again(log: RequestLog, tmp_path: Path) -> None:
    answer(log)
    log.flush()
    for path in (tmp_path / "requests").iterdir():
        path.unlink()
    (tmp_path / "requests").rmdir()
    answer(log)
    assert [one["Sequence"] for one in lines(log)] == [2]


# Losses


def test_a_full_queue_drops_and_counts(log: RequestLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 5)
    for _ in range(8):
        answer(log)
    assert len(lines(log)) == 5
    assert value(log, "minicloud_request_log_lines_dropped_total", reason="queue_full") == 3
    assert value(log, "minicloud_api_requests_total") == 8


def test_where_nothing_can_be_written_requests_go_on(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(Path("/nonexistent/requests"), clock, 1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            answer(log)
            log.flush()
    assert value(log, "minicloud_request_log_lines_dropped_total", reason="write_failed") == 3
    assert len(caplog.records) == 1, "a full disk is not told once a request"
    assert not Path("/nonexistent").exists()


def test_a_full_disk_leaves_no_half_line(log: RequestLog, tmp_path: Path) -> None:
    answer(log)
    log.flush()
    (path,) = (tmp_path / "requests").iterdir()
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        answer(log)
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.stat().st_size == size
    assert value(log, "minicloud_request_log_lines_dropped_total", reason="write_failed") == 1
    answer(log)
    assert [one["Sequence"] for one in lines(log)] == [1, 2]


def test_the_thread_writes_by_itself_and_the_rest_at_its_end(log: RequestLog, tmp_path: Path) -> None:
    log.start()
    seen = threading.Event()
    log.changes.notify = seen.set  # type: ignore[method-assign]
    answer(log)
    assert seen.wait(60)
    answer(log)
    log.stop()
    again = RequestFiles(tmp_path / "requests")
    assert [sequence for sequence, _ in again.newest_first()] == [2, 1]


def test_a_bug_while_writing_does_not_end_the_thread(
    log: RequestLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = threading.Event()

    def fail(_: Any) -> None:
        monkeypatch.undo()
        failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(log.files, "append", fail)
    log.start()
    answer(log)
    assert failed.wait(60)
    answer(log, "RunInstances")
    log.stop()
    assert [one["Operation"] for one in lines(log)] == ["RunInstances"]
    assert "request log: a bug" in caplog.text


def test_many_threads_lose_nothing(log: RequestLog) -> None:
    threads = [threading.Thread(target=lambda: [answer(log) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.flush()
    found = lines(log)
    assert [one["Sequence"] for one in found] == list(range(1, 1601))
    assert value(log, "minicloud_api_requests_total", operation="DescribeRegions") == 1600


# Counters


def test_counters_speak_a_metrics_store_s_language(log: RequestLog, clock: ManualClock) -> None:
    for seconds in (0.0005, 0.003, 2.0, 60.0):
        entry = log.begin("request", "endpoint", "192.0.2.7")
        entry.asks("ec2", "RunInstances")
        clock.advance(seconds)
        log.end(entry, 200, 10)
    answer(log, "RunInstances", 400, "InvalidParameterValue")
    answer(log, "RunInstances", 500, "InternalError")
    name = "minicloud_api_request_duration_seconds"
    labels = {"service": "ec2", "operation": "RunInstances"}
    assert value(log, "minicloud_api_requests_total", **labels) == 6
    assert value(log, "minicloud_api_slow_requests_total", **labels) == 2
    assert value(log, "minicloud_api_request_errors_total", **labels) == 2
    assert value(log, "minicloud_api_request_errors_total", **{"class": "5xx"}, code="InternalError") == 1
    buckets = {one.labels["le"]: one.value for one in log.samples() if one.name == f"{name}_bucket"}
    assert (buckets["0.001"], buckets["0.005"], buckets["1.0"], buckets["2.5"]) == (3, 4, 4, 5)
    assert buckets["10.0"] == 5 and buckets["+Inf"] == 6
    assert value(log, f"{name}_count", **labels) == 6
    assert value(log, f"{name}_sum", **labels) == pytest.approx(62.0035)
    json.dumps([one.labels for one in log.samples()])


def test_names_that_clients_make_up_make_no_counters(log: RequestLog) -> None:
    for number in range(50):
        entry = log.begin("request", "endpoint", "192.0.2.7")
        entry.claims(None, "ec2", f"Invented{number}")
        entry.refused("InvalidAction")
        log.end(entry, 400, 10)
    counted = [one for one in log.samples() if one.name == "minicloud_api_requests_total"]
    assert [(one.labels, one.value) for one in counted] == [({"service": "unknown", "operation": "unknown"}, 50)]


def test_error_codes_are_bounded_too(log: RequestLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicloud.api.request_counters.MAX_CODES", 3)
    for number in range(10):
        answer(log, status=400, code=f"Code{number}")
    assert value(log, "minicloud_api_request_errors_total", code="other") == 7


def test_who_waits_on_purpose_is_not_slow(log: RequestLog, clock: ManualClock) -> None:
    entry = log.begin("request", "socket", "pid:1")
    entry.asks("minicloud", "WaitForChange")
    clock.advance(50)
    log.end(entry, 200, 10)
    assert not entry.slow
    assert value(log, "minicloud_api_request_duration_seconds_count") == 0
    assert len(lines(log)) == 1


def test_following_the_log_is_not_part_of_it(log: RequestLog) -> None:
    answer(log, "WaitForEvents")
    assert lines(log) == []
    assert value(log, "minicloud_api_requests_total", operation="WaitForEvents") == 1
