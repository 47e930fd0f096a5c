"""What is wrong with TLS to Redis is named, at construction where it can be known there."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.events import BackendFailed, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from testbed.certificates import Certificates
from testbed.polling import wait_until
from testbed.redis_groups import Sentinel
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis


def failures(url: str, *, budget: float = 5) -> list[BackendUnavailableError]:
    """What a plain and an asynchronous client say, each on an endpoint that nobody has used."""
    found = []
    with RedisClient(url, store_budget=budget) as client, pytest.raises(BackendUnavailableError) as caught:
        client.call("GET", "a")
    found.append(caught.value)

    async def main() -> None:
        client = RedisClient(url, store_budget=budget)
        try:
            await client.acall("GET", "a")
        finally:
            await client.aclose()

    with pytest.raises(BackendUnavailableError) as caught:
        asyncio.run(main())
    return [*found, caught.value]


@contextmanager
def handshakes(context: ssl.SSLContext) -> Iterator[int]:
    """A port where handshakes are tried and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with (
                        connection,
                        suppress(OSError),
                        context.wrap_socket(connection, server_side=True) as tls,
                    ):
                        tls.recv(100)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("unknown", "certificate verify failed"), ("expired", "expired"), ("other-host", "Hostname mismatch")],
)
def test_a_certificate_that_is_not_accepted(certificates: Certificates, kind: str, said: str) -> None:
    with handshakes(certificates.spoilt_context(kind)) as port:
        for error in failures(f"rediss://localhost:{port}?ca_file={certificates.ca_file}"):
            assert (error.reason, error.sent) == ("certificate", False)
            assert said in error.detail


def test_a_server_that_asks_for_a_certificate(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    context.load_verify_locations(certificates.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones tell the client after the handshake
    with handshakes(context) as port:
        for error in failures(f"rediss://localhost:{port}?ca_file={certificates.ca_file}"):
            assert (error.reason, error.sent) == ("tls", False)


def test_an_authority_that_is_not_given(
    make_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    server = make_redis(certificates=certificates)
    for url in (server.url, f"rediss+cluster://127.0.0.1:{server.port}"):
        for error in failures(url):
            assert (error.reason, error.sent) == ("certificate", False)


def test_clear_text_to_a_port_that_expects_tls(
    make_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    server = make_redis(certificates=certificates)
    for error in failures(f"redis://127.0.0.1:{server.port}"):
        assert error.reason == "reset"
        assert "must begin with rediss" in error.detail


def test_a_server_that_has_answered_is_not_taken_for_one_with_tls(redis_server: RedisServer) -> None:
    with RedisClient(redis_server.url, store_budget=5) as client:
        assert "rediss" in client._guard.detail_of(ConnectionResetError())
        assert client.ping()
        assert client._guard.detail_of(ConnectionResetError()) == ""


def test_a_cluster_with_tls(make_redis: Callable[..., RedisServer], certificates: Certificates) -> None:
    node = make_redis(certificates=certificates, options={"cluster-enabled": "yes", "tls-cluster": "yes"})
    node.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    url = f"rediss+cluster://127.0.0.1:{node.port}?ca_file={certificates.ca_file}"
    wait_until(lambda: "cluster_state:ok" in str(node.command("CLUSTER", "INFO")))

    async def main() -> None:
        client = RedisClient(url, store_budget=5)
        assert await client.acall("GET", "a") == b"1"
        await client.aclose()

    with RedisClient(url, store_budget=5) as client:
        assert client.call("SET", "a", "1") == b"OK"
        asyncio.run(main())


def test_a_port_that_does_not_speak_tls(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"-ERR unknown command\r\n")
                        connection.recv(10_000)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        for error in failures(f"rediss://localhost:{port}?ca_file={certificates.ca_file}"):
            assert error.reason == "tls"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def sentinel(
    make_redis: Callable[..., RedisServer], certificates: Certificates, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Makes a sentinel and the primary it names, each with TLS or without; returns the URL behind the scheme."""
    with ExitStack() as stack:

        def make(*, asked: bool, primary: bool) -> str:
            server = make_redis(certificates=certificates if primary else None)
            one = Sentinel(tmp_path / "sentinel", certificates=certificates if asked else None)
            stack.callback(one.close)
            one.start()
            one.command("SENTINEL", "MONITOR", "mks", server.host, server.port, 1)
            return f"://{one.host}:{one.port}/mks"

        yield make


def test_a_primary_by_sentinels_with_tls(sentinel: Callable[..., str], certificates: Certificates) -> None:
    url = f"rediss+sentinel{sentinel(asked=True, primary=True)}?ca_file={certificates.ca_file}"
    with RedisClient(url, store_budget=5) as client:
        assert client.call("GET", "a") is None


def test_a_sentinel_whose_authority_is_not_given(sentinel: Callable[..., str]) -> None:
    for error in failures(f"rediss+sentinel{sentinel(asked=True, primary=True)}"):
        assert (error.reason, error.sent) == ("certificate", False)
        assert "certificate verify failed" in error.detail


@pytest.mark.parametrize(
    ("asked", "primary"), [(False, True), (True, False)], ids=["of the sentinel", "of the primary"]
)
def test_tls_to_a_port_of_sentinels_without(
    sentinel: Callable[..., str], certificates: Certificates, asked: bool, primary: bool
) -> None:
    url = f"rediss+sentinel{sentinel(asked=asked, primary=primary)}?ca_file={certificates.ca_file}"
    for error in failures(url, budget=2):
        assert (error.reason, error.sent) == ("tls", False)
        assert "must begin with redis" in error.detail


def test_clear_text_to_a_sentinel_that_expects_tls(sentinel: Callable[..., str]) -> None:
    for error in failures(f"redis+sentinel{sentinel(asked=True, primary=True)}"):
        assert error.reason == "refused"
        assert "must begin with rediss" in error.detail


def test_tls_to_a_server_without(redis_server: RedisServer, certificates: Certificates) -> None:
    seen: list[object] = []
    add_observer(seen.append)
    try:
        url = redis_server.url.replace("redis:", "rediss:") + f"?ca_file={certificates.ca_file}"
        for error in failures(url, budget=0.5):
            assert (error.reason, error.sent) == ("tls", False)
            assert "must begin with redis" in error.detail
    finally:
        remove_observer(seen.append)
    assert {event.reason for event in seen if isinstance(event, BackendFailed)} == {"tls"}


def test_a_server_with_tls_that_has_answered_before_and_falls_silent(
    make_redis: Callable[..., RedisServer], certificates: Certificates
) -> None:
    server = make_redis(certificates=certificates)
    with RedisClient(f"{server.url}?ca_file={certificates.ca_file}", store_budget=0.5) as client:
        wait_until(client.ping, what="a first answer")
        client._lease.client().connection_pool.disconnect()
        server.pause()
        try:
            with pytest.raises(BackendUnavailableError) as caught:
                client.call("GET", "a")
        finally:
            server.resume()
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_of_authorities_that_is_no_such_file(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    for source in (
        f"rediss://localhost:6379?ca_file={file}",
        f"rediss+sentinel://localhost/mks?ca_file={file}",
        f"rediss+cluster://localhost?ca_file={file}",
        redis.Redis(ssl=True, ssl_ca_certs=str(file)),
    ):
        with pytest.raises(ConfigurationError, match=r"ca_file must be a readable file .*ca\.pem"):
            RedisClient(source)


def test_a_key_of_the_client_that_is_missing(certificates: Certificates, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="certificate and key"):
        RedisClient(
            redis.Redis(
                ssl=True, ssl_certfile=str(certificates.cert_file), ssl_keyfile=str(tmp_path / "none")
            )
        )
