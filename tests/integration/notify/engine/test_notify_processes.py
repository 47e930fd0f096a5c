"""Real processes: exit, SIGTERM, fork, signal handlers, several workers. Nothing is lost, doubled or stuck."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.http_sink import Answer, HttpSink
from testbed.polling import free_port
from testbed.redis_server import RedisServer
from testbed.run_python import run_python

PRELUDE = """
import logging, os, signal, sys, threading, time
from mks_hardening.notify import AlertPolicy, SlackNotificationHandler, WebhookNotificationHandler
url, spool = sys.argv[1], sys.argv[2] or None
log = logging.getLogger("app")
def letters(n):
    return "".join(chr(ord("a") + int(digit)) for digit in str(n))
def build(**policy):
    policy = {"rate": 1000, "backoff": 0.05, **policy}
    handler = WebhookNotificationHandler(url, spool=spool, policy=AlertPolicy(**policy), timeout=2)
    log.addHandler(handler)
    return handler
"""


def run(code: str, url: str, spool: Path | str = "", *more: str) -> str:
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    return run_python(script, url, str(spool), *more, timeout=40).stdout


def alerts_in(sink: HttpSink) -> list[dict[str, object]]:
    return [alert for request in sink.requests for alert in request.json()["alerts"]]


def messages_in(sink: HttpSink) -> Counter[str]:
    return Counter(str(alert["message"]) for alert in alerts_in(sink) if not alert["digest"])


def spooled_in(folder: Path) -> Counter[str]:
    return Counter(json.loads(file.read_text())["message"] for file in folder.glob("*.json"))


def kinds(word: str, number: int) -> Counter[str]:
    return Counter(f"{word} {''.join(chr(ord('a') + int(digit)) for digit in str(n))}" for n in range(number))


ENDINGS = {
    "falls off the end": "",
    "sys.exit": "sys.exit(0)",
    "unhandled exception": "raise_late = None\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(0)",
    "logging.shutdown": "logging.shutdown()",
    "close": "handler.close()",
    "close twice": "handler.close(); handler.close()",
    "flush and os._exit": "handler.flush(10); os._exit(0)",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_process_that_ends_delivers_first(http_sink: HttpSink, ending: str) -> None:
    run(f"handler = build()\nfor n in range(3): log.error('end %s', letters(n))\n{ending}", http_sink.url)
    assert messages_in(http_sink) == kinds("end", 3)


def test_repetitions_are_told_at_exit(http_sink: HttpSink) -> None:
    run("build()\nfor n in range(2500): log.error('again %d', n)", http_sink.url)
    first, digest = alerts_in(http_sink)
    assert (first["digest"], digest["digest"], digest["repeats"]) == (False, True, 2499)


def test_a_process_that_ends_spools_what_a_dead_server_does_not_take(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    run(
        "build(backoff=2)\nfor n in range(50): log.error('end %s', letters(n))",
        f"http://localhost:{free_port()}/",
        spool,
    )
    assert spooled_in(spool) == kinds("end", 50)


def test_a_server_that_never_answers_does_not_hold_the_process(http_sink: HttpSink, tmp_path: Path) -> None:
    http_sink.default = Answer(delay=30)
    spool = tmp_path / "spool"
    run("build()\nfor n in range(20): log.error('end %s', letters(n))", http_sink.url, spool)
    assert spooled_in(spool) == kinds("end", 20)


def test_two_silent_servers_at_the_end(make_http_sink: Callable[[], HttpSink], tmp_path: Path) -> None:
    sinks = make_http_sink(), make_http_sink()
    for sink in sinks:
        sink.default = Answer(delay=30)
    code = """
    from mks_hardening.notify import SlackNotificationHandler
    build()
    log.addHandler(SlackNotificationHandler(sys.argv[3], spool=spool, timeout=10))
    for n in range(3): log.error('end %s', letters(n))
    """
    spool = tmp_path / "spool"
    run(code, sinks[0].url, spool, sinks[1].url)
    assert spooled_in(spool) == kinds("end", 3) + kinds("end", 3)


@pytest.mark.parametrize("moment", ["close", "exit"])
def test_sigterm_in_the_middle_of_the_end_loses_nothing(
    http_sink: HttpSink, tmp_path: Path, moment: str
) -> None:
    http_sink.default = Answer(delay=1)
    spool = tmp_path / "spool"
    code = f"""
    import atexit
    handler = build()
    for n in range(3): log.error('end %s', letters(n))
    def terminate():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=terminate, daemon=True).start()
    {"handler.close()" if moment == "close" else ""}
    """
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    ended = run_python(script, http_sink.url, str(spool), timeout=40, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert set(spooled_in(spool)) | set(messages_in(http_sink)) == set(kinds("end", 3))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_sigterm_while_the_rest_is_put_aside_loses_nothing(
    http_sink: HttpSink, tmp_path: Path, moment: str
) -> None:
    http_sink.default = Answer(delay=30)
    spool = tmp_path / "spool"
    code = f"""
    from mks_hardening.notify.engine._spool import Spool
    handler = build()
    for n in range(20): log.error('end %s', letters(n))
    put, numbers = Spool.put, iter(range(100))
    def interrupted(self, alert, **options):
        last = next(numbers) == 9
        if last and {moment == "before"}: os.kill(os.getpid(), signal.SIGTERM)
        put(self, alert, **options)
        if last: os.kill(os.getpid(), signal.SIGTERM)
    Spool.put = interrupted
    handler.close(0.3)
    """
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    ended = run_python(script, http_sink.url, str(spool), timeout=40, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert spooled_in(spool) == kinds("end", 20)


@pytest.mark.parametrize("delay", [0.5, 30], ids=["slow", "silent"])
def test_sigterm_while_another_thread_closes_loses_nothing_and_does_not_wait_for_it(
    http_sink: HttpSink, tmp_path: Path, delay: float
) -> None:
    http_sink.default = Answer(delay=delay)
    spool = tmp_path / "spool"
    code = """
    handler = build()
    for n in range(3): log.error('end %s', letters(n))
    threading.Thread(target=handler.close, args=(60,), daemon=True).start()
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
    """
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    ended = run_python(script, http_sink.url, str(spool), timeout=40, check=False)
    assert ended.returncode == -signal.SIGTERM
    # What a silent server was sent may be spooled as well: it may not have taken it.
    assert set(messages_in(http_sink)) | set(spooled_in(spool)) == set(kinds("end", 3))
    if delay > 1:
        assert spooled_in(spool) == kinds("end", 3)


def test_a_handler_that_is_dropped_delivers_and_leaves_nothing_behind(http_sink: HttpSink) -> None:
    code = """
    import gc, weakref
    handler = build()
    for n in range(3): log.error('dropped %s', letters(n))
    inside = weakref.ref(handler._dispatcher)
    log.removeHandler(handler)
    del handler
    end = time.monotonic() + 10
    while threading.active_count() > 1 and time.monotonic() < end: time.sleep(0.01)
    gc.collect()
    print(threading.active_count(), inside())
    """
    assert run(code, http_sink.url) == "1 None\n"
    assert messages_in(http_sink) == kinds("dropped", 3)


def test_a_child_forked_while_every_lock_is_held_can_log_and_end(http_sink: HttpSink) -> None:
    code = """
    handler = build()
    log.error('parent a')
    assert handler.flush(10)
    held, go_on = threading.Event(), threading.Event()
    def hold():
        inside = handler._dispatcher
        with inside._delivery.lock, inside._counts.lock, inside._worker._lock:
            held.set()
            go_on.wait(20)
    threading.Thread(target=hold, daemon=True).start()
    held.wait(10)
    child = os.fork()
    if not child:
        log.error('child a')
        handler.close(5)
        os._exit(0 if handler.stats().delivered == 1 else 3)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    """
    run(code, http_sink.url)
    assert messages_in(http_sink) == kinds("parent", 1) + kinds("child", 1)


@pytest.mark.parametrize("server", ["up", "down"])
def test_sigterm_loses_nothing(http_sink: HttpSink, tmp_path: Path, server: str) -> None:
    spool = tmp_path / "spool"
    if server == "down":
        http_sink.stop()
    code = """
    build(rate=20)
    for n in range(50): log.error('term %s', letters(n))
    print('ready', flush=True)
    while True: time.sleep(0.05)  # a signal just before a long sleep is handled at its end
    """
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-I", "-c", script, http_sink.url, str(spool)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    assert messages_in(http_sink) + spooled_in(spool) == kinds("term", 50)


def test_a_forked_child_has_its_own_alerts_and_the_parent_keeps_its_own(http_sink: HttpSink) -> None:
    http_sink.answer(Answer(delay=0.3))  # the parent is in the middle of sending when it forks
    code = """
    handler = build()
    for n in range(10): log.error('parent %s', letters(n))
    children = []
    for c in range(4):
        child = os.fork()
        if not child:
            assert handler.stats().logged == 0
            for n in range(5): log.error('child%s %s', letters(c), letters(n))
            stats = handler.stats()
            assert stats.logged == 5
            sys.exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert handler.flush(10)
    print(handler.stats().logged, handler.stats().delivered)
    """
    assert run(code, http_sink.url) == "10 10\n"
    children = [kinds(f"child{letter}", 5) for letter in "abcd"]
    assert messages_in(http_sink) == sum(children, kinds("parent", 10))


def test_forks_at_any_moment(http_sink: HttpSink) -> None:
    code = """
    handler = build(max_queue=100000)
    stop = threading.Event()
    def hammer(word):
        n = 0
        while not stop.wait(0.0002):
            log.error('%s %s', word, letters(n)); n += 1
    threads = [threading.Thread(target=hammer, args=(word,)) for word in ('one', 'two')]
    for thread in threads: thread.start()
    for c in range(15):
        child = os.fork()
        if not child:
            log.error('born %s', letters(c))
            handler.close(10)
            stats = handler.stats()
            os._exit(0 if (stats.logged, stats.delivered) == (1, 1) else 3)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
    handler.close(10)
    stats = handler.stats()
    assert stats.pending == 0 and stats.errors == 0
    assert stats.logged == stats.delivered + stats.suppressed + stats.spooled + stats.dropped
    """
    run(code, http_sink.url)
    born = {word: number for word, number in messages_in(http_sink).items() if word.startswith("born")}
    assert born == kinds("born", 15)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing(http_sink: HttpSink, tmp_path: Path, method: str) -> None:
    script = tmp_path / "program.py"
    code = """
    import multiprocessing
    build()
    def work(n):
        log.error('child %s', letters(n))
    if __name__ == '__main__':
        multiprocessing.set_start_method(sys.argv[3])
        log.error('parent a')
        children = [multiprocessing.Process(target=work, args=(n,)) for n in range(3)]
        for child in children: child.start()
        for child in children: child.join()
    """
    script.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(code))
    subprocess.run([sys.executable, str(script), http_sink.url, "", method], check=True, timeout=40)
    assert messages_in(http_sink) == kinds("parent", 1) + kinds("child", 3)


def test_log_calls_in_signal_handlers_neither_deadlock_nor_get_lost(http_sink: HttpSink) -> None:
    code = """
    handler = build()
    calls = [0]
    def on_alarm(signum, frame):
        log.error('alarm %s', letters(calls[0] % 7)); calls[0] += 1
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for n in range(20000):
        log.error('main %s', letters(n % 5))
        if n % 1000 == 0: handler.flush(1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    handler.close(10)
    stats = handler.stats()
    assert calls[0] > 20, calls
    assert stats.logged == 20000 + calls[0], (stats, calls)
    assert stats.logged == stats.delivered + stats.suppressed + stats.spooled + stats.dropped, stats
    assert stats.dropped == 0
    """
    run(code, http_sink.url)


def test_threads_count_exactly(http_sink: HttpSink) -> None:
    code = """
    handler = build()
    def work(word):
        for n in range(3000): log.error('%s broke at %d', word, n)
    threads = [threading.Thread(target=work, args=(word,)) for word in ('one', 'two', 'three', 'four') * 2]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    handler.close(10)
    stats = handler.stats()
    assert (stats.logged, stats.delivered, stats.suppressed) == (24000, 4, 23996), stats
    """
    run(code, http_sink.url)
    digests = [int(str(alert["repeats"])) for alert in alerts_in(http_sink) if alert["digest"]]
    assert sum(digests) == 23_996


def test_several_processes_replay_one_spool_without_doubles(http_sink: HttpSink, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    http_sink.stop()
    run("build()\nfor n in range(120): log.error('kept %s', letters(n))", http_sink.url, spool)
    http_sink.start()
    code = "handler = build()\nhandler.flush(20)\nassert handler.stats().errors == 0"
    script = textwrap.dedent(PRELUDE) + code
    arguments = [sys.executable, "-I", "-c", script, http_sink.url, str(spool)]
    processes = [subprocess.Popen(arguments) for _ in range(4)]
    assert [process.wait(40) for process in processes] == [0] * 4
    assert messages_in(http_sink) == kinds("kept", 120)
    assert list(spool.iterdir()) == []


WORKER = """
handler = build(shared_store=sys.argv[3])
sys.stdin.readline()
for n in range(2500): log.error('order %d failed', n)
while handler.stats().pending: time.sleep(0.01)  # one that asks the store after the others have closed is too late
print('logged', flush=True)
sys.stdin.readline()
handler.close()
stats = handler.stats()
print(stats.logged, stats.delivered, stats.suppressed, stats.spooled, stats.dropped, stats.pending, flush=True)
"""


class Worker:
    """A process that does the next thing when it is told to."""

    def __init__(self, *arguments: str) -> None:
        script = textwrap.dedent(PRELUDE) + WORKER
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def leave(self) -> None:
        self.process.communicate(timeout=20)


@pytest.mark.redis
@pytest.mark.parametrize("redis_is", ["up", "down"])
def test_four_workers_with_a_shared_store(
    http_sink: HttpSink, redis_server: RedisServer, redis_is: str
) -> None:
    url = redis_server.url if redis_is == "up" else f"redis://localhost:{free_port()}/0"
    with contextlib.ExitStack() as stack:
        workers = [Worker(http_sink.url, "", url) for _ in range(4)]
        for worker in workers:
            stack.callback(worker.leave)
            worker.tell()
        assert [worker.hear() for worker in workers] == ["logged\n"] * 4
        for worker in workers:
            worker.tell()
        sums = [list(map(int, worker.hear().split())) for worker in workers]
    logged, delivered, suppressed, *rest = map(sum, zip(*sums, strict=True))
    result = sum(int(str(alert["repeats"])) for alert in alerts_in(http_sink))
    assert len(http_sink.requests) == (2 if redis_is == "up" else 8)
    assert logged == delivered + suppressed == 10_000
    assert sum(rest) == 0
    assert result == suppressed


def test_two_handlers_on_one_logger_do_not_alert_each_other(make_http_sink: Callable[[], HttpSink]) -> None:
    refusing, working = make_http_sink(), make_http_sink()
    refusing.default = Answer(status=404)
    code = """
    first = build()
    url = sys.argv[3]
    second = build()
    logging.getLogger().addHandler(first)
    logging.getLogger().addHandler(second)
    log.propagate = False
    for n in range(5): log.error('trouble %s', letters(n))
    assert first.flush(10) and second.flush(10)
    assert first.stats().logged == second.stats().logged == 5
    """
    run(code, refusing.url, "", working.url)
    assert messages_in(working) == kinds("trouble", 5)
    assert len(refusing.requests) == 5
