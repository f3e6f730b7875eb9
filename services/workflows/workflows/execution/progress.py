"""Where a held run stands in this worker's memory: its rows, what its steps know, and the ways to put it down."""

from typing import Any

from chassis.clock import utcnow
from workflows.catalogue import Plan
from workflows.engine.definition import Step
from workflows.engine.run import State, StepState
from workflows.execution.journal import Journal, Page
from workflows.execution.store import AttemptRow, Claimed, Departure, StepRow
from workflows.models import LeadSnapshot


class Progress:
    """Each method that returns bool says whether the run goes on; False: it has been put down."""

    def __init__(
        self,
        run: Claimed,
        plan: Plan,
        journal: Journal,
        *,
        lead: LeadSnapshot | None,
        rows: dict[str, StepRow],
        attempts: list[AttemptRow],
    ) -> None:
        self.run = run
        self.plan = plan
        self.journal = journal
        self.at = run.step_id
        self.attempts = attempts
        """Outside calls of the step at `at`, in this generation."""
        self._rows = rows
        self._lead_version = lead.version if lead is not None else 0
        self.scope: dict[str, Any] = {
            "lead": lead.lead if lead is not None else {},
            "changed": run.trigger["changed"],
            "previous": run.trigger["previous"],
            "trigger": run.trigger,
            "steps": {row.step_id: row.output for row in rows.values() if row.state is StepState.SUCCEEDED},
            "run": {"id": run.id},
            "workflow": {"id": plan.workflow_id, "name": plan.name, "version": plan.version},
        }

    @property
    def step(self) -> Step:
        return self.plan.graph.steps[self.at]

    def row(self) -> StepRow | None:
        """The present step's row, if this generation has begun it."""
        row = self._rows.get(self.at)
        return row if row is not None and row.generation == self.run.generation else None

    def open_row(self) -> StepRow:
        """The present step's row, running: the one it has, or a new one."""
        row = self.row()
        if row is None:
            older = self._rows.get(self.at)
            place = older.place if older is not None else len(self._rows)
            row = StepRow(self.at, self.step.type, self.run.generation, place, StepState.RUNNING, utcnow())
            self._rows[self.at] = row
        row.state, row.finished_at, row.error = StepState.RUNNING, None, None
        return row

    def know_lead(self, lead: dict[str, Any]) -> None:
        """Go on with the lead as a call's answer shows it, and share it with every run; a replayed answer may be an old one."""
        if isinstance(lead.get("version"), int):
            answered = LeadSnapshot(self.run.workspace_id, self.run.lead_id, lead["version"], deleted=False, lead=lead)
            self.see_lead(answered)
            self.journal.note_lead(answered)

    def see_lead(self, seen: LeadSnapshot | None) -> None:
        """Go on with this state of the lead, unless a newer one is known."""
        if seen is not None and seen.version >= self._lead_version:
            self._lead_version = seen.version
            self.scope["lead"] = seen.lead

    async def done(self, output: dict[str, Any], way: str | None = None) -> bool:
        """The present step succeeded; go on by `way`."""
        self._close(StepState.SUCCEEDED, output=output)
        self.scope["steps"][self.at] = output
        return await self.go_on(way)

    async def go_on(self, way: str | None = None) -> bool:
        """Stand at the step that follows, or end the run behind the last one."""
        following = self.plan.graph.after(self.at, way)
        if following is None:
            return await self.put_down(State.COMPLETED)
        self.at = following
        self.attempts = []
        return True

    async def end(self, state: State, reason: str | None) -> bool:
        """The present step ends the run by its own wish."""
        output = {"outcome": state.value, "reason": reason}
        if state is State.FAILED:
            self._close(StepState.FAILED, output=output, error=reason)
            return await self.put_down(state, reason)
        self._close(StepState.SUCCEEDED, output=output)
        return await self.put_down(state)

    async def fail(self, error: str) -> bool:
        """The present step cannot do its work, and that is known: the run fails."""
        self.open_row()
        self._close(StepState.FAILED, error=error)
        return await self.put_down(State.FAILED, f"{self.at}: {error}")

    async def ask_somebody(self, error: str) -> bool:
        """Nobody knows what the present step's call did, or what the step is: the run stops until a person decides."""
        if self.at in self.plan.graph.steps:
            self.open_row()
        row = self.row()
        if row is not None and row.finished_at is None:
            self._close(StepState.UNKNOWN, error=error)
        return await self.put_down(State.NEEDS_ATTENTION, f"{self.at}: {error}")

    async def cancel(self) -> bool:
        """End the run as asked. What its present step has done is kept; one that waits or would be repeated ends with it."""
        row = self.row()
        if row is not None and row.finished_at is None:
            is_unknown = bool(self.attempts) and self.attempts[-1].state == "unknown"
            self._close(StepState.UNKNOWN if is_unknown else StepState.CANCELLED, error=row.error)
        return await self.put_down(State.CANCELLED, ending=True)

    async def put_down(
        self, state: State, error: str | None = None, *, seconds: float | None = None, ending: bool = False
    ) -> bool:
        """Write what is known and leave the run in `state`, due in so many seconds."""

        async def leave(page: Page) -> None:
            page.leave(Departure(state, self.at, error, due_seconds=seconds))

        await self.journal.write(self.at, leave, ending=ending)
        return False

    def _close(self, state: StepState, *, output: Any = None, error: str | None = None) -> None:
        row = self._rows[self.at]
        row.state, row.output, row.error, row.finished_at = state, output, error, utcnow()
        self.journal.note_step(row)
