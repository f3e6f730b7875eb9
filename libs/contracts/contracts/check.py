"""`python -m contracts.check`: every example keeps its schema, every binding names a known event, every type is read by somebody."""

import sys

from contracts import events, topology
from contracts.validation import problems


def findings() -> list[str]:
    """Each thing that is wrong, one line; empty if all is well."""
    found = []
    for contract in events().values():
        if not contract.examples:
            found.append(f"{contract.type}: no example")
        for number, example in enumerate(contract.examples):
            found += [f"{contract.type}, example {number}: {problem}" for problem in problems(example)]
    for queue in topology().queues:
        for pattern in queue.binds:
            words = pattern.removesuffix(".*")
            if not any(event == pattern or event.rpartition(".")[0] == words for event in events()):
                found.append(f"{queue.name}: binding {pattern} matches no event")
    found += [f"{event}: nobody reads it" for event in events() if not topology().is_consumed(event)]
    return found


def main() -> int:
    found = findings()
    for line in found:
        sys.stderr.write(line + "\n")
    if not found:
        sys.stdout.write(f"{len(events())} event contracts and {len(topology().queues)} queues: all keep their word\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
