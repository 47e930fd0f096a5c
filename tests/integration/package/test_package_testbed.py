"""The testbed itself: each server starts, misbehaves on demand and is clean for the next test."""

from __future__ import annotations

import http.client
import smtplib
import socket
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis

from testbed.certificates import Certificates
from testbed.fault_proxy import FaultProxy
from testbed.http_sink import Answer, HttpSink
from testbed.nginx_server import NginxServer
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import ONE_TRY, RedisServer
from testbed.smtp_server import SmtpServer

# --- Redis


@pytest.mark.parametrize("mess", ["keys", "killed", "paused", "config", "user", "replica"])
def test_redis_is_clean_after_any_mess(redis_server: RedisServer, mess: str) -> None:
    def make_a_mess() -> None:
        match mess:
            case "keys":
                redis_server.command("SET", "left", "over")
            case "killed":
                redis_server.kill()
            case "paused":
                redis_server.pause()
            case "config":
                redis_server.command("CONFIG", "SET", "maxmemory", "1mb")
            case "user":
                redis_server.command("ACL", "SETUSER", "mks", "on", ">pw", "~*", "+@all")
            case "replica":
                redis_server.command("REPLICAOF", "127.0.0.1", "1")

    port = redis_server.port
    make_a_mess()
    redis_server.reset()
    assert redis_server.port == port
    assert redis_server.command("DBSIZE") == 0
    assert redis_server.command("SET", "a", "b") is True
    with redis_server.client() as client:
        assert client.config_get("maxmemory")["maxmemory"] in ("0", b"0")
    assert redis_server.command("ACL", "USERS") == [b"default"]


def test_redis_comes_back_on_its_port(redis_server: RedisServer) -> None:
    port, first = redis_server.port, redis_server.process.pid
    redis_server.restart()
    assert redis_server.port == port
    assert redis_server.process.pid != first


def test_a_frozen_redis_accepts_and_stays_silent(redis_server: RedisServer) -> None:
    redis_server.pause()
    with redis_server.client(socket_timeout=0.05) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    redis_server.resume()
    assert redis_server.command("PING")


def test_redis_with_password_tls_and_socket(
    make_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    guarded = make_redis(password="pässwörd/@", certificates=certificates, unix_socket=True)
    assert guarded.url.startswith("rediss://")
    assert guarded.command("PING")
    with redis.Redis.from_url(guarded.unix_url, password=guarded.password, **ONE_TRY) as client:
        assert client.ping()
    with (
        redis.Redis(port=guarded.port, ssl=True, ssl_ca_certs=str(certificates.ca_file), **ONE_TRY) as nobody,
        pytest.raises(redis.AuthenticationError),
    ):
        nobody.ping()


def test_commands_are_counted(redis_server: RedisServer) -> None:
    redis_server.command("GET", "a")
    redis_server.command("GET", "a")
    assert redis_server.command_count("get") == 2


@pytest.mark.slow
def test_sentinels_promote_the_replica(redis_sentinels: SentinelGroup) -> None:
    before = redis_sentinels.master
    before.command("SET", "kept", "yes")
    wait_until(lambda: redis_sentinels.nodes[1].command("GET", "kept") == b"yes", what="replication")
    after = redis_sentinels.fail_over()
    assert after is not before
    assert after.command("GET", "kept") == b"yes"


@pytest.mark.slow
def test_a_cluster_replaces_a_lost_master(redis_cluster: RedisCluster) -> None:
    before = redis_cluster.owner("key")
    assert before.command("SET", "key", "value") is True
    with redis.RedisCluster.from_url(redis_cluster.url) as client:
        assert client.get("key") == b"value"
    assert redis_cluster.fail_over("key") is not before


# --- PostgreSQL


def test_postgres_gives_a_fresh_database(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE TABLE only_here (n int)")
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'"
        ).fetchone() == (1,)


def test_postgres_does_not_run_as_root(postgres_server: PostgresServer) -> None:
    assert postgres_server.execute("SHOW is_superuser") == [("on",)]
    owner = (postgres_server.directory / "data" / "PG_VERSION").stat().st_uid
    assert owner != 0


def test_postgres_survives_a_kill(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    postgres_server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_dsn)
    postgres_server.restart()
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_postgres_cuts_connections(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        postgres_server.disconnect_all(postgres_database)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


# --- nginx


def test_nginx_serves_both_ports(make_nginx: Callable[..., NginxServer], certificates: Certificates) -> None:
    server = make_nginx(
        """
        server { listen 127.0.0.1:@port@; return 301 https://@name@$request_uri; }
        server {
            listen 127.0.0.1:@tls_port@ ssl;
            ssl_certificate @cert@;
            ssl_certificate_key @key@;
            return 200 "hello";
        }
        """,
        values={"name": "example.test"},
    )
    plain = http.client.HTTPConnection(server.host, server.port)
    plain.request("GET", "/x?y=1")
    assert plain.getresponse().headers["Location"] == "https://example.test/x?y=1"
    plain.close()
    secure = http.client.HTTPSConnection(server.host, server.tls_port, context=certificates.client_context)
    secure.request("GET", "/")
    assert secure.getresponse().read() == b"hello"
    secure.close()


# --- SMTP


@pytest.mark.parametrize("security", ["plain", "starttls", "tls"])
@pytest.mark.parametrize("users", [{}, {"mks": "secret"}])
def test_smtp_modes(
    make_smtp: Callable[..., SmtpServer], certificates: Certificates, security: Any, users: dict[str, str]
) -> None:
    server = make_smtp(security=security, users=users)
    client: smtplib.SMTP
    if security == "tls":
        client = smtplib.SMTP_SSL(server.host, server.port, context=certificates.client_context, timeout=5)
    else:
        client = smtplib.SMTP(server.host, server.port, timeout=5)
    with client:
        client.ehlo()
        assert client.has_extn("starttls") is (security == "starttls")
        if security == "starttls":
            client.starttls(context=certificates.client_context)
        if users:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("mks", "wrong")
            client.login("mks", "secret")
        client.sendmail("a@example.test", ["b@example.test"], b"Subject: x\r\n\r\nbody")
    (received,) = server.received
    assert received.message["Subject"] == "x"
    assert received.over_tls is (security != "plain")
    assert received.user == ("mks" if users else None)


@pytest.mark.parametrize(
    ("stage", "reply", "error"),
    [
        ("CONNECT", "421 4.3.2 busy", smtplib.SMTPConnectError),
        ("MAIL", "450 4.7.1 later", smtplib.SMTPSenderRefused),
        ("RCPT", "550 5.1.1 no such user", smtplib.SMTPRecipientsRefused),
        ("DATA", "451 4.3.0 later", smtplib.SMTPDataError),
        ("MESSAGE", "554 5.7.1 spam", smtplib.SMTPDataError),
    ],
)
def test_smtp_faults_are_scripted(
    smtp_server: SmtpServer, stage: Any, reply: str, error: type[Exception]
) -> None:
    smtp_server.answer(stage, reply)

    def send() -> None:
        with smtplib.SMTP(smtp_server.host, smtp_server.port, timeout=5) as client:
            client.sendmail("a@example.test", ["b@example.test"], b"Subject: x\r\n\r\nbody")

    with pytest.raises(error):
        send()
    assert smtp_server.received == []
    send()
    assert len(smtp_server.wait_for(1)) == 1


@pytest.mark.parametrize(("stage", "taken"), [("EHLO", 0), ("RCPT", 0), ("MESSAGE", 1)])
def test_smtp_connections_are_dropped(smtp_server: SmtpServer, stage: Any, taken: int) -> None:
    smtp_server.drop(stage)
    with (
        pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)),
        smtplib.SMTP(smtp_server.host, smtp_server.port, timeout=5) as client,
    ):
        client.sendmail("a@example.test", ["b@example.test"], b"body")
    assert len(smtp_server.received) == taken


# --- HTTP


def _ask(sink: HttpSink, *, timeout: float = 5) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(sink.host, sink.port, timeout=timeout)
    try:
        connection.request("POST", "/hook", body=b'{"a": 1}', headers={"X-Mine": "1"})
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return response


def test_http_answers_by_script_and_records(http_sink: HttpSink) -> None:
    http_sink.answer(
        Answer(429, headers={"Retry-After": "3"}), Answer(302, headers={"Location": "http://elsewhere/"})
    )
    first, second, third = (_ask(http_sink) for _ in range(3))
    assert (first.status, first.headers["Retry-After"]) == (429, "3")
    assert (second.status, second.headers["Location"]) == (302, "http://elsewhere/")
    assert third.status == 200
    request = http_sink.wait_for(3)[0]
    assert (request.method, request.path, request.headers["X-Mine"]) == ("POST", "/hook", "1")
    assert request.json() == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "error", "patience"),
    [
        (Answer(raw=b"\x00\x01garbage\r\n\r\n"), http.client.BadStatusLine, 5),
        (Answer(drop=True), ConnectionError, 5),
        (Answer(delay=30), TimeoutError, 0.03),
        (Answer(body=b"x" * 100, trickle=0.05), TimeoutError, 0.03),
    ],
)
def test_http_misbehaves(
    http_sink: HttpSink, answer: Answer, error: type[Exception], patience: float
) -> None:
    http_sink.answer(answer)
    with pytest.raises(error):
        _ask(http_sink, timeout=patience)


def test_http_speaks_tls(make_http_sink: Callable[..., HttpSink], certificates: Certificates) -> None:
    sink = make_http_sink(tls=True)
    connection = http.client.HTTPSConnection(
        sink.host, sink.port, context=certificates.client_context, timeout=5
    )
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    connection.close()


# --- the wire


def _through(proxy: FaultProxy, *, timeout: float = 5) -> redis.Redis:
    return redis.Redis(port=proxy.port, **{**ONE_TRY, "socket_timeout": timeout})


def test_the_wire_passes_everything(redis_server: RedisServer, fault_proxy: FaultProxy) -> None:
    with redis.Redis.from_url(fault_proxy.through(redis_server.url)) as client:
        client.set("big", b"x" * 1_000_000)
        assert len(client.get("big")) == 1_000_000
    assert fault_proxy.connections == 1


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("reset", redis.ConnectionError),
        ("half_close", redis.ConnectionError),
        ("black_hole", redis.TimeoutError),
        ("corrupt", redis.RedisError),
        ("cut", redis.ConnectionError),
    ],
)
def test_the_wire_breaks_and_heals(fault_proxy: FaultProxy, mode: Any, error: type[Exception]) -> None:
    with _through(fault_proxy, timeout=0.2) as client:
        assert client.ping()
        fault_proxy.mode = mode
        with pytest.raises(error):
            client.ping()
        fault_proxy.heal()
        client.connection_pool.disconnect()
        assert client.ping()


def test_the_wire_refuses_and_heals(fault_proxy: FaultProxy) -> None:
    with _through(fault_proxy) as client:
        assert client.ping()
        fault_proxy.refuse()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        fault_proxy.heal()
        assert client.ping()


@pytest.mark.parametrize("then", ["reset", "silence"])
def test_a_lost_reply_was_carried_out(redis_server: RedisServer, fault_proxy: FaultProxy, then: Any) -> None:
    with _through(fault_proxy, timeout=0.2) as client:
        client.set("other", 1)
        fault_proxy.lose_reply(matching=b"INCR", number=2, then=then)
        assert client.incr("n") == 1
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            client.incr("n")
    assert redis_server.command("GET", "n") == b"2"


# The one place where tests look at the wall clock: lower bounds, which no slow machine can break.
def test_the_wire_is_slow(fault_proxy: FaultProxy) -> None:
    with _through(fault_proxy) as client:
        client.ping()
        fault_proxy.latency = 0.02
        start = time.monotonic()
        client.ping()
        assert time.monotonic() - start >= 0.04
        fault_proxy.latency, fault_proxy.trickle = 0.0, 0.01
        start = time.monotonic()
        client.ping()
        assert time.monotonic() - start >= 0.06


def test_the_wire_before_nothing_resets(make_fault_proxy: Callable[[str, int], FaultProxy]) -> None:
    proxy = make_fault_proxy("127.0.0.1", 1)
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection((proxy.host, proxy.port), timeout=5) as client,
    ):
        client.recv(1)
