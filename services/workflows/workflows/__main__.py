"""`python -m workflows`: the HTTP process."""

from chassis.server import serve
from workflows.main import create
from workflows.settings import WorkflowsSettings

settings = WorkflowsSettings()
serve(lambda: create(settings), settings)
