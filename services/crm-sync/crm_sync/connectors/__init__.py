"""The CRMs we speak to, one file each behind `protocol.Connector`."""

from collections.abc import Mapping

from crm_sync.connectors.hubspot import HubSpotConnector
from crm_sync.connectors.protocol import Connector
from crm_sync.connectors.webhook import WebhookConnector


def all_connectors(*, hubspot_base_url: str, hubspot_api_version: str) -> Mapping[str, Connector]:
    """Every connector by its vendor's name."""
    connectors: tuple[Connector, ...] = (
        HubSpotConnector(hubspot_base_url, hubspot_api_version),
        WebhookConnector(),
    )
    return {connector.vendor: connector for connector in connectors}
