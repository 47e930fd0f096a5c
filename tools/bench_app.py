"""Load test of the example application: response times, the effect of the cache, and where the time is spent.

    python tools/bench_app.py [--articles 10000] [--readers 50] [--seconds 30] [--rounds 3] [--write FOLDER]
    python tools/bench_app.py --outages [--articles 2000] [--readers 10] [--seconds 15] [--write FOLDER]

PostgreSQL, Redis and two gunicorns run side by side, one application with its cache and one without. Readers who
pause for one to three seconds, as people do, ask one and then the other, round by round, so that neighbours on the
machine slow both down. The load generator has a core of its own, the servers have the others (at most two).

A cache is worth what readers ask twice. So the same readers, with the same choice of articles, are measured in
the first minutes, with a cache that was empty, and again with what they would have read in the five minutes before,
which is how long an article is kept. All of it takes ten minutes where nothing else runs.

With ``--outages`` one application with all of its areas is read and written while Redis, the mail server and Slack
are away, one after another (``examples/knowledge_system/bench/outages.py``); that takes four minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "examples/knowledge_system")]

from bench.command import main  # noqa: E402 - found by the paths above

if __name__ == "__main__":
    sys.exit(main((__doc__ or "").partition("\n")[0]))
