"""`python -m leads.worker`: timelines, projections, and pruning."""

from collections.abc import Sequence

from chassis.consumer import Consumer
from chassis.resources import Resources
from chassis.worker import Loop, run_worker
from leads.consumers import TimelineConsumer, copy_users
from leads.settings import Settings
from leads.shown import LeadCache


def build(resources: Resources) -> Sequence[Loop]:
    """The worker's duties; pruning of the common tables is every worker's."""
    timeline = TimelineConsumer(resources.database, LeadCache(resources.cache))
    return [
        Consumer(resources.bus, resources.database, queue="leads.users", apply=copy_users),
        Consumer(
            resources.bus,
            resources.database,
            queue="leads.timeline",
            apply=timeline.apply,
            after_commit=timeline.refresh_cache,
        ),
    ]


if __name__ == "__main__":
    run_worker(Settings(), build)
