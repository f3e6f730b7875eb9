"""Signing in, staying signed in, and being signed out."""

import asyncio
import hmac
from dataclasses import dataclass
from datetime import timedelta

from auth import repository
from auth.errors import ClientRefused, SessionNotFound, SessionOver, TokenRefused, TooManyAttempts, WrongCredentials
from auth.models import Account, Client, Session, User, normalise_email
from auth.passwords import Passwords
from auth.repository import Place
from auth.settings import Settings
from auth.throttle import Failures, Kind, bucket_keys, delay_seconds, wait_seconds
from auth.tokens import AccessToken, AccessTokens, new_refresh_token, read_refresh_token
from chassis.database import Database, Transaction
from chassis.failpoints import failpoint
from chassis.ids import new_id
from chassis.logs import get_logger

log = get_logger()


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client gets that signed in or refreshed; only here the refresh token is in clear."""

    access: AccessToken
    refresh_token: str
    user: User
    session_id: str


class Identity:
    """Sessions of users, and tokens for services."""

    def __init__(self, database: Database, passwords: Passwords, tokens: AccessTokens, settings: Settings) -> None:
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._idle = timedelta(seconds=settings.session_idle_seconds)
        self._grace = timedelta(seconds=settings.rotation_grace_seconds)
        self._clients = settings.clients()

    async def sign_in(self, email: str, password: str, client: Client) -> SignedIn:
        """Open a session. WrongCredentials for an unknown address, a wrong password and a disabled user alike, after the same
        work; TooManyAttempts after too many failures; Unavailable if more sign in at once than can be hashed."""
        address = normalise_email(email)
        keys = bucket_keys(address or email.lower(), client.address)
        account, failures = await self._check_password(address, password, keys)
        await asyncio.sleep(delay_seconds(failures))
        if account is None:
            raise WrongCredentials
        if failures:
            await self._forgive(keys)
        if self._passwords.needs_rehash(account.password_hash):
            await self._rehash(account.user, password)
        return await self._open_session(account.user, client)

    async def _check_password(
        self, address: str | None, password: str, keys: dict[Kind, bytes]
    ) -> tuple[Account | None, list[Failures]]:
        """The account if it may sign in, and the failures before this attempt; a failure is counted before the turn ends, so
        that attempts made at once cannot all pass before the first is counted."""
        async with self._passwords.turn():
            async with self._database.acquire() as connection:
                failures = await repository.read_login_failures(connection, keys)
                if wait := wait_seconds(failures):
                    raise TooManyAttempts(wait)
                account = await repository.read_account(connection, address or "")
            matches = await self._passwords.verify(account.password_hash if account else None, password)
            if account is not None and matches and account.user.active:
                return account, failures
            async with self._database.acquire() as connection:
                await repository.count_login_failure(connection, keys)
        log.info("refuse-sign-in", known=account is not None, disabled=account is not None and not account.user.active)
        return None, failures

    async def _forgive(self, keys: dict[Kind, bytes]) -> None:
        forgiven: dict[Kind, bytes] = {kind: key for kind, key in keys.items() if kind != "address"}
        async with self._database.acquire() as connection:
            await repository.forget_login_failures(connection, forgiven)

    async def _rehash(self, user: User, password: str) -> None:
        """Store the password under today's parameters, while it is known."""
        replacement = await self._passwords.hash(password)
        async with self._database.acquire() as connection:
            await repository.replace_hash(connection, user, replacement)

    async def _open_session(self, user: User, client: Client) -> SignedIn:
        session_id = new_id("sess")
        text, refresh = new_refresh_token(user.workspace_id, session_id)
        async with self._database.transaction() as tx:
            owner = await repository.open_session(
                tx.connection,
                user,
                session_id=session_id,
                address=client.address,
                user_agent=client.user_agent,
                idle=self._idle,
            )
            if owner is None:
                raise WrongCredentials
            await repository.insert_refresh_token(tx.connection, user.workspace_id, session_id, refresh.token_hash)
        log.info("open-session", session_id=session_id, user_id=owner.id)
        return SignedIn(await self._tokens.for_user(owner, session_id), text, owner, session_id)

    async def refresh(self, token: str) -> SignedIn:
        """Exchange a refresh token for its successor. One that was exchanged within the grace before (the answer was lost, the
        request was repeated) gets another successor; one that was exchanged earlier is in two hands, and ends the session."""
        presented = read_refresh_token(token)
        if presented is None:
            raise SessionOver
        workspace_id, session_id = presented.workspace_id, presented.session_id
        text, successor = new_refresh_token(workspace_id, session_id)
        async with self._database.transaction() as tx:
            user_id = await repository.lock_session(tx.connection, workspace_id, session_id)
            if user_id is None:
                raise SessionOver
            accepted = await repository.rotate_refresh_token(
                tx.connection, workspace_id, session_id, presented.token_hash, self._grace
            )
            user = await repository.read_user(tx.connection, workspace_id, user_id)
            if accepted is None or user is None:
                raise SessionOver
            if accepted:
                await repository.insert_refresh_token(tx.connection, workspace_id, session_id, successor.token_hash)
                await repository.prolong_session(tx.connection, workspace_id, session_id, self._idle)
            else:
                await repository.end_session(tx.connection, workspace_id, session_id, "refresh_token_reused")
        if not accepted:
            log.warning("end-session", session_id=session_id, reason="refresh_token_reused")
            raise SessionOver("This refresh token was used before, so its session has been ended: sign in again.")
        failpoint("refresh.before_response")
        return SignedIn(await self._tokens.for_user(user, session_id), text, user, session_id)

    async def service_token(self, name: str, secret: str, workspace_id: str) -> AccessToken:
        """An access token for a service in a workspace. ClientRefused for a wrong name or secret, TokenRefused for a workspace
        that does not exist."""
        expected = self._clients.get(name, "")
        if not hmac.compare_digest(secret.encode(), expected.encode()) or not expected:
            log.warning("refuse-service", client_id=name[:64])
            raise ClientRefused
        exists = await self._database.read(lambda connection: repository.workspace_exists(connection, workspace_id))
        if not exists:
            raise TokenRefused("invalid_request", "workspace_id names no workspace.")
        return await self._tokens.for_service(name, workspace_id)

    async def sign_out(self, workspace_id: str, session_id: str) -> None:
        """End one's own session; one that is over stays over."""
        async with self._database.transaction() as tx:
            await repository.end_session(tx.connection, workspace_id, session_id, "logout")
        log.info("end-session", session_id=session_id, reason="logout")

    async def list_sessions(self, workspace_id: str, user_id: str, *, after: Place | None, limit: int) -> list[Session]:
        """The user's sessions that are not over, newest first."""
        return await self._database.read(
            lambda connection: repository.list_sessions(connection, workspace_id, user_id, after=after, limit=limit)
        )

    @staticmethod
    async def end_session(tx: Transaction, workspace_id: str, session_id: str, *, owner: str | None) -> None:
        """End a session. SessionNotFound if there is none, or, where `owner` is given, none of theirs."""
        found = await repository.session_owner(tx.connection, workspace_id, session_id)
        if found is None or owner not in (None, found):
            raise SessionNotFound
        await repository.end_session(tx.connection, workspace_id, session_id, "ended")
        log.info("end-session", session_id=session_id, reason="ended")

    @staticmethod
    async def end_sessions(tx: Transaction, workspace_id: str, user_id: str) -> None:
        """End every session of a user."""
        count = await repository.end_sessions_of_user(tx.connection, workspace_id, user_id, "ended")
        log.info("end-sessions", user_id=user_id, count=count, reason="ended")
