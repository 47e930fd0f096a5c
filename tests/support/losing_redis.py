"""A fake Redis whose responses can be lost."""

from __future__ import annotations

from typing import Any

import fakeredis
import redis


class LosingRedis(fakeredis.FakeRedis):
    """Executes commands, and loses the next response if ``lose`` is set: the client has to send the command again.

    A script counts where it is sent whole, so forget what it knows (``script_flush``) to lose a script's answer.
    """

    lose = False

    def execute_command(self, *command: Any, **options: Any) -> Any:
        answer = super().execute_command(*command, **options)
        if self.lose and not str(command[0]).startswith("EVALSHA"):
            self.lose = False
            raise redis.exceptions.ConnectionError("the answer was lost")
        return answer
