from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.resilience.budget import STORE_BUDGET, request_budget
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis


def failure(client: RedisClient, *command: Any, idempotent: bool = True) -> BackendUnavailableError:
    with pytest.raises(BackendUnavailableError) as caught:
        client.call(*command, idempotent=idempotent)
    return caught.value


def answers_again(client: RedisClient) -> None:
    wait_until(client.ping, timeout=2.5)


def test_commands_pipelines_and_scripts(redis_url: str) -> None:
    with RedisClient(redis_url, store_budget=5) as client:
        assert client.ping()
        assert client.call("SET", "a", b"\xff\x00") == b"OK"
        assert client.call("GET", "a") == b"\xff\x00"
        assert client.pipeline([("INCR", "n"), ("GET", "n")]) == [1, b"1"]
        double = client.script("return {KEYS[1], tonumber(ARGV[1]) * 2}")
        assert double.run(["k"], [21]) == [b"k", 42]
        assert double.run(["k"], [4]) == [b"k", 8]


@pytest.mark.parametrize("key", ["\ud800", "x\udce9/é", "\udfff\ud800", "日本", "\0"], ids=ascii)
def test_any_text_is_a_key(key: str, redis_url: str) -> None:
    async def main(client: RedisClient) -> None:
        assert await client.acall("GET", key) == b"1"
        assert await client.apipeline([("INCR", key), ("GET", key)]) == [2, b"2"]
        assert await client.script("return redis.call('GET', KEYS[1])").arun([key], []) == b"2"
        await client.aclose()

    client = RedisClient(redis_url, store_budget=5)
    client.call("SET", f"{key}?", "another")
    client.call("SET", key, "1")
    assert client.pipeline([("GET", key), ("GET", f"{key}?")]) == [b"1", b"another"]
    asyncio.run(main(client))


def test_answers_about_a_command_are_typed_and_leave_the_breaker_alone(redis_url: str) -> None:
    with RedisClient(redis_url, store_budget=5) as client:
        client.call("SET", "text", "x")
        for _ in range(10):
            assert failure(client, "INCR", "text").reason == "error"
        assert client.ping()


FAULTS: dict[str, tuple[Callable[[RedisServer], Any], Callable[[RedisServer], Any], str, bool]] = {
    "killed": (RedisServer.kill, RedisServer.start, "refused", True),
    "stopped": (RedisServer.pause, RedisServer.resume, "timeout", True),
    "read only": (
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
        "readonly",
        False,
    ),
    "out of memory": (
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
        "oom",
        False,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_fault_is_one_typed_error_and_one_record_and_heals(
    redis_server: RedisServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    break_it, mend_it, reason, opens = FAULTS[fault]
    with RedisClient(redis_server.url, store_budget=0.1 if opens else 5) as client:
        wait_until(client.ping)
        break_it(redis_server)
        reasons = {failure(client, "SET", "a", "1").reason for _ in range(5)}
        assert reasons <= {reason, "open", "timeout"}
        assert ("open" in reasons) is opens
        said = f"unavailable ({reason})" if opens else f"rejects writes ({reason})"
        assert [said in record.message for record in caplog.records if record.levelname == "ERROR"] == [True]
        mend_it(redis_server)
        answers_again(client)
        client.call("SET", "a", "2", idempotent=True)


def test_wrong_password(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(password="hunter2")
    wrong = server.url_for(password="hunter3")
    with RedisClient(server.url, store_budget=5) as good, RedisClient(wrong, store_budget=5) as bad:
        assert good.ping()
        error = failure(bad, "GET", "a")
        assert error.reason == "auth"
        assert "hunter" not in f"{error!r}{error.__cause__!r}{bad!r}{good!r}"


def test_acl_user_and_unix_socket(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(unix_socket=True)
    server.command("ACL", "SETUSER", "app", "on", ">pw", "~app:*", "+@all")
    with RedisClient(server.url_for(user="app", password="pw"), store_budget=5) as client:
        client.call("SET", "app:1", "x")
        assert {failure(client, "SET", "other", "x").reason for _ in range(5)} == {"denied"}
    with RedisClient(server.unix_url, store_budget=5) as client:
        assert client.call("GET", "app:1") == b"x"


def test_tls_is_verified(make_redis: Callable[..., RedisServer], certificates: Any) -> None:
    server = make_redis(certificates=certificates)
    with RedisClient(server.url, store_budget=5) as client:
        assert failure(client, "PING").reason == "certificate"
    with RedisClient(f"{server.url}?ca_file={certificates.ca_file}", store_budget=5) as client:
        assert client.ping()


def test_client_limit(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(options={"maxclients": "10"})
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            others = stack.enter_context(socket.create_connection((server.host, server.port)))
            others.sendall(b"PING\r\n")
            if others.recv(100).startswith(b"-ERR max number of clients"):
                break
        with RedisClient(server.url, store_budget=1) as client:
            assert failure(client, "GET", "a").reason in ("clients", "reset", "open")


def test_busy_script(redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "SET", "busy-reply-threshold", "10")
    with RedisClient(redis_server.url) as client:
        wait_until(client.ping)
        spin = threading.Thread(target=_swallow, args=(redis_server.command, "EVAL", "while true do end", 0))
        spin.start()
        try:
            wait_until(lambda: _reason(client) == "busy", timeout=5)
        finally:
            redis_server.command("SCRIPT", "KILL")
            spin.join()
        answers_again(client)


def _swallow(call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(Exception, match=r"\w"):
        call(*args)


def _reason(client: RedisClient) -> str:
    try:
        client.call("GET", "a", idempotent=True)
    except BackendUnavailableError as error:
        return error.reason
    return ""


def test_a_server_that_is_loading(make_redis: Callable[..., RedisServer]) -> None:
    redis_server = make_redis()  # its own: a reload leaves a dump behind
    for number in range(60):
        redis_server.command("SET", f"key:{number}", "x" * 2000)
    redis_server.command("CONFIG", "SET", "loading-process-events-interval-bytes", "2048")
    redis_server.command("CONFIG", "SET", "key-load-delay", "20000")
    with RedisClient(redis_server.url, store_budget=1) as client:
        assert client.ping()
        reload = threading.Thread(target=redis_server.command, args=("DEBUG", "RELOAD"))
        reload.start()
        wait_until(lambda: _reason(client) == "loading", timeout=5)
        assert failure(client, "GET", "key:1").reason == "open"
        reload.join()
        answers_again(client)
        assert client.call("GET", "key:1", idempotent=True) == b"x" * 2000


def test_a_lost_script_cache_is_no_error(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        script = client.script("return redis.call('INCR', KEYS[1])")
        assert script.run(["n"], []) == 1
        redis_server.command("SCRIPT", "FLUSH")
        assert script.run(["n"], []) == 2


WIRE = ["black_hole", "trickle", "latency", "corrupt", "half_close", "reset"]


@pytest.mark.parametrize("fault", WIRE)
def test_a_bad_wire_is_bounded_and_never_mixes_answers(fault: str, fault_proxy: FaultProxy) -> None:
    url = fault_proxy.through("redis://127.0.0.1:1/0")
    with RedisClient(url, store_budget=0.15) as client, RedisClient(url, store_budget=5) as patient:
        for number in range(5):
            patient.call("SET", f"key:{number}", str(number))
        if fault == "trickle":
            fault_proxy.trickle = 0.1
        elif fault == "latency":
            fault_proxy.latency = 0.5
        else:
            fault_proxy.mode = fault  # type: ignore[assignment]  # the names are the proxy's
        for number in range(8):
            failure(client, "GET", f"key:{number % 5}")
        fault_proxy.heal()
        answers_again(client)
        for number in range(5):
            assert patient.call("GET", f"key:{number}", idempotent=True) == str(number).encode()


def test_reads_are_tried_again_and_increments_are_not(
    fault_proxy: FaultProxy, redis_server: RedisServer
) -> None:
    with RedisClient(fault_proxy.through(redis_server.url), store_budget=5) as client:
        client.call("SET", "n", 5)
        fault_proxy.lose_reply(matching=b"GET")
        assert client.call("GET", "n", idempotent=True) == b"5"
        fault_proxy.lose_reply(matching=b"INCR")
        error = failure(client, "INCR", "n", idempotent=False)
        assert (error.reason, error.sent) == ("reset", True)
        assert redis_server.command("GET", "n") == b"6"


def test_a_token_makes_a_lost_reply_harmless(fault_proxy: FaultProxy, redis_server: RedisServer) -> None:
    with RedisClient(fault_proxy.through(redis_server.url), store_budget=5) as client:
        take = client.script("return redis.call('GETDEL', KEYS[1])")
        redis_server.command("SET", "code", "once")
        assert take.run(["other"], [], token="warm") is None
        fault_proxy.lose_reply(matching=b"EVALSHA")
        assert take.run(["code"], [], token="t1") == b"once"
        assert take.run(["code"], [], token="t2") is None


def test_dead_pooled_connections_are_replaced(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        client.call("INCR", "n")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert client.call("INCR", "n") == 2


class Abort(BaseException):
    """What gevent's time-outs and signal handlers raise wherever a program is."""


@pytest.mark.parametrize("moment", ["send_packed_command", "read_response"])
def test_an_aborted_call_leaves_no_answer_to_the_next(moment: str, redis_url: str) -> None:
    with RedisClient(redis_url, store_budget=5) as client:
        client.call("SET", "mine", "mine")
        client.call("SET", "secret", "of another")
        kind = client._lease.client().connection_pool.connection_class

        def aborted(connection: Any, *arguments: Any, **options: Any) -> None:
            if moment == "send_packed_command":
                getattr(kind.__base__, moment)(connection, *arguments, **options)
            raise Abort

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Abort):
            patch.setattr(kind, moment, aborted)
            client.call("GET", "secret")
        assert [client.call("GET", "mine") for _ in range(3)] == [b"mine"] * 3


def test_bytes_that_nobody_asked_for_are_no_answer(redis_url: str) -> None:
    with RedisClient(redis_url, store_budget=5) as client:
        client.call("SET", "mine", "mine")
        (idle,) = client._lease.client().connection_pool._available_connections
        idle.send_command("GET", "other")  # its answer is never read
        wait_until(idle.can_read)
        assert client.call("GET", "mine") == b"mine"


def test_one_request_has_one_budget(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        assert client.ping()
        redis_server.pause()
        with request_budget(0.05):
            reasons = [failure(client, "GET", "a").reason for _ in range(3)]
        assert reasons == ["timeout", "budget", "budget"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        client.call("SET", "who", "parent")
        children = []
        for number in range(4):
            child = os.fork()
            if child == 0:
                good = all(
                    client.call("SET", f"c{number}", i)
                    and client.call("GET", f"c{number}") == str(i).encode()
                    for i in range(50)
                )
                os._exit(0 if good else 1)
            children.append(child)
        for _ in range(50):
            assert client.call("GET", "who") == b"parent"
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0, 0, 0]


def test_threads_get_their_own_answers(redis_url: str) -> None:
    wrong: list[str] = []
    with RedisClient(redis_url, store_budget=5) as client:

        def work(number: int) -> None:
            asked = [f"{number}:{step}" for step in range(100)]
            wrong.extend(text for text in asked if client.call("ECHO", text) != text.encode())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_asyncio(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(redis_server.url)
        script = client.script("return redis.call('INCR', KEYS[1])")
        assert await client.acall("SET", "a", "1") == b"OK"
        assert await client.apipeline([("GET", "a"), ("INCR", "a")]) == [b"1", 2]
        assert [await script.arun(["n"], [], token="t") for _ in range(2)] == [1, 1]
        redis_server.pause()
        with pytest.raises(BackendUnavailableError) as caught:
            await client.acall("GET", "a", idempotent=True)
        assert caught.value.reason == "timeout"
        redis_server.resume()
        assert await client.acall("GET", "a") == b"2"
        await client.aclose()

    asyncio.run(main())


def test_cancelled_calls_never_mix_answers(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = RedisClient(redis_server.url, store_budget=5)
        for number in range(5):
            await client.acall("SET", f"k{number}", number)
        for number in range(60):
            task = asyncio.ensure_future(client.acall("GET", f"k{number % 5}"))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            key = (number + 1) % 5
            assert await client.acall("GET", f"k{key}") == str(key).encode()
            await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    asyncio.run(main())


class TenLineFake:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "SET":
            self.data[args[1]] = args[2]
            return b"OK"
        return self.data.get(args[1])


@pytest.mark.parametrize("make", [TenLineFake, fakeredis.FakeRedis])
def test_foreign_clients_are_enough(make: Callable[[], Any]) -> None:
    with RedisClient(make()) as client:
        client.call("SET", "a", b"1")
        assert client.call("GET", "a") == b"1"
        assert client.pipeline([("SET", "b", b"2"), ("GET", "b")])[1] == b"2"


@pytest.mark.parametrize("make", [TenLineFake, fakeredis.FakeRedis])
def test_a_plain_fake_serves_asyncio_too(make: Callable[[], Any]) -> None:
    async def main() -> None:
        client = RedisClient(make())
        await client.acall("SET", "a", b"1")
        assert await client.acall("GET", "a") == b"1"
        assert (await client.apipeline([("SET", "b", b"2"), ("GET", "b")]))[1] == b"2"
        assert client.call("GET", "b") == b"2"
        await client.aclose()

    asyncio.run(main())


def test_tokens_work_with_fakeredis() -> None:
    client = RedisClient(fakeredis.FakeRedis())
    script = client.script("return redis.call('INCR', KEYS[1])")
    assert [script.run(["n"], [], token="t") for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    "wrong",
    [object(), 5, fakeredis.FakeRedis(decode_responses=True), fakeredis.FakeAsyncRedis()],
    ids=["object", "number", "decoding", "asynchronous fake"],
)
def test_unusable_clients(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        RedisClient(wrong)


def test_closing_ends_a_call_in_progress(redis_server: RedisServer) -> None:
    client = RedisClient(redis_server.url, store_budget=60)
    reasons: list[str] = []
    caller = threading.Thread(target=lambda: reasons.append(failure(client, "BLPOP", "list", 50).reason))

    def blocked() -> int:
        with redis_server.client() as observer:
            return int(observer.info("clients")["blocked_clients"])

    caller.start()
    wait_until(lambda: blocked() == 1, what="a call that waits in the server")
    client.close()
    caller.join(30)
    assert reasons == ["closed"]
    wait_until(lambda: blocked() == 0, what="the end of its connection")


def test_closed(redis_url: str) -> None:
    client = RedisClient(redis_url)
    client.close()
    client.close()
    assert failure(client, "PING").reason == "closed"


# It gives the processor away after each command that it has sent.
AWAY = """
import os, signal, socket, sys
from mks_hardening._core.backend.redis_client import RedisClient

def stopping(send):
    def send_and_stop(*args):
        sent = send(*args)
        os.kill(os.getpid(), signal.SIGSTOP)
        return sent
    return send_and_stop

client = RedisClient(sys.argv[1])
assert client.call("PING") == b"PONG"
# Either sends a command, which depends on the version of redis-py.
os.write, socket.socket.send = stopping(os.write), stopping(socket.socket.send)
assert [client.call("INCR", "calls") for _ in range(2)] == [1, 2]
"""


def test_a_response_that_arrived_while_the_process_was_stopped_is_used(redis_server: RedisServer) -> None:
    with subprocess.Popen([sys.executable, "-c", AWAY, redis_server.url]) as process:
        for number in (b"1", b"2"):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            stopped = time.monotonic()
            wait_until(
                lambda number=number: redis_server.command("GET", "calls") == number, what="its command"
            )
            # Its clock cannot be moved.
            wait_until(
                lambda stopped=stopped: time.monotonic() - stopped > 2 * STORE_BUDGET, what="the deadline"
            )
            process.send_signal(signal.SIGCONT)
    assert process.returncode == 0
