"""What the process's lifespan made, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends, Request

from auth.health import SystemHealth
from auth.models import Client
from auth.passwords import Passwords
from auth.service import Identity
from auth.settings import Settings
from auth.users import Users
from auth.verification import OwnIdentity
from chassis.database import Database


async def _database(request: Request) -> Database:
    found: Database = request.state.resources.database
    return found


async def _settings(request: Request) -> Settings:
    found: Settings = request.state.settings
    return found


async def _passwords(request: Request) -> Passwords:
    found: Passwords = request.state.passwords
    return found


async def _identity(request: Request) -> Identity:
    found: Identity = request.state.identity
    return found


async def _users(request: Request) -> Users:
    found: Users = request.state.users
    return found


async def _verification(request: Request) -> OwnIdentity:
    found: OwnIdentity = request.state.verification
    return found


async def _system_health(request: Request) -> SystemHealth:
    found: SystemHealth = request.state.system_health
    return found


async def _client(request: Request) -> Client:
    """The peer as the gateway saw it: uvicorn takes X-Forwarded-For from trusted peers only."""
    user_agent = request.headers.get("user-agent", "").replace("\0", "")[:256]
    return Client(request.client.host if request.client else "unknown", user_agent)


DatabaseOf = Annotated[Database, Depends(_database)]
SettingsOf = Annotated[Settings, Depends(_settings)]
PasswordsOf = Annotated[Passwords, Depends(_passwords)]
IdentityOf = Annotated[Identity, Depends(_identity)]
UsersOf = Annotated[Users, Depends(_users)]
VerificationOf = Annotated[OwnIdentity, Depends(_verification)]
SystemHealthOf = Annotated[SystemHealth, Depends(_system_health)]
ClientOf = Annotated[Client, Depends(_client)]
