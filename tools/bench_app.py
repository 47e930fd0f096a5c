"""Load test of the example application: response times, the effect of the cache, and where the time is spent.

    python tools/bench_app.py [--articles 10000] [--readers 50] [--seconds 30] [--rounds 3] [--write FOLDER]
    python tools/bench_app.py --outages [--articles 2000] [--readers 10] [--seconds 15] [--write FOLDER]
    python tools/bench_app.py --faults [PATTERN] [--articles 2000] [--readers 10] [--write FOLDER]
    python tools/bench_app.py --costs [--articles 2000]

PostgreSQL, Redis and two gunicorn servers run side by side: one application with its cache and one without. Readers
pause for one to three seconds between requests, as people do, and use the two applications in alternating rounds,
so that other load on the machine slows both down equally. The load generator has a core of its own; the servers
share the others (at most two).

A cache helps only with what is requested twice. The same readers, who choose the same articles, are therefore
measured twice: in the first minutes, starting with an empty cache, and with the cache as it would be after five
minutes of reading, which is the lifetime of a cached article. A whole run takes ten minutes on an idle machine.

With ``--outages``, users read and edit one application with all its areas while Redis, the mail server and Slack
are unavailable, one after another (``examples/knowledge_system/bench/outages.py``). This takes four minutes.

With ``--faults``, the same application is measured under each fault of a table (``bench/faults.py``): of Redis,
PostgreSQL, the mail server, Slack, the workers, the log disk and clients that never finish. The command fails
and names the broken promises if any is broken. This takes nine minutes, and needs root for a small disk. With
a pattern, only faults whose name matches are run, and nothing is written.

With ``--costs``, the cost of a request is measured for each route, and compared with readers at the same time.
``mks-deploy capacity`` and its page use the results. This takes two minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/support", "examples/knowledge_system", "tools")]

from bench.command import main  # noqa: E402 - found by the paths above

if __name__ == "__main__":
    sys.exit(main((__doc__ or "").partition("\n")[0]))
