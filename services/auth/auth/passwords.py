"""Passwords: argon2id (RFC 9106), hashed outside the event loop by a few threads, one turn at a time.

Parameters are OWASP's minimum for argon2id ("Password Storage Cheat Sheet"): 19 MiB, two passes, one lane; about 30 ms each.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from auth.models import normalise_password
from chassis.errors import Unavailable

MEMORY_KIB, PASSES, LANES = 19_456, 2, 1

_Result = TypeVar("_Result")


class Passwords:
    """Hashes and verifies. A turn is one thread's time; whoever cannot be given one soon is refused at once (503)."""

    def __init__(self, *, threads: int, waiting_limit: int) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._turns = asyncio.Semaphore(threads)
        self._waiting = 0
        self._waiting_limit = waiting_limit
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The password's hash with the parameters of today."""
        async with self.turn():
            return await self._in_thread(lambda: self._hasher.hash(normalise_password(password)))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One of the few turns; `verify` is called within it. Unavailable (503) if too many wait already."""
        if self._waiting >= self._waiting_limit:
            raise Unavailable("Too many sign-ins at once; try again.")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    async def verify(self, stored: str | None, password: str) -> bool:
        """True if `password` has the hash `stored`. Without one (no such account) the same work is done for nothing."""
        candidate = normalise_password(password)
        matches = await self._in_thread(lambda: self._matches(stored or self._nobody, candidate))
        return matches and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """True if `stored` was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
