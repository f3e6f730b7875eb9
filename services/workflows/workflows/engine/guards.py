"""What keeps workflows from feeding themselves: a run that these refuse is suspended, listed and counted, not started."""

from collections.abc import Sequence

MAX_HOPS = 8
MAX_STARTS_PER_HOUR = 20


def refusal(workflow_id: str, chain: Sequence[str], *, allow_reentry: bool, starts_last_hour: int) -> str | None:
    """Why a run must not start, or None. `chain` lists the workflows and connections its cause came through."""
    if workflow_id in chain and not allow_reentry:
        return "loop: the event was caused by this workflow itself; set allow_reentry if it is meant to start again"
    if len(chain) >= MAX_HOPS:
        return f"loop: the event came through {len(chain)} workflows and connections; {MAX_HOPS} end it"
    if starts_last_hour >= MAX_STARTS_PER_HOUR:
        return f"rate: {starts_last_hour} runs for this lead within an hour; {MAX_STARTS_PER_HOUR} end it"
    return None


def extend(chain: Sequence[str], workflow_id: str) -> tuple[str, ...]:
    """The chain of what a run of this workflow causes: at most MAX_HOPS long, the newest kept."""
    return (*chain, workflow_id)[-MAX_HOPS:]
