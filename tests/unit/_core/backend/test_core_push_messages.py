"""The messages that Redis sends on a connection for changes, however the network cuts them into pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.backend.redis_push_channel import MessageReader, PushMessage

TEXTS = st.binary(max_size=20)
LINES = st.binary(max_size=20).filter(lambda line: b"\r\n" not in line and not line.endswith(b"\r"))
MESSAGES = st.recursive(
    st.one_of(
        TEXTS.map(lambda text: ("text", text)), st.integers(), st.none(), LINES.map(lambda x: ("line", x))
    ),
    lambda inner: st.lists(inner, max_size=4).flatmap(
        lambda items: st.sampled_from([("list", items), ("push", items)])
    ),
    max_leaves=12,
)


def encoded(message: Any) -> bytes:
    match message:
        case None:
            return b"_\r\n"
        case int():
            return b":%d\r\n" % message
        case ("text", bytes(text)):
            return b"$%d\r\n%b\r\n" % (len(text), text)
        case ("line", bytes(line)):
            return b"+%b\r\n" % line
        case (kind, items):
            return b"%b%d\r\n" % (b"*" if kind == "list" else b">", len(items)) + b"".join(
                map(encoded, items)
            )
    raise AssertionError


def meant(message: Any) -> Any:
    match message:
        case (("list" | "push") as kind, items):
            inner = [meant(item) for item in items]
            return inner if kind == "list" else PushMessage(inner)
        case (_, bytes(text)):
            return text
    return message


@given(messages=st.lists(MESSAGES, max_size=5), cuts=st.lists(st.integers(1, 9), max_size=40))
def test_messages_arrive_whole_however_they_are_cut(messages: list[Any], cuts: list[int]) -> None:
    stream = b"".join(map(encoded, messages))
    reader, found = MessageReader(), []
    for size in cuts:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    found += reader.feed(stream)
    assert found == [meant(message) for message in messages]
    assert [type(one) for one in found] == [type(meant(message)) for message in messages]


def test_an_error_of_the_server_is_a_value_with_its_text() -> None:
    (error,) = MessageReader().feed(b"-NOPERM no\xff permission\r\n")
    assert isinstance(error, ValueError)
    assert str(error) == "NOPERM no\ufffd permission"


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"%1\r\n+a\r\n+b\r\n",  # a map: nothing here asks for one
        b"$-1\r\n",
        b"$1048577\r\n",
        b"*1048577\r\n",
        b"$x\r\n",
        b">1\r\n*x\r\n",
        b"\r\n",
        b"*1\r\n" * 5000,  # deeper than the interpreter's stack
        b"+" + b"x" * (1 << 20) + b"x",
    ],
)
def test_what_is_not_such_a_message_is_refused_before_it_takes_memory(stream: bytes) -> None:
    reader = MessageReader()
    with pytest.raises(ValueError, match=r"Redis|literal"):
        reader.feed(stream)
    with pytest.raises(ValueError, match="cannot be read"):
        reader.feed(b"+OK\r\n")
