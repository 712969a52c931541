"""A simulated endpoint, spoken to message by message, with registers of its own behind it."""

import struct

from bpfnic.boards.messages import Message
from bpfnic.spec.wire import ERROR_BIT, Kind

KEY = bytes(range(100, 116))
LACKING = 0x1FF0  # no register is there
PATIENCE = 20_000  # clocks


def request(session: int, sequence: int, *accesses) -> Message:
    words = [word for access in accesses for word in access.words()]
    return Message(Kind.REQUEST, sequence, session, struct.pack(f"<{len(words)}I", *words))


class Card:
    """The endpoint of a library of Endpoint.

    Attributes
    ----------
    accesses : to its registers, in their order: ("write", address, value) and ("read", address).
    registers : their values, by address.
    pause : clocks that an access takes.
    """

    def __init__(self, dut, pause: int = 1):
        self.dut = dut
        self.accesses: list[tuple] = []
        self.registers: dict[int, int] = {}
        self.pause = pause
        self._waited = 0
        dut["links__0__reply__ready"] = 1

    def clock(self, **inputs) -> int | None:
        """One clock, with these inputs of the link; the byte that it sends in it, with bit 8 where it is the last."""
        dut = self.dut
        for name, value in inputs.items():
            dut[f"links__0__{name}"] = value
        dut["bus__done"] = 0
        dut.settle()
        if dut["bus__valid"]:
            self._waited += 1
            if self._waited >= self.pause:
                self._access()
                self._waited = 0
                dut.settle()
        sent = None
        if dut["links__0__reply__valid"]:
            sent = dut["links__0__reply__payload"]
        dut.tick()
        for name in inputs:
            dut[f"links__0__{name}"] = 0
        return sent

    def _access(self) -> None:
        dut = self.dut
        address = dut["bus__address"]
        dut["bus__done"], dut["bus__refused"] = 1, address == LACKING
        if dut["bus__write"]:
            self.accesses.append(("write", address, dut["bus__data"]))
            self.registers[address] = dut["bus__data"]
        else:
            self.accesses.append(("read", address))
            dut["bus__answer"] = self.registers.get(address, 0)

    def hear(self, data: bytes, *, end: bool = True) -> None:
        """Bytes of a message reach the endpoint."""
        self.clock(begin=1)
        for byte in data:
            self.clock(byte=1, data=byte)
        if end:
            self.clock(end=1)

    def say(self, clocks: int = PATIENCE) -> bytes | None:
        """What the endpoint sends within so many clocks."""
        said = bytearray()
        for _ in range(clocks):
            sent = self.clock()
            if sent is not None:
                said.append(sent & 0xFF)
                if sent >> 8:
                    return bytes(said)
        return None

    def settled(self) -> bytes | None:
        """What it sends until it listens again."""
        said = bytearray()
        for _ in range(PATIENCE):
            sent = self.clock()
            if sent is not None:
                said.append(sent & 0xFF)
            elif self.dut["links__0__listening"]:
                return bytes(said) or None
        raise AssertionError("the endpoint does not listen any more")

    def answer(self, message: Message, key: bytes = KEY, clocks: int = PATIENCE) -> Message | None:
        """What it answers to a message."""
        self.hear(message.pack(key))
        said = self.say(clocks)
        return said and Message.unpack(said, KEY)

    def welcome(self, nonce: int = 0x0123456789ABCDEF) -> int:
        """Begin a session; its name."""
        answer = self.answer(Message(Kind.HELLO, 0, nonce))
        assert answer and answer[:3] == (Kind.WELCOME, 0, nonce) and answer.authentic
        return int.from_bytes(answer.payload, "little")

    def ask(self, session: int, sequence: int, *accesses) -> list[int]:
        """Carry out a request; what it read."""
        answer = self.answer(request(session, sequence, *accesses))
        assert answer and answer[:3] == (Kind.REPLY, sequence, session) and answer.authentic
        status, *values = struct.unpack(f"<{len(answer.payload) // 4}I", answer.payload)
        assert status >> ERROR_BIT == 0
        assert status == sum(access.count for access in accesses)
        return values[: sum(access.count for access in accesses if not access.data)]
