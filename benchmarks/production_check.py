"""What ``mks-hardening check`` costs beside ``manage.py check --deploy`` of a bare Django project.

    python benchmarks/production_check.py [rounds]

Both run as whole processes, in turn. Prints medians and the ratio within each round; the static part must cost at
most a quarter of Django's command.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MOST = 0.25
NGINX = """
server { listen 80 default_server; return 444; }
server {
    listen 443 ssl;
    server_name www.example.com;
    location / { proxy_pass http://127.0.0.1:8000; }
}
"""


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "django", "startproject", "site_of_bench", name], check=True)
        (folder / "nginx.conf").write_text(NGINX, "utf-8")
        (folder / "shop.env").write_text("MKS_ALLOWED_HOSTS=www.example.com\nDEBUG=1\n", "utf-8")
        django = [sys.executable, str(folder / "manage.py"), "check", "--deploy"]
        ours = [sys.executable, "-m", "mks_hardening", "check", "--env-file", "shop.env"]
        files = [*ours, "--files", "nginx.conf"]
        nothing = [sys.executable, "-c", "pass"]
        runs = {"interpreter": nothing, "django": django, "settings": ours, "settings and nginx": files}
        spent: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(rounds):
            for label, command in runs.items():
                spent[label].append(seconds(command, folder))
    ratio = 0.0
    for label, times in spent.items():
        rounds_of = list(zip(times, spent["django"], spent["interpreter"], strict=True))
        whole = statistics.median(own / django for own, django, _ in rounds_of)
        net = statistics.median((own - start) / (django - start) for own, django, start in rounds_of)
        cost = statistics.median(times) * 1000
        print(
            f"{label:20} {cost:7.0f} ms   {whole:5.2f} of django, {net:5.2f} without the interpreter's start"
        )
        ratio = net if label == "settings" else ratio
    print(
        f"static part: {ratio:.2f} of manage.py check --deploy (at most {MOST}), the interpreter's start left out"
    )
    sys.exit(ratio > MOST)


def seconds(command: list[str], folder: Path) -> float:
    """Processor time of one process: other work on the machine does not count."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MKS_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=clean, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
