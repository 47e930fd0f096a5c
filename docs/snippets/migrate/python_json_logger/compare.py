import json
import logging

import after
import before


def line(side, message, *arguments, **extra):
    told = {"name": "crane", "levelname": "INFO", "msg": message, "args": arguments}
    record = logging.makeLogRecord({**told, "created": 0.0, "msecs": 0.0, **extra})
    try:
        return side.formatter.format(record)
    except (TypeError, ValueError) as error:
        return f"no line, {type(error).__name__}"


def shown(text):
    return text if text.startswith("no line") else json.loads(text)["message"]


plain = [line(side, "lifted %d t", 12, site="北") for side in (before, after)]
print("the same line:", plain[0] == plain[1])
print("a secret:", " | ".join(shown(line(side, "password=hunter2")) for side in (before, after)))
print("an argument too many:", " | ".join(shown(line(side, "lifted", 12)) for side in (before, after)))
circle = {}
circle["self"] = circle
print("a circle:", " | ".join(shown(line(side, "state", state=circle)) for side in (before, after)))
