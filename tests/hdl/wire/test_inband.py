"""Messages among the frames of a port: which are taken, what becomes of all others, and where replies go."""

import random

import pytest

from bpfnic.boards.messages import Message, ethernet, from_ethernet
from bpfnic.hdl.card import CardConfig
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.wire import InBand
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import Kind
from tests.hdl.simulated import Library, Simulated

CARD, HOST, OTHER = b"\x02card!", b"\x02host!", b"\x02other"
KEY = bytes(16)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(InBand(CARD), tmp_path_factory.mktemp("inband"))


class Port:
    """Frames in and out of an InBand, whose other ends are ready at random.

    Attributes
    ----------
    passed, sent : frames at `ingress` and at `mac_tx`, each with its user bits.
    heard : messages that ended at the link.
    replies : bytes that the link is to send, each a message.
    """

    def __init__(self, library, seed: int = 1, busy: int = 0):
        self.dut = Simulated(library)
        self.rng, self.busy = random.Random(seed), busy
        self.arriving: list[tuple[int, int, int, int]] = []
        self.leaving: list[tuple[int, int, int, int]] = []
        self.passed: list[tuple[bytes, int]] = []
        self.sent: list[tuple[bytes, int]] = []
        self.heard: list[bytes] = []
        self.replies: list[bytes] = []
        self.listening = True
        self._partial = {"ingress": b"", "mac_tx": b""}
        self._message: bytearray | None = None
        self._offered = {"mac_rx": False, "egress": False}

    def offer(self, frame: bytes, user: int = 0, egress: bool = False) -> None:
        beats = [frame[at : at + 8] for at in range(0, len(frame), 8)]
        for number, beat in enumerate(beats):
            last = number == len(beats) - 1
            word = (int.from_bytes(beat, "little"), (1 << len(beat)) - 1, int(last), user)
            (self.leaving if egress else self.arriving).append(word)

    def clock(self) -> None:
        dut = self.dut
        for name, beats in (("mac_rx", self.arriving), ("egress", self.leaving)):
            self._offered[name] = bool(beats) and (self._offered[name] or self.rng.randrange(100) >= self.busy)
            dut[f"{name}__valid"] = self._offered[name]
            if beats:
                data, keep, last, user = beats[0]
                dut[f"{name}__payload"] = data | keep << 64 | last << 72 | user << 73
        for name in ("ingress", "mac_tx"):
            dut[f"{name}__ready"] = self.rng.randrange(100) >= self.busy
        reply = self.replies[0] if self.replies else b""
        dut["link__reply__valid"] = bool(reply)
        dut["link__reply__payload"] = reply[0] | (len(reply) == 1) << 8 if reply else 0
        dut["link__listening"] = self.listening
        dut.settle()
        for name, frames in (("ingress", self.passed), ("mac_tx", self.sent)):
            if dut[f"{name}__valid"] and dut[f"{name}__ready"]:
                payload = dut[f"{name}__payload"]
                size = (payload >> 64 & 0xFF).bit_length()
                self._partial[name] += (payload & (1 << 8 * size) - 1).to_bytes(size, "little")
                if payload >> 72 & 1:
                    frames.append((self._partial[name], payload >> 73))
                    self._partial[name] = b""
        if dut["link__begin"]:
            self._message = bytearray()
        if dut["link__byte"] and self._message is not None:
            self._message.append(dut["link__data"])
        if dut["link__end"]:
            self.heard.append(bytes(self._message))
        for name, beats in (("mac_rx", self.arriving), ("egress", self.leaving)):
            if self._offered[name] and dut[f"{name}__ready"]:
                beats.pop(0)
                self._offered[name] = False
        if reply and dut["link__reply__ready"]:
            self.replies[0] = reply[1:]
            if len(reply) == 1:
                self.replies.pop(0)
        dut.tick()

    def run(self, clocks: int = 200) -> None:
        while self.arriving or self.leaving or self.replies:
            self.clock()
        for _ in range(clocks):
            self.clock()


def frames(rng: random.Random, count: int) -> list[bytes]:
    """Of any kind but messages to the card; shorter than two beats, too."""
    found = []
    for _ in range(count):
        length = rng.choice((1, 7, 8, 9, 13, 14, 15, 16, 17, 60, 61, 64, 200))
        header = rng.choice((CARD, OTHER)) + HOST + rng.choice((b"\x08\x00", b"\x88\xb5", b"\x88\xb6"))
        if header[:6] == CARD and header[12:] == b"\x88\xb5" and length >= 14:
            header = OTHER + header[6:]
        found.append((header + rng.randbytes(200))[:length])
    return found


@pytest.mark.parametrize("busy", [0, 40, 80])
def test_other_frames_pass_as_they_are(library, busy):
    port, rng = Port(library, busy, busy), random.Random(busy)
    arriving, leaving = frames(rng, 60), frames(rng, 60)
    messages = [rng.randbytes(length) for length in (24, 25, 31, 46, 100, 992)]
    for number, frame in enumerate(arriving):
        port.offer(frame, user=number & 1)
        if number % 10 == 0:
            port.offer(ethernet(messages[number // 10], CARD, HOST))
    for number, frame in enumerate(leaving):
        port.offer(frame, user=number, egress=True)
    replies = [rng.randbytes(length) for length in (1, 2, 3, 10, 32, 33, 992)]
    whole = [reply.ljust(len(reply) + -(len(reply) + 14) % 8, b"\0") for reply in replies]  # up to a beat's end
    while port.arriving or port.leaving or replies:
        port.clock()
        if port.heard and replies and not port.replies and rng.random() < 0.02:
            port.replies.append(replies.pop(0))
    port.run()
    assert port.passed == [(frame, number & 1) for number, frame in enumerate(arriving)]
    assert port.heard == messages
    others = [(frame, user) for frame, user in port.sent if frame[:14] != HOST + CARD + b"\x88\xb5"]
    assert others == [(frame, number) for number, frame in enumerate(leaving)]
    answered = [from_ethernet(frame) for frame, _ in port.sent if frame[:14] == HOST + CARD + b"\x88\xb5"]
    assert answered == whole


def test_a_reply_goes_to_who_asked(library):
    port = Port(library)
    message = Message(Kind.HELLO, 0, 5).pack(KEY)
    port.offer(ethernet(message, CARD, HOST))
    port.run()
    port.listening = False
    port.offer(ethernet(message, CARD, OTHER))  # while the other one's request is carried out
    port.run()
    port.replies.append(b"reply!")
    port.run()
    ((frame, user),) = port.sent
    assert frame.rstrip(b"\0") == HOST + CARD + b"\x88\xb5reply!" and user == 0


def test_a_frame_that_is_bad_never_ends(library):
    port = Port(library)
    port.offer(ethernet(bytes(24), CARD, HOST), user=1)
    port.offer(ethernet(b"x" * 24, CARD, HOST))
    port.run()
    assert port.heard == [b"x" * 24] and port.passed == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"management": 2}, "^management must be one of the 2 ports, not 2$"),
        ({"address": b"\x02abc"}, "^address must be 6 bytes, not 4$"),
        ({"address": b"\x03abcde"}, "^address must be that of one card, not of a group: 03:61:62:63:64:65$"),
        ({"key": bytes(4)}, "^key must be 16 bytes, not 4$"),
        ({"build_id": b""}, "^build_id must be 32 bytes, not 0$"),
        ({"clocks_per_bit": 3}, "^clocks_per_bit must be at least 4, not 3$"),
    ],
)
def test_parameters_of_a_card(given, message):
    with pytest.raises(BpfnicError, match=message):
        CardConfig(**{"nic": NicConfig(), "key": KEY, "clocks_per_bit": 4} | given)
