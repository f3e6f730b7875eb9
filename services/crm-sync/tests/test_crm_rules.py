"""Mapping, rests and credentials, without any server."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.consumer import Delivery
from chassis.events import decode
from chassis.vault import SealBroken, Vault
from contracts import events
from crm_sync.consumer import copy_of
from crm_sync.credentials import (
    OAuth,
    SigningSecret,
    SigningSecrets,
    is_signing_secret,
    new_signing_secret,
    seal,
    unseal,
)
from crm_sync.events import caused_by
from crm_sync.mapping import MappedField, is_lead_field, render, with_cleared
from crm_sync.settings import CrmSyncSettings
from crm_sync.sync.troubles import seconds_until_midnight

KEY = f"k1:{base64.b64encode(b'1' * 32).decode()}"


def test_a_lead_is_rendered_through_its_mapping():
    mapping = (
        MappedField("email", "email"),
        MappedField("plan", "custom.plan"),
        MappedField("ok", "consent.email"),
        MappedField("labels", "tags"),
        MappedField("status", "stage", {"new": "NEW"}),
        MappedField("points", "score"),
        MappedField("phone", "phone"),
    )
    lead = {
        "email": "a@b.c",
        "custom": {"plan": "pro"},
        "consent": {"email": True},
        "tags": ["a", "b"],
        "stage": "new",
        "score": 0,
    }
    assert render(mapping, lead, text_only=True) == {
        "email": "a@b.c",
        "plan": "pro",
        "ok": "true",
        "labels": "a;b",
        "status": "NEW",
        "points": "0",
    }
    assert render(mapping, lead, text_only=False)["labels"] == ["a", "b"]
    assert "status" not in render(mapping, {**lead, "stage": "lost"}, text_only=True)


def test_only_what_we_filled_is_cleared():
    assert with_cleared({"a": "1"}, {"a": "0", "b": "2"}, empty="") == {"a": "1", "b": ""}
    assert with_cleared({"a": "1"}, None, empty="") == {"a": "1"}


@pytest.mark.parametrize(
    ("name", "known"),
    [("email", True), ("custom.plan", True), ("custom", False), ("custom.", False), ("version", False), ("x.y", False)],
)
def test_which_fields_can_be_mapped(name, known):
    assert is_lead_field(name) is known


def test_midnight_is_the_accounts_own_also_when_the_clocks_change():
    noon = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    assert seconds_until_midnight(noon, "UTC") == 12 * 3600
    assert seconds_until_midnight(noon, "Asia/Tokyo") == 3 * 3600
    assert seconds_until_midnight(noon, None) == seconds_until_midnight(noon, "No/Such") == 12 * 3600
    spring = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)  # midnight in Berlin; that day has 23 hours
    assert seconds_until_midnight(spring, "Europe/Berlin") == 23 * 3600


def test_credentials_open_for_their_own_connection_only_and_do_not_print():
    vault = Vault(KEY)
    grant = OAuth("id", "very-secret", "refresh")
    sealed = seal(vault, "ws_1", "conn_1", grant)
    assert unseal(vault, "ws_1", "conn_1", sealed) == grant
    for owner in (("ws_1", "conn_2"), ("ws_2", "conn_1")):
        with pytest.raises(SealBroken):
            unseal(vault, *owner, sealed)
    assert "very-secret" not in repr(grant)
    assert "very-secret" not in sealed


def test_a_rotated_signing_secret_lets_the_old_one_sign_for_its_time():
    now = datetime(2026, 11, 25, tzinfo=UTC)
    rotated = SigningSecrets((SigningSecret("old"),)).rotated("new", now + timedelta(hours=24))
    assert rotated.current(now) == ("new", "old")
    assert rotated.current(now + timedelta(hours=25)) == ("new",)
    assert is_signing_secret(new_signing_secret())
    assert not is_signing_secret("whsec_c2hvcnQ=")


def test_a_connection_ends_the_chain_of_what_caused_it_once_and_within_the_limit():
    assert caused_by("conn_1", "wf_1", None, None).chain == ("wf_1", "conn_1")
    assert caused_by("conn_1", "conn_1,wf_1", None, None).chain == ("conn_1", "wf_1")
    full = ",".join(f"wf_{number}" for number in range(8))
    assert len(caused_by("conn_1", full, None, None).chain) == 8


@pytest.mark.parametrize("event_type", ["lead.created", "lead.updated", "lead.deleted", "lead.restored"])
def test_the_examples_of_leads_are_read(event_type):
    for example in events()[event_type].examples:
        copy = copy_of(Delivery(decode(json.dumps(example).encode()), None, datetime.now(UTC)))
        assert copy.version == example["data"]["lead"]["version"]
        assert copy.deleted == (event_type == "lead.deleted")


def test_a_lease_must_outlive_the_crms_own_time_out():
    common: dict[str, Any] = {
        "port": 1,
        "internal_url": "http://x",
        "database_url": "x",
        "broker_url": "x",
        "cache_url": "x",
        "service_client_secret": "x",
        "credential_keys": KEY,
    }
    assert CrmSyncSettings(**common).lease_seconds == 60
    with pytest.raises(ValueError, match="lease_seconds"):
        CrmSyncSettings(**common, lease_seconds=30)
