"""One command at a time changes a system, and `make stop` ends the one that does, and no other process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.errors import Refused
from deploy.local.run_lock import break_off_holder, exclusive
from deploy.local.settings import REPOSITORY

HOLDER = """
import signal, sys
from pathlib import Path
from deploy.local.run_lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


def test_a_second_command_is_refused_while_the_first_works(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(Refused, match="another command"), exclusive(tmp_path):
        pytest.fail("both hold it")
    with exclusive(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_command_that_works_is_asked_to_end_and_waited_for(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert break_off_holder(tmp_path) is True
        assert holder.wait(5) != 0


def test_nobody_is_asked_for_what_an_earlier_command_left_in_the_file(tmp_path: Path) -> None:
    assert break_off_holder(tmp_path) is False
    with exclusive(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == ""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "lock").write_text(f"{bystander.pid}\n")  # its holder was killed, and the number is another's now
        assert break_off_holder(tmp_path) is False
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
