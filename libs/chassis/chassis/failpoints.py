"""Named places where a test may end the process as a power cut would.

`FAILPOINT=name:n` in a process's environment ends it with SIGKILL when it passes that place for the n-th time
(n defaults to 1). Without the variable every failpoint is one dictionary look-up; no settings file names it.
"""

import os
import signal
from collections import Counter

_NAME, _, _COUNT = os.environ.get("FAILPOINT", "").partition(":")
_PASSES: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """End this process if the environment asks for its death at this place."""
    if name != _NAME:
        return
    _PASSES[name] += 1
    if _PASSES[name] == int(_COUNT or 1):
        os.kill(os.getpid(), signal.SIGKILL)
