"""The order of a definition's steps: which one comes first, which follow, which may have run before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.engine.definition import Definition, Step


@dataclass(frozen=True, slots=True)
class Graph:
    """Where a run goes. Steps are named by id; None is the end of the workflow.

    Definitions nest and never jump back, so a run takes each step at most once per pass and always ends.
    """

    first: str
    steps: Mapping[str, Step]
    following: Mapping[str, str | None]
    earlier: Mapping[str, tuple[Step, ...]]
    """Per step: the steps that may have run before it, in the order they are written."""

    def after(self, step_id: str, branch: str | None = None) -> str | None:
        """The step that comes after `step_id` when it goes on by `branch` (an empty branch goes on behind the step)."""
        nested = self.steps[step_id].branch(branch) if branch is not None else ()
        return nested[0].id if nested else self.following[step_id]


def draw(definition: Definition) -> Graph:
    """The graph of a parsed definition."""
    steps: dict[str, Step] = {}
    following: dict[str, str | None] = {}
    earlier: dict[str, tuple[Step, ...]] = {}

    def walk(sequence: Sequence[Step], exit_to: str | None, before: tuple[Step, ...]) -> tuple[Step, ...]:
        for index, step in enumerate(sequence):
            behind = sequence[index + 1].id if index + 1 < len(sequence) else exit_to
            steps[step.id], following[step.id], earlier[step.id] = step, behind, before
            inside = (*before, step)
            seen = inside
            for name in step.branches:
                seen = (*seen, *walk(step.branch(name), behind, inside)[len(inside) :])
            before = seen
        return before

    walk(definition.steps, None, ())
    return Graph(definition.steps[0].id, steps, following, earlier)
