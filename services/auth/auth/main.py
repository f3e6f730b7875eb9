"""The auth process: HTTP for users, services and verifiers, its outbox relay, and pruning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI

from auth.health import SystemHealth
from auth.keys import KeyRing, ensure_key
from auth.passwords import Passwords
from auth.routes import ROUTERS
from auth.service import Identity
from auth.settings import Settings
from auth.tokens import AccessTokens
from auth.users import Users
from auth.verification import OwnIdentity
from chassis.app import create_app
from chassis.database import Database
from chassis.http import make_internal_client
from chassis.pruning import Prune, common_pruning
from chassis.resources import open_resources
from chassis.vault import Vault
from chassis.worker import running


def create(settings: Settings) -> FastAPI:
    """The application; nothing is opened before its lifespan begins."""
    vault = Vault(settings.key_encryption_keys.get_secret_value())
    life = settings.access_token_seconds

    @cache
    def own_identity(database: Database) -> OwnIdentity:
        keys = KeyRing(database, vault, reload_seconds=settings.key_reload_seconds, access_token_seconds=life)
        return OwnIdentity(database, keys, access_token_seconds=life)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with (
            open_resources(settings, identity=own_identity) as resources,
            make_internal_client(settings) as client,
        ):
            database = resources.database
            await ensure_key(database, vault)
            verification = own_identity(database)
            tokens = AccessTokens(verification.ring, seconds=life)
            with Passwords(threads=settings.hash_threads, waiting_limit=settings.hash_waiting_limit) as passwords:
                async with running(
                    [*common_pruning(database), *own_pruning(database)], drain_seconds=settings.drain_seconds
                ):
                    await resources.wait_to_serve()
                    yield {
                        "resources": resources,
                        "settings": settings,
                        "passwords": passwords,
                        "verification": verification,
                        "identity": Identity(database, passwords, tokens, settings),
                        "users": Users(database),
                        "system_health": SystemHealth(settings.read_health_targets, client),
                    }

    return create_app(settings, title="auth", lifespan=lifespan, routers=ROUTERS)


def own_pruning(database: Database) -> list[Prune]:
    """Sessions a day after they are over, exchanged refresh tokens after 30 days, failures that have long leaked away."""
    over = "expires_at < now() - interval '1 day' OR ended_at < now() - interval '1 day'"
    return [
        Prune(database, "sessions", over),
        Prune(database, "refresh_tokens", "rotated_at < now() - interval '30 days'"),
        Prune(database, "login_failures", "last_failed_at < now() - interval '1 day'"),
    ]
