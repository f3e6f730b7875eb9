"""`python -m auth`: the HTTP process."""

from auth.main import create
from auth.settings import Settings
from chassis.server import serve

settings = Settings()
serve(lambda: create(settings), settings)
