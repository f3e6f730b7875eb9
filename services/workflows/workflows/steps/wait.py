"""`wait`: for a duration, or until the time that a field of the lead holds."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from chassis.clock import rfc3339
from workflows.engine.durations import LONGEST, parse_duration
from workflows.engine.paths import Path
from workflows.steps.kinds import Done, LeadNow, Pause, PausingStep, Resumption, Scope, StepFailed


def _duration(text: str) -> str:
    parse_duration(text)
    return text


class LeadPath(Path):
    """A path into the lead, written without braces: `lead.custom.call_at`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._of_lead, core_schema.str_schema(max_length=200), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _of_lead(cls, text: str) -> "LeadPath":
        path = Path.parse(text)
        if path.root != "lead" or len(path.parts) < 2:
            raise ValueError("until names a field of the lead, such as lead.custom.call_at")
        return cls(path.parts)


class Wait(PausingStep):
    """Holds the run up. `until` is read again when its time comes, so a time moved later is waited for."""

    outputs: ClassVar[frozenset[str] | None] = frozenset({"until"})

    type: Literal["wait"]
    duration: Annotated[str, AfterValidator(_duration)] | None = Field(default=None, examples=["2d"])
    until: LeadPath | None = Field(default=None, examples=["lead.custom.call_at"])

    @model_validator(mode="after")
    def _exactly_one(self) -> "Wait":
        if (self.duration is None) == (self.until is None):
            raise ValueError("a wait has either a duration or until")
        return self

    def begin(self, scope: Scope, now: LeadNow) -> Done | Pause:
        if self.duration is not None:
            return Pause(seconds=parse_duration(self.duration).total_seconds())
        return self._until(scope, now.at)

    def resume(self, scope: Scope, why: Resumption) -> Done | Pause:
        if self.duration is not None:
            return Done({"until": rfc3339(why.due_at)} if why.due_at else {})
        if why.due_at is None:
            raise AssertionError("a wait until a time has one")
        return self._until(scope, why.due_at)

    def _until(self, scope: Scope, now: datetime) -> Done | Pause:
        """`now` by the database's clock: a worker's own may be ahead or behind."""
        if self.until is None:
            raise AssertionError("the model has either duration or until")
        moment = self._read(self.until.find(scope))
        if moment <= now:
            return Done({"until": rfc3339(moment)})
        if moment - now > LONGEST:
            raise StepFailed(f"{self.until} is more than 365 days away")
        return Pause(until=moment, note={"until": rfc3339(moment)})

    def _read(self, value: Any) -> datetime:
        """A time in RFC 3339; a date alone is its first moment, and a time without zone is in UTC."""
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (TypeError, ValueError, OverflowError):  # OverflowError: outside the years 1 to 9999 in UTC
            raise StepFailed(f"{self.until} holds no time") from None
