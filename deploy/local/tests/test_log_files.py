"""Logs stay small while their writers keep them open."""

import os
from pathlib import Path

from deploy.local.log_files import last_words, rotate, tail
from deploy.local.logs import _is_of


def test_a_full_log_is_kept_once_and_its_writer_goes_on_in_an_empty_one(tmp_path: Path) -> None:
    log = tmp_path / "leads-1.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"x" * 100)
    rotate(tmp_path, largest_bytes=50)
    os.write(descriptor, b"next")
    os.close(descriptor)
    assert log.read_bytes() == b"next"
    assert (tmp_path / "leads-1.log.1").read_bytes() == b"x" * 100


def test_a_small_log_is_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "leads-1.log"
    log.write_text("small")
    rotate(tmp_path, largest_bytes=50)
    assert [path.name for path in tmp_path.iterdir()] == ["leads-1.log"]


def test_last_words_are_the_last_line_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "leads-1.log"
    log.write_text("first\nImportError: no module\n\nsupervisor: leads-1 (pid 1) ended with code 1\n")
    assert last_words(log) == f"ImportError: no module; see {log}"
    assert tail(tmp_path / "absent.log") == []


def test_a_services_logs_are_its_replicas_and_not_its_workers() -> None:
    assert _is_of("leads-1", "leads")
    assert _is_of("leads-12", "leads")
    assert _is_of("gateway", "gateway")
    assert not _is_of("leads-worker-1", "leads")
