"""The command line behind the Makefile's container targets: `python3 -m deploy.compose COMMAND`. Standard library only."""

import argparse
import sys
from collections.abc import Sequence

from deploy.compose.docker import check, compose
from deploy.compose.rollout import rollout
from deploy.compose.up import up
from deploy.local.errors import Refused
from deploy.local.progress import step


def down(*, volumes: bool) -> None:
    """Stops and removes the containers; the data too, if they are wanted gone and the user says yes."""
    check()
    if volumes:
        sys.stdout.write(
            "This removes all data of the containers: leads, users, workflows, connections. Type yes to go on: "
        )
        sys.stdout.flush()
        if sys.stdin.readline().strip() != "yes":
            raise Refused("nothing was stopped or removed")
    with step("Stopping the containers" + (" and removing their data" if volumes else "")):
        compose("--profile", "*", "down", *(["--volumes"] if volumes else []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.compose", description="The whole system in containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build, start, show a lead's way")
    commands.add_parser("down", help="stop").add_argument("--volumes", action="store_true", help="remove the data too")
    commands.add_parser("rollout", help="replace a service's containers").add_argument("service")
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "up":
                up()
            case "down":
                down(volumes=chosen.volumes)
            case "rollout":
                check()
                rollout(chosen.service)
    except Refused as error:
        sys.stderr.write(f"{chosen.command}: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{chosen.command}: broken off\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
