"""What caused the work at hand: bound once per request or event, read by logs, events and calls to other services."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """`origin` says who acts (`user:…`, `workflow:…`, `connection:…`, `service:…`, `system`); `chain` lists the workflows and
    connections the cause has passed through, oldest first; `traceparent` is W3C Trace Context's header."""

    request_id: str | None = None
    origin: str = "system"
    chain: tuple[str, ...] = ()
    traceparent: str | None = None


_NOTHING = Context()
_current: ContextVar[Context] = ContextVar("chassis_context", default=_NOTHING)


def current() -> Context:
    """The context of the running task."""
    return _current.get()


def bind(context: Context) -> None:
    """Set the context for the rest of the running task (a request's own task)."""
    _current.set(context)


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Run a block in `context`."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
