"""The step types, one file each. To add one: write its file, name it here, describe it in docs/workflow-definitions.md."""

from workflows.engine.definition import Step
from workflows.steps.assign_owner import AssignOwner
from workflows.steps.condition import Condition
from workflows.steps.http_request import HttpRequest
from workflows.steps.stop import Stop
from workflows.steps.sync_to_crm import SyncToCrm
from workflows.steps.update_lead import UpdateLead
from workflows.steps.wait import Wait
from workflows.steps.wait_for_event import WaitForEvent

STEP_TYPES: dict[str, type[Step]] = {
    "assign_owner": AssignOwner,
    "condition": Condition,
    "http_request": HttpRequest,
    "stop": Stop,
    "sync_to_crm": SyncToCrm,
    "update_lead": UpdateLead,
    "wait": Wait,
    "wait_for_event": WaitForEvent,
}
