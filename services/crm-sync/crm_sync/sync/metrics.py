"""What operators watch of the engine."""

from prometheus_client import Counter

CALLS = Counter(
    "crm_calls_total", "Calls to CRMs and webhooks by what came of them.", ["vendor", "operation", "verdict"]
)
SETTLED = Counter("crm_leads_settled_total", "Leads settled after a claim.", ["vendor", "outcome"])
RESTS = Counter("crm_connection_rests_total", "Times a connection was given a rest or stopped.", ["vendor", "reason"])
