"""The UART and its frames against bits of a line and the driver's own framing."""

import random

import pytest

from bpfnic.boards.messages import Unslip, slip
from bpfnic.hdl.wire import UartLink
from bpfnic.spec.errors import BpfnicError
from tests.hdl.simulated import Library, Simulated

BIT = 5  # clocks


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(UartLink(BIT), tmp_path_factory.mktemp("uart"))


def bits(data: bytes) -> list[int]:
    """8N1."""
    return [bit for byte in data for bit in (0, *(byte >> i & 1 for i in range(8)), 1)]


class Line:
    def __init__(self, library):
        self.dut = Simulated(library)
        self.dut["rx"] = 1
        self.heard: list[bytes] = []  # messages that ended
        self._frame: bytearray | None = None
        self.clock()

    def clock(self) -> None:
        dut = self.dut
        dut.settle()
        if dut["link__begin"]:
            self._frame = bytearray()
        if dut["link__byte"] and self._frame is not None:
            self._frame.append(dut["link__data"])
        if dut["link__end"] and self._frame:
            self.heard.append(bytes(self._frame))
            self._frame = None
        dut.tick()

    def send(self, line: list[int], stretch: float = 1.0) -> None:
        """Levels of a bit's time each, `stretch` times what the receiver counts on."""
        for number, level in enumerate([*line, 1, 1, 1]):
            self.dut["rx"] = level
            for _ in range(int((number + 1) * BIT * stretch) - int(number * BIT * stretch)):
                self.clock()


MESSAGES = [b"\xc0", b"\xdb", b"\xdb\xdc\xdd\xc0\xc0", bytes(range(256)), random.Random(1).randbytes(300)]


@pytest.mark.parametrize("stretch", [0.97, 1.0, 1.03])
def test_messages_reach_the_endpoint(library, stretch):
    """At a rate that is 3 % off, too."""
    line = Line(library)
    for message in MESSAGES:
        for byte in slip(message):  # each byte's start sets the time anew
            line.send(bits(bytes([byte])), stretch)
    assert line.heard == MESSAGES


def test_a_broken_byte_or_a_wrong_escape_spoils_its_frame_alone(library):
    line = Line(library)
    line.send(bits(b"\xc0abc") + [0] * 10 + [1] + bits(b"def\xc0"))  # no stop bit
    line.send(bits(slip(b"good")))
    line.send(bits(b"\xc0ab\xdbxcd\xc0") + bits(slip(b"well")))
    line.send([0] * 25 + [1] * 3 + bits(slip(b"still")))  # a break
    dut = line.dut
    dut["rx"] = 0  # a glitch is no start bit
    line.clock()
    line.send([1] * 3 + bits(slip(b"here")))
    assert line.heard == [b"good", b"well", b"still", b"here"]


@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_replies_leave_as_frames(library, message):
    line, levels = Line(library), []
    dut, left = line.dut, list(message)
    while len(levels) < BIT * 10 * (2 * len(message) + 6):
        dut["link__reply__valid"] = bool(left)
        dut["link__reply__payload"] = left[0] | (len(left) == 1) << 8 if left else 0
        dut.settle()
        levels.append(dut["tx"])
        taken = left and dut["link__reply__ready"]
        dut.tick()
        if taken:
            left.pop(0)
    data, at = bytearray(), 0
    while 0 in levels[at:]:
        at = levels.index(0, at)
        sampled = [levels[at + BIT // 2 + BIT * i] for i in range(10)]
        assert sampled[0] == 0 and sampled[9] == 1
        data.append(sum(bit << i for i, bit in enumerate(sampled[1:9])))
        at += BIT * 9 + BIT // 2
    assert bytes(data) == slip(message)
    assert list(Unslip().feed(data)) == [message]


def test_unslip_leaves_out_what_is_no_frame():
    feed = Unslip().feed
    assert list(feed(b"\xc0\xc0ab\xdbx\xc0cd")) == []
    assert list(feed(b"\xdb")) == []
    assert list(feed(b"\xdc\xc0\xdb\xc0ok\xc0")) == [b"cd\xc0", b"ok"]


def test_no_rate_of_three_clocks_a_bit():
    with pytest.raises(BpfnicError, match="^clocks_per_bit must be at least 4, not 3$"):
        Library(UartLink(3), None)
