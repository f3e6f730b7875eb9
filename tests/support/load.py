"""Clients that read and write leads while something else happens, and what they were told."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable

from deploy.local.api import Api
from deploy.local.errors import Refused


class Load:
    """`with Load(sign_in) as load:` until the end of the block. `answers` counts statuses and failures, `created` has the ids."""

    def __init__(self, sign_in: Callable[[], Api], *, clients: int = 2, pause: float = 0.1, score: int = 0) -> None:
        self.answers: Counter[str] = Counter()
        self.created: list[str] = []
        self._pause, self._score = pause, score
        self._ended = threading.Event()
        self._apis = [sign_in() for _ in range(clients)]
        self._threads = [threading.Thread(target=self._ask, args=one) for one in enumerate(self._apis)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for api in self._apis:
            api.close()

    @property
    def failures(self) -> dict[str, int]:
        """Answers that are no 2xx, and requests without one."""
        return {answer: count for answer, count in self.answers.items() if answer not in ("GET 200", "POST 201")}

    def _ask(self, number: int, api: Api) -> None:
        while not self._ended.wait(self._pause):
            email = f"load-{number}-{time.time_ns()}@example.com"
            for method, path, body in (
                ("GET", "/api/leads/lead-1", None),
                ("POST", "/api/leads", {"email": email, "score": self._score}),
            ):
                try:
                    status, content = api.ask(method, path, body)
                except Refused as error:
                    self.answers[str(error)] += 1
                    continue
                self.answers[f"{method} {status}" if status < 300 else f"{status} {content!r}"] += 1
                if status == 201:
                    self.created.append(json.loads(content)["id"])
