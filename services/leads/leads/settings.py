"""leads' settings, read from the environment with the prefix `LEADS_`."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from leads.contact import is_region


def _region(text: str) -> str:
    if not is_region(text):
        raise ValueError("must be a country's two-letter code in capitals, such as US")
    return text


class Settings(ServiceSettings):
    """Both processes, HTTP and worker, read the same."""

    model_config = SettingsConfigDict(env_prefix="LEADS_", frozen=True, extra="ignore")

    service: ClassVar[str] = "leads"

    default_region: Annotated[str, AfterValidator(_region)] = "US"
    """Whose phone numbers need no country's code in a workspace that has set nothing itself."""
