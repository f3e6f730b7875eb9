"""`python -m leads`: the HTTP process."""

from chassis.server import serve
from leads.main import create
from leads.settings import Settings

settings = Settings()
serve(lambda: create(settings), settings)
