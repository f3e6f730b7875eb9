"""crm-sync's worker: takes lead events in, brings leads over to the CRMs, keeps the desired state complete."""

from collections.abc import Sequence

from chassis.consumer import Consumer
from chassis.listening import Listener
from chassis.pruning import Prune
from chassis.resources import Resources
from chassis.vault import Vault
from chassis.worker import Loop, Periodic, run_worker
from crm_sync.access import AccessKeeper
from crm_sync.calling import VendorCaller
from crm_sync.connectors import all_connectors
from crm_sync.consumer import QUEUE, LeadConsumer
from crm_sync.health import add_work_observer, add_work_ping
from crm_sync.models import ConnectionKey
from crm_sync.settings import CrmSyncSettings
from crm_sync.sync.batch import Tools
from crm_sync.sync.syncer import Syncer
from crm_sync.sync.upkeep import Upkeep

CHANNEL = "crm_sync_due"
"""Where queries.sql notifies of new wishes: `<workspace>/<connection>`."""
UPKEEP_SECONDS = 1.0


def build(settings: CrmSyncSettings, resources: Resources) -> Sequence[Loop]:
    """The worker's duties."""
    database = resources.database
    caller = VendorCaller(resources.outbound, resources.redis, timeout_seconds=settings.call_timeout_seconds)
    vault = Vault(settings.credential_keys.get_secret_value())
    tools = Tools(settings, database, caller, AccessKeeper(database, vault, caller))
    connectors = all_connectors(
        hubspot_base_url=settings.hubspot_base_url, hubspot_api_version=settings.hubspot_api_version
    )
    syncer = Syncer(tools, connectors)
    leads = LeadConsumer(syncer.wake)
    add_work_ping(resources.health, database)
    add_work_observer(resources.observers, database)

    def wake_for(payload: str) -> None:
        workspace_id, _, connection_id = payload.partition("/")
        syncer.wake([ConnectionKey(workspace_id, connection_id)])

    return (
        Consumer(resources.bus, database, queue=QUEUE, apply=leads.apply, after_commit=leads.after_commit),
        syncer,
        Listener(settings.database_url.get_secret_value(), CHANNEL, wake_for),
        Periodic("keep-wishes-complete", UPKEEP_SECONDS, Upkeep(database).run_once),
        Prune(database, "links", "released_at < now() - interval '90 days'"),
    )


def main() -> None:
    settings = CrmSyncSettings()
    run_worker(settings, lambda resources: build(settings, resources))


if __name__ == "__main__":
    main()
