"""Cost of an import, compared with peers: milliseconds, modules and memory, each in a fresh interpreter.

    python benchmarks/imports.py [rounds]

Medians of interleaved rounds, and the ratio to the peer of the same round. The packages export lazily, so each is
measured twice: imported, and with every public name looked up. Peers that are not installed are skipped
(dogpile.cache is not among our dependencies).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from importlib.util import find_spec

from figures import keep

AREAS = ("logging", "cache", "security", "wsgi", "db", "notify")
ALL_AREAS = ", ".join(f"mks_hardening.{area}" for area in AREAS)
EVERY_NAME = "; ".join(f"from mks_hardening.{area} import *" for area in AREAS)
EIGHT = "redis, limits, pyotp, qrcode, sqlalchemy, requests, flask, pythonjsonlogger.json"

PEERS = {
    "logging": ("pythonjsonlogger.json", 1.0),
    "cache": ("dogpile.cache", 0.5),
    "security": ("pyotp", 1.0),
    "wsgi": ("werkzeug.middleware.proxy_fix", 0.25),
    "db": ("sqlalchemy", 0.15),
    "notify": ("smtplib, urllib.request, email.message", 0.6),
}

# name, what runs before the clock starts, what is measured, the peer, the most it may be of the peer
ROWS = [
    ("package", "", "import mks_hardening", "logging", 0.25),
    *((area, "", f"import mks_hardening.{area}", *PEERS[area]) for area in AREAS),
    ("cache", "", "import mks_hardening.cache", "redis", 0.26),
    ("all six", "", f"import {ALL_AREAS}", EIGHT, 0.15),
    ("all six after flask", "import flask", f"import {ALL_AREAS}", "", None),
    *((f"{area}, every name", "", f"from mks_hardening.{area} import *", *PEERS[area]) for area in AREAS),
    ("all six, every name", "", EVERY_NAME, EIGHT, None),
    ("the same after flask", "import flask", EVERY_NAME, "", None),
]

PROBE = """
import sys, time
{first}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
modules, memory = set(sys.modules), resident()
start = time.perf_counter()
{statement}
spent = time.perf_counter() - start
print([spent * 1000, len(set(sys.modules) - modules), (resident() - memory) / 2**20])
"""


def probe(statement: str, first: str = "") -> tuple[float, float, float]:
    code = PROBE.format(statement=statement, first=first)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    milliseconds, modules, mebibytes = json.loads(done.stdout)
    return milliseconds, modules, mebibytes


def installed(names: str) -> bool:
    return all(find_spec(name.strip().partition(".")[0]) for name in names.split(",")) if names else False


def main(rounds: int) -> None:
    print(f"{'import':22} {'ms':>7} {'modules':>8} {'MiB':>6}   {'peer':40} {'ms':>7} {'ratio':>6}  goal")
    for name, first, statement, peer, goal in ROWS:
        with_peer = installed(peer)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(probe(statement, first))
            if with_peer:
                theirs.append(probe(f"import {peer}")[0])
        milliseconds, modules, memory = (statistics.median(column) for column in zip(*ours, strict=True))
        line = f"{name:22} {milliseconds:7.1f} {modules:8.0f} {memory:6.1f}   "
        if theirs:
            ratio = statistics.median(mine[0] / other for mine, other in zip(ours, theirs, strict=True))
            keep(f"import of {name}", {"ours": milliseconds, "peer": milliseconds / ratio})
            line += (
                f"{peer:40.40} {statistics.median(theirs):7.1f} {ratio:6.2f}  {f'<= {goal}' if goal else ''}"
            )
        elif peer:
            line += f"{peer:40.40} not installed"
        print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
