"""The command line behind the Makefile: `python3 -m deploy.local COMMAND`. Standard library only.

Settings come from the environment: PORT, STATE_DIR, ADMIN_EMAIL, ADMIN_PASSWORD. A command that can't do its work says
in one line what to do, and ends with 1.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from deploy.local.checks import is_disk_full
from deploy.local.control import NoSupervisor
from deploy.local.errors import Refused
from deploy.local.servers import ServerFailed
from deploy.local.settings import Settings

Command = Callable[[Settings, argparse.Namespace], None]


def _run(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.run import run

    run(settings)


def _stop(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.stop import stop

    stop(settings)


def _clean(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.stop import clean

    clean(settings)


def _status(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.status import show

    show(settings)


def _logs(settings: Settings, arguments: argparse.Namespace) -> None:
    from deploy.local.logs import follow

    follow(settings, arguments.service)


def _scale(settings: Settings, arguments: argparse.Namespace) -> None:
    from deploy.local.scale import scale

    scale(settings, arguments.wishes)


def _figures(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.figures import measure

    measure(settings)


def _rotate_keys(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.rotation import rotate_keys

    rotate_keys(settings)


def _announce_again(settings: Settings, arguments: argparse.Namespace) -> None:
    from deploy.local.announcing import announce_again

    announce_again(settings, arguments.service)


def _test_setup(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.test_setup import prepare

    prepare(settings)


def _lint_gateway(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.test_setup import lint_gateway

    lint_gateway(settings)


def _lock(settings: Settings, _arguments: argparse.Namespace) -> None:
    from deploy.local.locks import compile_locks

    compile_locks(settings)


COMMANDS: dict[str, tuple[Command, str]] = {
    "run": (_run, "start everything and show a lead's way"),
    "stop": (_stop, "stop everything"),
    "status": (_status, "what runs, and the measured figures"),
    "logs": (_logs, "follow the logs"),
    "scale": (_scale, "change the number of replicas: leads=3"),
    "figures": (_figures, "measure memory at rest and lead-to-CRM-id"),
    "rotate-keys": (_rotate_keys, "put new keys in use"),
    "announce-again": (_announce_again, "publish the events of the last 72 hours once more"),
    "clean": (_clean, "stop everything and remove the state folder"),
    "test-setup": (_test_setup, "install what the tests need"),
    "lint-gateway": (_lint_gateway, "let nginx check the gateway's configuration"),
    "lock": (_lock, "pin all Python packages anew"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.local", description="The whole system on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in ("logs", "announce-again"):
            command.add_argument("service", nargs="?", help="only this service's, e.g. leads")
        if name == "scale":
            command.add_argument("wishes", nargs="+", metavar="SERVICE=NUMBER")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    try:
        settings = Settings.from_environment()
        return _carry_out(chosen, settings)
    except Refused as error:
        return _complain(chosen.command, str(error))
    except KeyboardInterrupt:
        return _complain(chosen.command, "broken off")


def _carry_out(chosen: argparse.Namespace, settings: Settings) -> int:
    try:
        COMMANDS[chosen.command][0](settings, chosen)
    except NoSupervisor:
        return _complain(chosen.command, "the system does not run: start it with `make run`")
    except BrokenPipeError:  # whoever read our words has enough of them: `make status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except PermissionError as error:
        return _complain(chosen.command, f"no right to use {error.filename}: run as the user it belongs to")
    except (Refused, ServerFailed, OSError) as error:
        if is_disk_full(settings.state):
            return _complain(
                chosen.command, f"the disk is full: free some room, or choose another STATE_DIR=… ({error})"
            )
        if isinstance(error, OSError):
            raise
        return _complain(chosen.command, str(error))
    return 0


def _complain(command: str, text: str) -> int:
    print(f"{command}: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return 1


def _leave(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like an error, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
