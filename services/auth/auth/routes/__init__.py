"""HTTP: each route parses, authorises, calls the service and answers."""

from auth.routes import internal, sessions, sign_in, users

ROUTERS = [sign_in.router, sessions.router, users.router, internal.router]
