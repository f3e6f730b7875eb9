"""Programs of ours as processes of a test, forked from one that has imported them: importing is most of what a start costs.

A process has its own pid, environment, signals and exit code, and runs what `python -m` runs. Starts from nothing are tested with
`make run`'s own commands, in deploy/local/tests.
"""

import asyncio
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from pydantic import SecretStr

from chassis import failpoints
from chassis.settings import ServiceSettings

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.support.imported"])
_one_at_a_time = threading.Lock()
"""multiprocessing looks after all its processes whenever it starts one; two threads would both collect the same one."""


class ServiceProcess:
    """`ServiceProcess("leads.worker", environment)`: that module as a program. Its methods are those of subprocess.Popen."""

    def __init__(
        self, module: str, environment: Mapping[str, str], *arguments: str, output: Path | None = None
    ) -> None:
        """`output` gets what it prints, added to what is there; without it nobody sees that."""
        self.module = module
        self._process = _forking.Process(
            target=_become, args=(module, arguments, dict(environment), str(output or os.devnull)), daemon=True
        )
        with _one_at_a_time:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None while it lives."""
        with _one_at_a_time:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        wait([self._process.sentinel], seconds)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.module, seconds or 0)
        return code

    async def exit_code(self, seconds: float = 20) -> int:
        """`wait` for tests of one event loop. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (code := self.poll()) is None:
                await asyncio.sleep(0.02)
        return code


def environment_of(settings: ServiceSettings, failpoint: str = "") -> dict[str, str]:
    """This process's environment with these settings, and the failpoint at which a process of it is to die."""
    return {**os.environ, **variables_of(settings), "FAILPOINT": failpoint}


def variables_of(settings: ServiceSettings) -> dict[str, str]:
    """The environment variables from which a process reads these settings."""
    prefix = settings.model_config["env_prefix"]
    values = ((f"{prefix}{name.upper()}", getattr(settings, name)) for name in type(settings).model_fields)
    return {name: str(value.get_secret_value() if isinstance(value, SecretStr) else value) for name, value in values}


def _become(module: str, arguments: tuple[str, ...], environment: dict[str, str], output: str) -> None:
    """In the new process: what `python -m module arguments` does."""
    os.environ.clear()
    os.environ.update(environment)
    written = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(written, stream.fileno())
    importlib.reload(failpoints)  # it has read another environment
    sys.modules.pop(module, None)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
