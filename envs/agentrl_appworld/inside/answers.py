"""What APIs answered and changed, in short: whoever makes an episode's calls again sees if they went alike.

Standard library only. The episode's process listens to its requester, and so does the judge's.
"""

import hashlib
import json
import re
from typing import Any

# A token says until when it is valid, which chance decides; the same account has others as good.
_TOKEN = re.compile(r'"access_token": ?"[^"]*"')


def listen(requester: Any) -> dict[int, str]:
    """Return the answers of a requester, by the number of the call, as they come in.

    A call that raised or was interrupted has none.
    """
    answers: dict[int, str] = {}
    calls, check = requester.request_tracker, requester.raise_if_failure

    def hear(response: Any, raise_on_failure: Any = None) -> None:
        answers.setdefault(len(calls.requests) - 1, digest(response.status_code, response.text))
        check(response, raise_on_failure)

    requester.raise_if_failure = hear
    return answers


def digest(status: int, text: str) -> str:
    """Return an answer in short."""
    return f"{status} {hashlib.sha256(_TOKEN.sub('', text).encode()).hexdigest()[:12]}"


def changes(world: Any) -> str:
    """Return in short what was done to the databases of a world, in order."""
    done = json.dumps(world.models.get_tracked_db_changes(), default=repr)
    return hashlib.sha256(done.encode()).hexdigest()[:12]
