"""A step's outside call: its intent committed before it, its result after it, and what follows when nobody knows the result."""

import time
from dataclasses import dataclass
from typing import Any

from chassis.clock import utcnow
from chassis.context import use
from chassis.failpoints import failpoint
from chassis.http import OutboundClient, ServiceClient
from workflows.engine.run import AttemptState, State, StepState
from workflows.execution.journal import Page
from workflows.execution.progress import Progress
from workflows.execution.store import AttemptRow
from workflows.metrics import STEP_SECONDS
from workflows.steps.kinds import Call, CallingStep, Failed, Outcome, Succeeded, Unknown

LOST = "its worker ended before the answer was written down"


@dataclass(frozen=True, slots=True)
class Outside:
    """The ways out."""

    services: ServiceClient
    outbound: OutboundClient


class Caller:
    """Makes the calls of one held run."""

    def __init__(self, progress: Progress, outside: Outside) -> None:
        self._progress = progress
        self._outside = outside

    def settle_lost_call(self) -> bool:
        """If a call was under way when the run's last worker let go, note that its outcome is unknown; True if so."""
        attempts = self._progress.attempts
        if not attempts or attempts[-1].state is not AttemptState.CALLING:
            return False
        self._finish_attempt(attempts[-1], AttemptState.UNKNOWN, error=LOST)
        return True

    async def call(self, step: CallingStep) -> bool:
        """Call once, or look up what an earlier call did; returns whether the run goes on."""
        progress = self._progress
        if self.settle_lost_call() and step.unknown_policy == "stop":
            return await progress.ask_somebody(LOST)
        last = progress.attempts[-1].state if progress.attempts else None
        verifies = last is AttemptState.UNKNOWN and step.unknown_policy == "verify"
        request, call, attempt = await self._commit_intent(step, "verify" if verifies else "call")
        failpoint("step.before_call")
        outcome = await self._perform(step, request, call, verifies=verifies)
        failpoint("step.after_call")
        return await self._settle(step, attempt, outcome, verified=verifies)

    async def _commit_intent(self, step: CallingStep, purpose: str) -> tuple[dict[str, Any], Call, AttemptRow]:
        progress, run = self._progress, self._progress.run
        row = progress.open_row()
        number = len(progress.attempts) + 1
        attempt = AttemptRow(step.id, run.generation, number, purpose, AttemptState.CALLING, utcnow())
        sent_before = row.input

        async def intend(page: Page) -> tuple[dict[str, Any], dict[str, str]]:
            # A repetition sends what the first attempt sent: the key stands for exactly that.
            request = sent_before if sent_before is not None else await step.prepare(progress.scope, page)
            if purpose == "verify":
                request = step.with_look_up(request, progress.scope)
            secrets = await page.open_secrets(step.secret_ids(request))
            row.input, row.attempts = request, number
            page.note(row, attempt)
            return request, secrets

        request, secrets = await progress.journal.write(progress.at, intend)
        progress.attempts.append(attempt)
        call = Call(
            key=f"{run.id}:{step.id}:{run.iteration}:{run.generation}",
            workspace_id=run.workspace_id,
            lead_id=run.lead_id,
            services=self._outside.services,
            outbound=self._outside.outbound,
            secrets=secrets,
        )
        return request, call, attempt

    async def _perform(self, step: CallingStep, request: dict[str, Any], call: Call, *, verifies: bool) -> Outcome:
        began = time.perf_counter()
        with use(self._progress.journal.facts.context()):
            outcome = await (step.verify(request, call) if verifies else step.perform(request, call))
        STEP_SECONDS.labels(step.type).observe(time.perf_counter() - began)
        return outcome

    async def _settle(self, step: CallingStep, attempt: AttemptRow, outcome: Outcome, *, verified: bool) -> bool:
        progress = self._progress
        if isinstance(outcome, Succeeded):
            self._finish_attempt(attempt, AttemptState.SUCCEEDED, status=outcome.status)
            if outcome.lead is not None:
                progress.know_lead(outcome.lead)
            return await progress.done(outcome.output)
        is_unknown = isinstance(outcome, Unknown)
        state = AttemptState.UNKNOWN if is_unknown else AttemptState.FAILED
        self._finish_attempt(attempt, state, status=outcome.status, error=outcome.error)
        if is_unknown and step.unknown_policy == "stop":
            return await progress.ask_somebody(outcome.error)
        if isinstance(outcome, Failed) and not outcome.retryable:
            return await progress.fail(outcome.error)
        return await self._try_again(step, outcome, at_once=verified and not is_unknown)

    async def _try_again(self, step: CallingStep, outcome: Failed | Unknown, *, at_once: bool) -> bool:
        """Put the run down until the next attempt; or, looked up and not found, make it now."""
        progress = self._progress
        asked_for = outcome.retry_after if isinstance(outcome, Failed) else None
        delay = step.retry.delay_seconds(len(progress.attempts), asked_for)
        if delay is None:
            giving_up = f"{outcome.error} (after {len(progress.attempts)} attempts)"
            is_known = isinstance(outcome, Failed) and not self._may_have_worked()
            return await (progress.fail(giving_up) if is_known else progress.ask_somebody(giving_up))
        if at_once:
            return True
        row = progress.open_row()
        row.state, row.error = StepState.RETRYING, outcome.error
        progress.journal.note_step(row)
        return await progress.put_down(State.RETRYING, outcome.error, seconds=delay)

    def _may_have_worked(self) -> bool:
        """True if the outcome of an earlier call in this generation is unknown, and no look-up has said that it did not arrive."""
        for attempt in reversed(self._progress.attempts):
            if attempt.purpose == "verify" and attempt.state is AttemptState.FAILED:
                return False
            if attempt.purpose == "call" and attempt.state is AttemptState.UNKNOWN:
                return True
        return False

    def _finish_attempt(
        self, attempt: AttemptRow, state: AttemptState, *, status: int | None = None, error: str | None = None
    ) -> None:
        attempt.state, attempt.status, attempt.error, attempt.finished_at = state, status, error, utcnow()
        self._progress.journal.note_attempt(attempt)
