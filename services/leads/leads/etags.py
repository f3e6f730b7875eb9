"""Entity tags of leads (RFC 9110, sections 8.8.3 and 13.1).

A lead's tag is strong and names its representation: `"<version>.<revision>"`. `If-None-Match` compares all of it. `If-Match` compares
the version only: a CRM's id that arrived meanwhile changes what is shown, but not what an editor wants to change.
"""

import re

from chassis.errors import PreconditionFailed
from leads.models import Lead

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def strong_tags(header: str) -> set[str]:
    """The tags in an `If-Match`, quotes included, without the weak ones."""
    return {f'"{opaque}"' for weak, opaque in _TAG.findall(header) if not weak}


def none_match(header: str | None, etag: str) -> bool:
    """True if `If-None-Match` names this representation, so that 304 is the answer (weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or any(f'"{opaque}"' == etag for _, opaque in _TAG.findall(header))


def check_match(header: str | None, lead: Lead) -> None:
    """PreconditionFailed (412) if `If-Match` does not name the lead's version. Weak tags never match."""
    if header is None or header.strip() == "*":
        return
    wanted = {tag.strip('"').partition(".")[0] for tag in strong_tags(header)}
    if str(lead.version) not in wanted:
        raise PreconditionFailed(
            f"The lead is at version {lead.version} now.", headers={"ETag": lead.etag}, version=lead.version
        )
