"""One turn of a connection: see that it can be used, claim what is due, have it worked on, note what was learned."""

from chassis.leases import Lease, LeaseLost, new_lease_token, renewing
from chassis.logs import get_logger
from crm_sync.connectors.protocol import Access, Connector, Trouble, TroubleKind, VendorError, VendorTrouble
from crm_sync.models import Connection, ConnectionKey
from crm_sync.repository import record_preparation
from crm_sync.sync import repository
from crm_sync.sync.batch import Batch, Tools
from crm_sync.sync.troubles import act_on

log = get_logger()


async def serve(tools: Tools, connectors: dict[str, Connector], key: ConnectionKey) -> float | None:
    """Work on one batch. Returns after how many seconds to come again, None if nothing is left to do now."""
    async with tools.database.acquire() as db:
        connection = await repository.read_connection(db, key)
    if connection is None or connection.status != "active" or connection.is_resting:
        return None
    connector = connectors[connection.vendor]
    try:
        prepared = await _prepared(tools, connection, connector)
        if prepared is None:
            return 0.0
        access = await tools.keeper.access(prepared, connector)
    except VendorTrouble as error:
        await act_on(tools.database, tools.settings, connection, error.trouble)
        return None
    return await _work(tools, prepared, connector, access)


async def _prepared(tools: Tools, connection: Connection, connector: Connector) -> Connection | None:
    """Before the first call with these credentials: the account must be the one, our own property there, the mapping fit.

    None if the connection got other credentials or another mapping meanwhile.
    """
    is_prepared = connection.prepared_at is not None and connection.account_id is not None
    if is_prepared or connector.identity_property is None:
        return connection
    found = await tools.keeper.converse(
        connection, connector, lambda ask, access: connector.prepare(ask, access, connection.mapping)
    )
    if found.mapping_problems:
        problem = found.mapping_problems[0]
        words = f"The mapping of {connection.mapping[problem.index].field} does not fit: {problem.detail}."
        raise VendorTrouble(Trouble(TroubleKind.UNMAPPED, VendorError(words)))
    async with tools.database.acquire() as db:
        await record_preparation(db, connection, found)
        prepared = await repository.read_connection(db, connection.key)
    return prepared if prepared is not None and prepared.prepared_at is not None else None


async def _work(tools: Tools, connection: Connection, connector: Connector, access: Access) -> float | None:
    key, seconds = connection.key, tools.settings.lease_seconds
    lease = Lease(new_lease_token(), seconds)
    limit = 1 if connection.is_half_open else connector.batch_size
    async with tools.database.acquire() as db:
        claims = await repository.claim_leads(
            db,
            key,
            limit=limit,
            lease_token=lease.token,
            lease_seconds=seconds,
            looks_up=connector.looks_up,
        )
    if not claims:
        return None

    async def renew() -> bool:
        async with tools.database.control.acquire(timeout=1) as db:
            return await repository.renew_lease(db, key, lease.token, seconds)

    batch = Batch(tools, connection, connector, access, lease)
    try:
        async with renewing(lease, renew):
            await batch.run(claims)
    except LeaseLost as error:
        log.warning("lose-lease", connection_id=connection.id, error=str(error))
        return 0.0
    if batch.trouble is not None:
        return None
    if batch.succeeded and connection.trouble_count > 0:
        async with tools.database.acquire() as db:
            await repository.recover_connection(db, key, connection.trouble_count)
    return batch.wait_seconds
