"""HubSpot's own Python SDK works against the simulator: it speaks HubSpot, not merely what our client expects of it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hubspot import HubSpot
from hubspot.crm.contacts import (
    ApiException,
    BatchInputSimplePublicObjectBatchInput,
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchInputSimplePublicObjectId,
    BatchReadInputSimplePublicObjectId,
    PublicGdprDeleteInput,
    PublicMergeInput,
    PublicObjectSearchRequest,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate,
)
from hubspot.crm.properties import PropertyCreate

from simulators.testing import RunningSimulators


@pytest.fixture
def sdk(simulators: RunningSimulators, portal: int) -> Any:
    return HubSpot(access_token=f"pat-sim-{portal}", host=simulators.url)


def create(sdk: Any, **properties: str) -> Any:
    return sdk.crm.contacts.basic_api.create(SimplePublicObjectInputForCreate(properties=properties, associations=[]))


def make_unique_property(sdk: Any) -> None:
    definition = PropertyCreate(
        name="ao_lead_id",
        label="Lead id",
        type="string",
        field_type="text",
        group_name="contactinformation",
        has_unique_value=True,
    )
    sdk.crm.properties.core_api.create("contacts", definition)


def test_a_contact_is_created_read_updated_and_archived(sdk: Any):
    created = create(sdk, email="Ada@Example.com", firstname="Ada")
    assert created.properties["email"] == "ada@example.com"
    assert abs((datetime.now(UTC) - created.created_at).total_seconds()) < 60

    read = sdk.crm.contacts.basic_api.get_by_id(
        "ada@example.com", id_property="email", properties=["firstname", "phone"]
    )
    assert (read.id, read.properties["firstname"], read.properties["phone"]) == (created.id, "Ada", None)

    change = SimplePublicObjectInput(properties={"phone": "+4930123456"})
    updated = sdk.crm.contacts.basic_api.update(created.id, change)
    assert updated.properties["phone"] == "+4930123456"
    assert updated.updated_at > created.updated_at

    sdk.crm.contacts.basic_api.archive(created.id)
    with pytest.raises(ApiException) as missing:
        sdk.crm.contacts.basic_api.get_by_id(created.id)
    assert missing.value.status == 404
    assert sdk.crm.contacts.basic_api.get_by_id(created.id, archived=True).archived


def test_a_second_contact_with_the_address_is_a_conflict_naming_the_first(sdk: Any):
    first = create(sdk, email="grace@example.com")
    with pytest.raises(ApiException) as conflict:
        create(sdk, email="GRACE@example.com")
    assert conflict.value.status == 409
    assert f"Contact already exists. Existing ID: {first.id}" in conflict.value.body


def test_all_pages_are_found(sdk: Any):
    ids = [create(sdk, email=f"page{number}@example.com").id for number in range(5)]
    first = sdk.crm.contacts.basic_api.get_page(limit=2)
    assert first.paging.next.after == ids[2]
    assert [contact.id for contact in sdk.crm.contacts.get_all()] == ids


def test_a_batch_is_upserted_by_a_unique_property(sdk: Any):
    make_unique_property(sdk)
    known = create(sdk, email="known@example.com", ao_lead_id="lead_1")
    inputs = [
        {"id": "lead_1", "idProperty": "ao_lead_id", "objectWriteTraceId": "w1", "properties": {"firstname": "Known"}},
        {"id": "lead_2", "idProperty": "ao_lead_id", "objectWriteTraceId": "w2", "properties": {"firstname": "New"}},
        {"id": "lead_3", "idProperty": "ao_lead_id", "objectWriteTraceId": "w3", "properties": {"nosuch": "x"}},
    ]
    answer = sdk.crm.contacts.batch_api.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs))
    assert answer.status == "COMPLETE"
    results = {result.object_write_trace_id: result for result in answer.results}
    assert (results["w1"].id, results["w1"].new) == (known.id, False)
    assert (results["w2"].new, results["w2"].properties["ao_lead_id"]) == (True, "lead_2")
    assert answer.num_errors == 1
    assert answer.errors[0].context == {"objectWriteTraceId": ["w3"]}
    assert "PROPERTY_DOESNT_EXIST" in answer.errors[0].message


def test_batches_create_update_read_and_archive(sdk: Any):
    batch = sdk.crm.contacts.batch_api
    made = batch.create(
        BatchInputSimplePublicObjectBatchInputForCreate(
            inputs=[{"properties": {"email": f"b{number}@example.com"}, "associations": []} for number in range(3)]
        )
    )
    ids = [result.id for result in made.results]
    updates = [{"id": contact_id, "properties": {"company": "Analytical"}} for contact_id in ids]
    assert len(batch.update(BatchInputSimplePublicObjectBatchInput(inputs=updates)).results) == 3
    batch.archive(BatchInputSimplePublicObjectId(inputs=[{"id": ids[0]}]))
    read = batch.read(
        BatchReadInputSimplePublicObjectId(
            inputs=[{"id": contact_id} for contact_id in ids],
            properties=["company"],
            properties_with_history=[],
        )
    )
    assert [result.properties["company"] for result in read.results] == ["Analytical", "Analytical"]
    assert read.errors[0].category == "OBJECT_NOT_FOUND"
    assert read.errors[0].context == {"ids": [ids[0]]}


def test_search_filters_and_pages(sdk: Any):
    for number in range(3):
        create(sdk, email=f"s{number}@example.com", company="Searched")
    request = PublicObjectSearchRequest(
        filter_groups=[{"filters": [{"propertyName": "company", "operator": "EQ", "value": "searched"}]}],
        properties=["email"],
        limit=2,
    )
    first = sdk.crm.contacts.search_api.do_search(request)
    assert (first.total, len(first.results), first.paging.next.after) == (3, 2, "2")
    request.after = first.paging.next.after
    assert [result.properties["email"] for result in sdk.crm.contacts.search_api.do_search(request).results] == [
        "s2@example.com"
    ]


def test_a_merge_makes_a_new_id_and_the_old_ones_lead_to_it(sdk: Any):
    kept = create(sdk, email="kept@example.com", firstname="Kept")
    other = create(sdk, email="other@example.com", company="Other")
    merge = PublicMergeInput(primary_object_id=kept.id, object_id_to_merge=other.id)
    merged = sdk.crm.contacts.basic_api.merge(merge)
    assert merged.id not in (kept.id, other.id)
    assert (merged.properties["firstname"], merged.properties["company"]) == ("Kept", "Other")
    for key in (kept.id, other.id):
        assert sdk.crm.contacts.basic_api.get_by_id(key).id == merged.id
    with pytest.raises(ApiException) as conflict:
        create(sdk, email="other@example.com")
    assert merged.id in conflict.value.body


def test_an_erased_address_is_never_taken_again(sdk: Any):
    create(sdk, email="gone@example.com")
    erasure = PublicGdprDeleteInput(id_property="email", object_id="gone@example.com")
    sdk.crm.contacts.basic_api.purge(erasure)
    with pytest.raises(ApiException) as refused:
        create(sdk, email="gone@example.com")
    assert refused.value.status == 400
    assert "GDPR" in refused.value.body


def test_properties_are_listed_read_and_created_once(sdk: Any):
    make_unique_property(sdk)
    read = sdk.crm.properties.core_api.get_by_name("contacts", "ao_lead_id")
    assert read.has_unique_value
    names = [definition.name for definition in sdk.crm.properties.core_api.get_all("contacts").results]
    assert {"email", "firstname", "lifecyclestage", "ao_lead_id"} <= set(names)
    from hubspot.crm.properties import ApiException as PropertiesException

    with pytest.raises(PropertiesException) as exists:
        make_unique_property(sdk)
    assert exists.value.status == 409


def test_a_request_over_the_limit_is_answered_429(simulators: RunningSimulators, sdk: Any, portal: int):
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"burst": 2})
    create(sdk, email="one@example.com")
    create(sdk, email="two@example.com")
    with pytest.raises(ApiException) as limited:
        create(sdk, email="three@example.com")
    assert limited.value.status == 429
    assert '"policyName": "TEN_SECONDLY_ROLLING"' in limited.value.body


def test_an_app_gets_a_token_that_works(simulators: RunningSimulators, portal: int):
    tokens = HubSpot(host=simulators.url).oauth.tokens_api.create(
        grant_type="refresh_token",
        client_id="sim-client-id",
        client_secret="sim-client-secret",
        refresh_token=f"refresh-sim-{portal}",
    )
    assert (tokens.expires_in, tokens.refresh_token) == (1800, f"refresh-sim-{portal}")
    sdk = HubSpot(access_token=tokens.access_token, host=simulators.url)
    create(sdk, email="app@example.com")
    assert [contact["properties"]["email"] for contact in simulators.contacts(portal)] == ["app@example.com"]
