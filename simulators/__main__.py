"""`python -m simulators`: all simulators in one process, on SIMULATORS_PORT, with their data in SIMULATORS_DATA_DIR."""

from simulators.app import create_app
from simulators.server import run
from simulators.settings import Settings


def main() -> None:
    settings = Settings.from_environment()
    run(create_app(settings), settings.host, settings.port)


if __name__ == "__main__":
    main()
