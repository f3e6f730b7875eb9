"""The worker process: takes events, carries runs out, releases timers, prunes. `python -m workflows.worker`."""

from collections.abc import Sequence
from typing import Any

from chassis.consumer import Consumer, Delivery
from chassis.listening import Listener
from chassis.pruning import Prune
from chassis.resources import Resources
from chassis.vault import Vault
from chassis.worker import Loop, Periodic, run_worker
from workflows.catalogue import Catalogue
from workflows.consuming import EventsConsumer, copy_users
from workflows.execution import store
from workflows.execution.calling import Outside
from workflows.execution.executor import Executor, Limits
from workflows.settings import WorkflowsSettings

RUNS_KEPT = (
    "finished_at < now() - interval '90 days' OR (state = 'suspended' AND created_at < now() - interval '90 days')"
)


def build_loops(settings: WorkflowsSettings, resources: Resources) -> Sequence[Loop]:
    """Every duty of a worker."""
    database, catalogue = resources.database, Catalogue()
    executor = Executor(
        database,
        catalogue,
        Outside(resources.services, resources.outbound),
        Vault(settings.secret_keys.get_secret_value()),
        Limits(settings.run_concurrency, settings.lease_seconds, settings.poll_seconds),
    )

    async def wake_executor(_deliveries: Sequence[Delivery]) -> None:
        executor.wake()

    async def release_timers() -> None:
        async with database.control.acquire(timeout=2) as connection:
            released = await store.release_timers(
                connection,
                batch=settings.timer_batch,
                per_workspace=settings.timer_workspace_batch,
                late_seconds=settings.timer_late_seconds,
                spread_seconds=settings.timer_spread_seconds,
            )
        if released:
            executor.wake()

    async def runs_ahead() -> dict[str, Any]:
        async with database.control.acquire(timeout=1) as connection:
            return await store.work_ahead(connection)

    async def observe() -> None:
        async with database.control.acquire(timeout=1) as connection:
            await store.observe(connection)

    resources.health.add("runs", runs_ahead)
    resources.observers.add("runs", observe)
    events = EventsConsumer(catalogue)
    dsn = settings.database_url.get_secret_value()
    return (
        executor,
        Consumer(resources.bus, database, queue="workflows.events", apply=events.apply, after_commit=wake_executor),
        Consumer(resources.bus, database, queue="workflows.users", apply=copy_users),
        Periodic("timers", settings.timer_sweep_seconds, release_timers),
        Listener(dsn, "workflow_runs", lambda _payload: executor.wake(), opened=executor.wake),
        Prune(database, "runs", RUNS_KEPT),
    )


def main() -> None:
    settings = WorkflowsSettings()
    run_worker(settings, lambda resources: build_loops(settings, resources))


if __name__ == "__main__":
    main()
