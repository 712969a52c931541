"""The driver's end of the wire: requests, each carried out once, over a link that loses and damages messages."""

import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from bpfnic.boards.messages import Message
from bpfnic.spec import card, registers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import ERROR_BIT, Access, Error, Kind

TRIES = 6


class Link(Protocol):
    """Carries messages. `name`: of it, for people. `patience`: seconds to wait for an answer before asking again."""

    name: str
    patience: float

    def send(self, message: bytes) -> None:
        """Send a message. Raises BpfnicError where the link is gone."""

    def receive(self, seconds: float) -> bytes | None:
        """The next message (or what was made of it) within that time, or None. Raises BpfnicError likewise."""

    def close(self) -> None:
        """Give it back."""


class Session:
    """A session with the card behind a link. Raises BpfnicError where none answers, or one with another key.

    Attributes
    ----------
    repeats : messages that were sent again.
    """

    def __init__(self, link: Link, key: bytes):
        self.link = link
        self._key = key
        self._sequence = 0
        self.repeats = 0
        self._session = self._hello()

    def request(self, accesses: Sequence[Access]) -> list[int]:
        """Carry out accesses, and return what was read. Raises BpfnicError where the card refuses one (those before
        it are done) or doesn't answer."""
        self._sequence += 1
        words = [word for access in accesses for word in access.words()]
        payload = struct.pack(f"<{len(words)}I", *words)
        asked = Message(Kind.REQUEST, self._sequence, self._session, payload).pack(self._key)
        for message in self._exchange(asked):
            if message.authentic and message[:3] == (Kind.REPLY, self._sequence, self._session):
                status, *values = struct.unpack(f"<{len(message.payload) // 4}I", message.payload)
                if status >> ERROR_BIT:
                    raise BpfnicError(f"{self.link.name}: {_refused(accesses, status)}")
                return values[: sum(access.count for access in accesses if not access.data)]
        try:
            self._hello()
        except BpfnicError:
            raise BpfnicError(f"{self.link.name}: the card does not answer any more") from None
        raise BpfnicError(f"{self.link.name}: the card has begun another session: another driver has it, or it was "
                          "configured anew")  # fmt: skip

    def _hello(self) -> int:
        nonce = secrets.randbits(64)
        strange = False
        for message in self._exchange(Message(Kind.HELLO, 0, nonce).pack(self._key)):
            if message[:3] == (Kind.WELCOME, 0, nonce):
                if message.authentic:
                    return int.from_bytes(message.payload, "little")
                strange = True
        why = "its card has another key" if strange else "no card answers"
        raise BpfnicError(f"{self.link.name}: {why}")

    def _exchange(self, asked: bytes) -> Iterator[Message]:
        """Send a message, and again where no answer comes; all that comes."""
        for attempt in range(TRIES):
            self.repeats += attempt > 0
            self.link.send(asked)
            end = time.monotonic() + self.link.patience
            while (left := end - time.monotonic()) > 0:
                data = self.link.receive(left)
                message = Message.unpack(data, self._key) if data else None
                if message:
                    yield message

    def close(self) -> None:
        self.link.close()


def _refused(accesses: Sequence[Access], status: int) -> str:
    """What the card would not do."""
    done, error = status % (1 << ERROR_BIT), status >> ERROR_BIT
    if error != Error.REFUSED:
        return f"the card could not read a request (error {error})"
    for access in accesses:
        if done < access.count:
            address = access.address + 4 * done * access.advances
            return f"no register takes a {'write' if access.data else 'read'} at address 0x{address:03x}"
        done -= access.count
    return f"the card refused access {done} of a request that has fewer"


def register_at(address: int) -> str:
    """A register by its address, for people."""
    for each in (*registers.REGISTERS, *card.REGISTERS):
        for index in range(each.count):
            if each.address(index) == address:
                return each.name if each.count == 1 else f"{each.name}[{index}]"
    return f"0x{address:03x}"
