"""`python -m contracts.asyncapi FILE`: the events as an AsyncAPI 3.0 document; with `--check` says whether FILE is up to date."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from contracts import EventContract, events, schemas, topology


def document() -> dict[str, Any]:
    """The whole system's messages: one channel per event type, who sends on it and which queues receive from it."""
    plan = topology()
    services = sorted({contract.producer for contract in events().values()} | {queue.service for queue in plan.queues})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Automation Orchestrator events",
            "version": "1",
            "description": f"CloudEvents 1.0 in structured JSON on the durable topic exchange `{plan.exchange}`; "
            "the routing key is the type. At least once, in no promised order.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {contract.type: _channel(contract, plan.exchange) for contract in events().values()},
        "operations": {
            **{f"{contract.producer}.send.{contract.type}": _send(contract) for contract in events().values()},
            **{f"{queue.name}.receive": _receive(queue.name) for queue in plan.queues},
        },
        "components": {
            "messages": {contract.type: _message(contract) for contract in events().values()},
            "schemas": {name.removesuffix(".json"): _local(schema) for name, schema in sorted(schemas().items())},
        },
        "tags": [{"name": service} for service in services],
    }


def _channel(contract: EventContract, exchange: str) -> dict[str, Any]:
    return {
        "address": contract.type,
        "messages": {contract.type: {"$ref": f"#/components/messages/{contract.type}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": {"name": exchange, "type": "topic", "durable": True}}},
    }


def _send(contract: EventContract) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{contract.type}"},
        "summary": contract.summary,
        "tags": [{"name": contract.producer}],
    }


def _receive(queue_name: str) -> dict[str, Any]:
    queue = topology().queue(queue_name)
    taken = [event for event in events() if queue.takes(event)]
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{taken[0]}"},
        "summary": f"{queue.name}: {queue.why}. Bound to {', '.join(queue.binds)}; takes {', '.join(taken)}.",
        "tags": [{"name": queue.service}],
    }


def _message(contract: EventContract) -> dict[str, Any]:
    return {
        "name": contract.type,
        "summary": contract.summary,
        "contentType": "application/cloudevents+json",
        "payload": {
            "allOf": [
                {"$ref": "#/components/schemas/envelope"},
                {"type": "object", "properties": {"data": _local(contract.data)}},
            ]
        },
        "examples": [{"payload": example} for example in contract.examples],
    }


def _local(schema: Any) -> Any:
    """References between schema files as references into this document."""
    if isinstance(schema, dict):
        return {
            key: f"#/components/schemas/{value.removesuffix('.json')}" if key == "$ref" else _local(value)
            for key, value in schema.items()
            if key != "$schema"
        }
    if isinstance(schema, list):
        return [_local(value) for value in schema]
    return schema


def main() -> int:
    parser = argparse.ArgumentParser(prog="contracts.asyncapi", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if FILE is not what would be written"
    )
    arguments = parser.parse_args()
    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if not arguments.check:
        arguments.file.write_text(text, encoding="utf-8")
        return 0
    if arguments.file.exists() and arguments.file.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{arguments.file} is out of date: python -m contracts.asyncapi {arguments.file}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
