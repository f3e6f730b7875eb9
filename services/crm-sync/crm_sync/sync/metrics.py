"""What operators watch of the engine."""

from prometheus_client import Counter, Histogram

CALLS = Counter(
    "crm_calls_total", "Calls to CRMs and webhooks by what came of them.", ["vendor", "operation", "verdict"]
)
SETTLED = Counter("crm_leads_settled_total", "Leads settled after a claim.", ["vendor", "outcome"])
RESTS = Counter("crm_connection_rests_total", "Times a connection was given a rest or stopped.", ["vendor", "reason"])
WAKE_SECONDS = Histogram(
    "crm_wake_to_claim_seconds",
    "Time from a wake-up to the claim of the leads it was for.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)
