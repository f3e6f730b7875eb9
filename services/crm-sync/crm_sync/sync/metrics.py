"""What operators watch of the engine."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter(
    "crm_calls_total", "Calls to CRMs and webhooks by what came of them.", ["vendor", "operation", "verdict"]
)
SETTLED = Counter("crm_leads_settled_total", "Leads settled after a claim.", ["vendor", "connection", "outcome"])
LEAD_TO_RECORD = Histogram(
    "crm_lead_to_record_seconds",
    "From a lead's creation to its record in a CRM, for leads created after the connection.",
    ["vendor"],
    buckets=(0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
)
UNSETTLED = Gauge(
    "crm_leads_unsettled",
    "Leads that are not in step now: due, in_flight, unknown (a call's outcome is open), dead.",
    ["connection", "state"],
)
RESTING = Gauge(
    "crm_connection_resting",
    "1 while the connection is parked, paused or needs new credentials.",
    ["connection", "vendor"],
)
RESTS = Counter("crm_connection_rests_total", "Times a connection was given a rest or stopped.", ["vendor", "reason"])
