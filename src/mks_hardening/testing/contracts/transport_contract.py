"""Contract suite for alert transports."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mks_hardening.exceptions import DeliveryError
from mks_hardening.testing.contracts.contract_checks import at_once, require

if TYPE_CHECKING:
    from mks_hardening.protocols import (
        Transport,
    )

__all__ = ["TransportContract"]


class TransportContract:
    """Required behaviour of every ``Transport``; derive a test class and implement transport and destination.

    Each test creates a new transport whose destination has received nothing.
    """

    def make_transport(self) -> Transport:
        """Return a new transport; its payload contains the text of the message somewhere in its bytes."""
        raise NotImplementedError

    def received(self) -> list[bytes]:
        """Return what the destination has received since ``make_transport``, oldest first."""
        raise NotImplementedError

    def make_unreachable(self) -> None:
        """Make the destination unreachable temporarily."""
        raise NotImplementedError

    def make_reachable(self) -> None:
        """Make the destination reachable again."""
        raise NotImplementedError

    def test_a_message_arrives_once(self) -> None:
        """The message has arrived when ``send`` returns."""
        transport = self.make_transport()
        transport.send(_Message("m1", "first words"))
        require([b"first words" in body for body in self.received()] == [True], "a message arrives once")
        transport.close()

    def test_messages_arrive_in_order(self) -> None:
        """Messages arrive one after another, from any thread."""
        transport = self.make_transport()
        for number in range(5):
            message = _Message(f"m{number}", f"words {number}.")
            at_once(partial(_send, transport, message), threads=1)
        order = [b"words %d." % number in body for number, body in enumerate(self.received())]
        require(order == [True] * 5, "messages arrive in order")
        transport.close()

    def test_an_unreachable_destination_is_a_temporary_error(self) -> None:
        """It raises a temporary ``DeliveryError``, or any ``OSError``; the message can then be sent again."""
        transport = self.make_transport()
        self.make_unreachable()
        try:
            transport.send(_Message("m1", "words"))
        except DeliveryError as error:
            require(error.temporary, "an unreachable destination is a temporary error")
        except OSError:
            pass
        else:
            raise AssertionError("a message that did not arrive raises")
        finally:
            self.make_reachable()
        transport.send(_Message("m1", "words"))
        require(len(self.received()) == 1, "a message can be sent again")
        transport.close()

    def test_close_may_be_called_twice(self) -> None:
        """Also if nothing was sent."""
        transport = self.make_transport()
        transport.close()
        transport.close()


def _send(transport: Transport, message: _Message, _number: int) -> None:
    transport.send(message)


class _Message(NamedTuple):
    id: str
    text: str

    @property
    def subject(self) -> str:
        return self.text

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Type": "text/plain"}

    @property
    def body(self) -> bytes:
        return f"Subject: {self.text}\r\n\r\n{self.text}\r\n".encode()
