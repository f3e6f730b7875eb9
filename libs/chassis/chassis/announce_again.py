"""`python -m chassis.announce_again PACKAGE [--hours 72] [--parked]`: publish a service's events once more.

For a broker that lost its disk, or a consumer whose queue was emptied: consumers that have had an event drop it by their inbox.
Needs the service's own settings in the environment; running processes of the service do the publishing.
"""

import argparse
import asyncio
import os
import sys

import asyncpg

from chassis.queries import load_queries

queries = load_queries("chassis")

BATCH = 5_000
KEPT_HOURS = 72


async def announce_again(dsn: str, *, hours: float, parked: bool) -> int:
    """Hand every event of the last `hours` (with `parked`, the parked ones too) back to the relays; returns how many."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        total, after = 0, 0
        while True:
            rows = await connection.fetch(queries["announce_again"], after, hours, parked, BATCH)
            if not rows:
                return total
            total, after = total + len(rows), max(row["seq"] for row in rows)
    finally:
        await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="chassis.announce_again", description=__doc__)
    parser.add_argument("package", help="auth, leads, workflows or crm_sync")
    parser.add_argument("--hours", type=float, default=KEPT_HOURS, help="how far back (events are kept 72 hours)")
    parser.add_argument(
        "--parked", action="store_true", help="also events that the broker refused until they were parked"
    )
    arguments = parser.parse_args()
    variable = f"{arguments.package.upper()}_DATABASE_URL"
    dsn = os.environ.get(variable)
    if not dsn:
        sys.stderr.write(f"{variable} is not set: run this with the service's settings in the environment\n")
        return 2
    count = asyncio.run(announce_again(dsn, hours=arguments.hours, parked=arguments.parked))
    sys.stdout.write(f"{arguments.package}: {count} events will be published again\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
