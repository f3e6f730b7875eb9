"""One worker's way with one run, from its claim to where it is put down: waiting, retrying, or at its end."""

import asyncio

from workflows.engine.expression import bounded
from workflows.engine.run import State, StepState
from workflows.engine.template import TemplateError
from workflows.errors import DefinitionUnreadable
from workflows.execution.calling import Caller
from workflows.execution.journal import Page, RunCancelled
from workflows.execution.progress import Progress
from workflows.execution.store import Departure, StepRow
from workflows.steps.kinds import (
    CallingStep,
    Done,
    ImmediateStep,
    Pause,
    PausingStep,
    Resumption,
    StepFailed,
)

MAX_LOST_LEASES = 5
"""A run whose workers died this often at one place is shown to somebody instead of being tried again."""


class Leg:
    """Goes from step to step until the run is put down."""

    def __init__(self, progress: Progress, caller: Caller, stopping: asyncio.Event) -> None:
        self._progress = progress
        self._caller = caller
        self._stopping = stopping

    async def go(self) -> None:
        """Take the run as far as it goes. LeaseLost: it is somebody else's now, and nothing more is written."""
        progress, run = self._progress, self._progress.run
        try:
            if run.state is State.CANCELLING:
                raise RunCancelled
            if run.lost_leases >= MAX_LOST_LEASES:
                self._caller.settle_lost_call()
                ended = f"its worker ended {run.lost_leases} times while working on this step"
                await progress.ask_somebody(progress.plan.unreadable or ended)
                return
            if progress.plan.unreadable:
                # The lease ends by itself: the next worker may be of a release that can read it.
                raise DefinitionUnreadable(progress.plan.unreadable)
            await self._advance()
        except RunCancelled:
            self._caller.settle_lost_call()
            await progress.cancel()

    async def _advance(self) -> None:
        progress = self._progress
        row = progress.row()
        goes_on = True
        if row is not None and row.state is StepState.SUCCEEDED and progress.step.ways():
            # Retried after a cancellation that had let the step finish. A stop is taken again: nothing comes after it.
            goes_on = await progress.go_on()
        while goes_on:
            if self._stopping.is_set():
                await progress.put_down(State.QUEUED, seconds=0)
                return
            try:
                goes_on = await self._take(progress)
            except (StepFailed, TemplateError) as error:
                goes_on = await progress.fail(str(error))

    async def _take(self, progress: Progress) -> bool:
        step = progress.step
        if isinstance(step, CallingStep):
            goes_on = await self._caller.call(step)
            if goes_on:  # while the call was out, others may have changed the lead
                progress.see_lead(await progress.journal.read_lead())
            return goes_on
        if isinstance(step, PausingStep):
            return await self._pause(step)
        if isinstance(step, ImmediateStep):
            return await self._decide(step)
        raise TypeError(f"no worker knows what to do with a step of type {step.type}")

    async def _decide(self, step: ImmediateStep) -> bool:
        self._progress.open_row()
        decision = step.decide(bounded(self._progress.scope))
        if isinstance(decision, Done):
            return await self._progress.done(decision.output, decision.way)
        state = State.COMPLETED if decision.outcome == "completed" else State.FAILED
        return await self._progress.end(state, decision.reason)

    async def _pause(self, step: PausingStep) -> bool:
        row = self._progress.row()
        if row is not None and row.state is StepState.WAITING:
            return await self._resume(step, row)
        return await self._begin_wait(step)

    async def _begin_wait(self, step: PausingStep) -> bool:
        """Look at the lead and begin to wait under one lock, so that no event falls between the two."""
        progress = self._progress
        row = progress.open_row()

        async def look(page: Page) -> Done | None:
            progress.see_lead(page.lead)
            decision = step.begin(progress.scope, await page.lead_now())
            if isinstance(decision, Done):
                return decision
            self._wait(page, row, decision)
            return None

        decision = await progress.journal.write(progress.at, look, lock_lead=True)
        return await progress.done(decision.output, decision.way) if decision is not None else False

    async def _resume(self, step: PausingStep, row: StepRow) -> bool:
        """The wait's event or time has come. Until this is written down, the run can be taken over with both intact."""
        progress = self._progress
        decision = step.resume(progress.scope, Resumption(progress.run.wake, row.due_at))
        if isinstance(decision, Done):
            progress.open_row()
            return await progress.done(decision.output, decision.way)
        pause = decision

        async def wait_on(page: Page) -> None:
            self._wait(page, row, pause)

        await progress.journal.write(progress.at, wait_on)
        return False

    def _wait(self, page: Page, row: StepRow, pause: Pause) -> None:
        row.state = StepState.WAITING
        departure = Departure(
            State.WAITING,
            self._progress.at,
            waiting_for=pause.event,
            due_at=pause.until,
            due_seconds=pause.seconds,
        )
        page.leave(departure, waiting_step=row)
