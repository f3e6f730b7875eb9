"""The contact properties every portal has: those the connectors map, and HubSpot's own read-only ones.

Source: GET /crm/v3/properties/contacts of a portal, shortened to what matters to a connector.
"""

from dataclasses import dataclass, field
from typing import Any

LIFECYCLE_STAGES = (
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
    "other",
)
LEAD_STATUSES = (
    "NEW",
    "OPEN",
    "IN_PROGRESS",
    "OPEN_DEAL",
    "UNQUALIFIED",
    "ATTEMPTED_TO_CONTACT",
    "CONNECTED",
    "BAD_TIMING",
)

TYPES = ("string", "number", "date", "datetime", "enumeration", "bool", "phone_number")
FIELD_TYPES = (
    "text",
    "textarea",
    "number",
    "date",
    "select",
    "checkbox",
    "radio",
    "booleancheckbox",
    "phonenumber",
    "html",
    "file",
    "calculation_equation",
)
GROUPS = ("contactinformation", "contactlcs", "contactscripted", "emailinformation", "analyticsinformation")


@dataclass(frozen=True, slots=True)
class Property:
    """One property's definition, as far as it decides what a value may be."""

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    group: str = "contactinformation"
    description: str = ""
    options: tuple[str, ...] = field(default=())
    is_unique: bool = False
    is_read_only: bool = False
    is_hubspots: bool = True
    created_at: str = "2019-10-30T03:30:17.883Z"

    def document(self) -> dict[str, Any]:
        """The definition as the properties API shows it."""
        return {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "groupName": self.group,
            "description": self.description,
            "options": [
                {"label": option, "value": option, "displayOrder": position, "hidden": False}
                for position, option in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": False,
            "externalOptions": False,
            "hasUniqueValue": self.is_unique,
            "hidden": False,
            "hubspotDefined": self.is_hubspots,
            "modificationMetadata": {
                "archivable": not self.is_hubspots,
                "readOnlyDefinition": self.is_hubspots,
                "readOnlyValue": self.is_read_only,
            },
            "formField": not self.is_read_only,
            "dataSensitivity": "non_sensitive",
            "archived": False,
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
        }


def _read_only(name: str, label: str, kind: str) -> Property:
    return Property(name, label, kind, "text", is_read_only=True)


DEFAULT_PROPERTIES = (
    Property("email", "Email"),
    Property("firstname", "First Name"),
    Property("lastname", "Last Name"),
    Property("phone", "Phone Number", "string", "phonenumber"),
    Property("mobilephone", "Mobile Phone Number", "string", "phonenumber"),
    Property("company", "Company Name"),
    Property("jobtitle", "Job Title"),
    Property("website", "Website URL"),
    Property("address", "Street Address"),
    Property("city", "City"),
    Property("state", "State/Region"),
    Property("zip", "Postal Code"),
    Property("country", "Country/Region"),
    Property("message", "Message", "string", "textarea"),
    Property("industry", "Industry"),
    Property("annualrevenue", "Annual Revenue", "string"),
    Property("hubspot_owner_id", "Contact owner"),
    Property("lifecyclestage", "Lifecycle Stage", "enumeration", "radio", options=LIFECYCLE_STAGES),
    Property("hs_lead_status", "Lead Status", "enumeration", "radio", options=LEAD_STATUSES),
    Property("closedate", "Close Date", "datetime", "date"),
    _read_only("hubspotscore", "HubSpot Score", "number"),
    _read_only("createdate", "Create Date", "datetime"),
    _read_only("lastmodifieddate", "Last Modified Date", "datetime"),
    _read_only("hs_object_id", "Record ID", "number"),
    _read_only("hs_merged_object_ids", "Merged record IDs", "enumeration"),
    _read_only("hs_additional_emails", "Additional email addresses", "enumeration"),
)
