"""Entity tags of workflows (RFC 9110, 8.8.3): the version, and whether it is archived."""

import re

from workflows.errors import VersionStale
from workflows.models import Workflow

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


def etag(workflow: Workflow) -> str:
    return f'"{workflow.version}.archived"' if workflow.archived_at else f'"{workflow.version}"'


def none_match(header: str | None, tag: str) -> bool:
    """True if `If-None-Match` names this representation: 304 is the answer."""
    if header is None:
        return False
    return header.strip() == "*" or any(f'"{opaque}"' == tag for _, opaque in _TAG.findall(header))


def check_match(header: str | None, workflow: Workflow) -> None:
    """VersionStale (412) if `If-Match` does not name the workflow as it is. Weak tags never match."""
    if header is None or header.strip() == "*":
        return
    if etag(workflow) not in {f'"{opaque}"' for weak, opaque in _TAG.findall(header) if not weak}:
        raise VersionStale(
            f"The workflow is at version {workflow.version} now.",
            headers={"ETag": etag(workflow)},
            version=workflow.version,
        )
