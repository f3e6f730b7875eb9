"""What Prometheus learns about runs. Counted when the decision is made; a transaction that is redone is counted again."""

from prometheus_client import Counter, Gauge, Histogram

RUNS_STARTED = Counter("workflow_runs_started_total", "Runs begun, by kind of trigger.", ["trigger"])
RUNS_SUSPENDED = Counter(
    "workflow_runs_suspended_total",
    "Runs that were not let start, by what stopped them: loop, rate, definition.",
    ["reason"],
)
RUNS_LEFT = Counter("workflow_runs_left_total", "Runs put down by a worker, by the state they were left in.", ["state"])
STEP_SECONDS = Histogram(
    "workflow_step_seconds",
    "Time of a step's outside call.",
    ["type"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RUNS_IN_HAND = Gauge("workflow_runs_in_hand", "Runs this process is working on.")
LEASES_LOST = Counter("workflow_leases_lost_total", "Runs this process had to let go because their lease was over.")
RUNS = Gauge(
    "workflow_runs",
    "Runs that are not at their end, by state; those that somebody must look at are not among them.",
    ["state"],
)
RUNS_DUE = Gauge("workflow_runs_due", "Runs that a worker could take now.")
OLDEST_DUE = Gauge("workflow_oldest_due_seconds", "For how long the oldest of them could have been taken.")
TIMERS_LATE = Gauge("workflow_timers_late", "Runs whose waiting is over and that nobody has released yet.")
TIMERS_LATE_SECONDS = Gauge(
    "workflow_timers_late_seconds", "For how long the waiting of the latest of them has been over."
)
