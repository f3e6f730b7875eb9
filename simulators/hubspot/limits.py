"""HubSpot's request limits: a rolling burst window, a daily count that starts anew at the account's midnight, and searches.

Source: developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines.
"""

import time
from collections import defaultdict, deque
from datetime import datetime
from zoneinfo import ZoneInfo

from simulators.hubspot.accounts import Account, Caller
from simulators.hubspot.errors import RateLimited
from simulators.storage import Storage


class Limits:
    """Counts requests. The burst windows are forgotten with the process, the daily counts are not."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._bursts: defaultdict[tuple[int, bool], deque[float]] = defaultdict(deque)
        self._searches: defaultdict[int, deque[float]] = defaultdict(deque)

    def take_search(self, caller: Caller) -> None:
        """Count one search. Raises RateLimited. Searches have a limit of their own, and no headers."""
        account = caller.account
        window = self._window(self._searches[account.portal_id], 1.0)
        if len(window) >= account.search_per_second:
            raise RateLimited("SECONDLY", in_older_shape=True)
        self._take_daily(account)
        window.append(time.monotonic())

    def take(self, caller: Caller) -> dict[str, str]:
        """Count one request; the headers that tell what is left. Raises RateLimited."""
        account = caller.account
        allowed = account.oauth_burst if caller.is_app else account.burst
        window = self._window(self._bursts[account.portal_id, caller.is_app], account.burst_seconds)
        if len(window) >= allowed:
            raise RateLimited("TEN_SECONDLY_ROLLING")
        used = self._take_daily(account)
        window.append(time.monotonic())
        headers = {
            "X-HubSpot-RateLimit-Max": str(allowed),
            "X-HubSpot-RateLimit-Remaining": str(allowed - len(window)),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(account.burst_seconds * 1000)),
        }
        if not caller.is_app:
            headers["X-HubSpot-RateLimit-Daily"] = str(account.daily)
            headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(account.daily - used)
        return headers

    def set_used_today(self, account: Account, used: int) -> None:
        self._storage.execute(
            "INSERT OR REPLACE INTO daily_usage VALUES (?, ?, ?)", account.portal_id, _today(account), used
        )

    def forget(self) -> None:
        self._bursts.clear()
        self._searches.clear()

    def _take_daily(self, account: Account) -> int:
        row = self._storage.one(
            "INSERT INTO daily_usage VALUES (?, ?, 1)"
            " ON CONFLICT DO UPDATE SET used = used + 1 WHERE used < ? RETURNING used",
            account.portal_id,
            _today(account),
            account.daily,
        )
        if row is None:
            raise RateLimited("DAILY")
        return int(row["used"])

    @staticmethod
    def _window(moments: deque[float], seconds: float) -> deque[float]:
        while moments and moments[0] <= time.monotonic() - seconds:
            moments.popleft()
        return moments


def _today(account: Account) -> str:
    return datetime.now(ZoneInfo(account.time_zone)).date().isoformat()
