"""The endpoint against the driver's end: what a request does, once, whatever happens to its messages."""

import struct

import pytest

from bpfnic.boards.messages import Message
from bpfnic.boards.siphash import siphash
from bpfnic.hdl.wire import Endpoint
from bpfnic.hdl.wire.siphash import SipHash
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import ERROR_BIT, PAYLOAD_BYTES, REPLY_WORDS, Access, Error, Kind
from tests.hdl.simulated import Library, Simulated
from tests.hdl.wire.ends import KEY, LACKING, Card, request


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(Endpoint(KEY), tmp_path_factory.mktemp("endpoint"))


@pytest.fixture
def card(library):
    return Card(Simulated(library))


def test_siphash_is_the_references(tmp_path):
    dut = Simulated(Library(SipHash(KEY), tmp_path))

    def tick(**inputs):
        for name, value in inputs.items():
            dut[name] = value
        dut.settle()
        dut.tick()
        for name in inputs.keys() - {"word"}:
            dut[name] = 0
        dut.settle()
        clocks = 0
        while dut["busy"]:
            dut.tick()
            dut.settle()
            clocks += 1
        return clocks

    for length in (0, 8, 16, 256, 800):
        message = bytes((7 * i + length) % 256 for i in range(length))
        assert tick(start=1) == 8
        for at in range(0, length, 8):
            assert tick(absorb=1, word=int.from_bytes(message[at : at + 8], "little")) == 72
        tick(absorb=1, word=length % 256 << 56)
        assert tick(finish=1) == 140
        assert dut["digest"] == siphash(KEY, message)


def test_a_session_begins_and_its_requests_read_and_write(card):
    session = card.welcome()
    assert card.ask(session, 1, Access(0x10, data=(0x12345678,)), Access(0x10), Access(0x14)) == [0x12345678, 0]
    assert card.accesses == [("write", 0x10, 0x12345678), ("read", 0x10), ("read", 0x14)]


def test_accesses_advance_and_fill_and_stop_at_one_that_is_refused(card):
    session = card.welcome()
    card.ask(session, 1, Access(0x20, 3, (1, 2, 3), advances=True), Access(0x40, 3, (9,)), Access(0x60, 2, (7, 8)))
    writes = [("write", 0x20, 1), ("write", 0x24, 2), ("write", 0x28, 3)]
    assert card.accesses == [*writes, *[("write", 0x40, 9)] * 3, ("write", 0x60, 7), ("write", 0x60, 8)]
    card.accesses.clear()
    assert card.ask(session, 2, Access(0x20, 4, advances=True), Access(0x60, 2)) == [1, 2, 3, 0, 8, 8]
    stopped = Access(0x20, 2), Access(LACKING, data=(5,)), Access(0x24)
    answer = card.answer(request(session, 3, *stopped))
    assert struct.unpack("<4I", answer.payload) == (2 | Error.REFUSED << ERROR_BIT, 1, 1, 0)
    assert card.accesses[-3:] == [("read", 0x20), ("read", 0x20), ("write", LACKING, 5)]


def test_a_request_that_comes_again_is_answered_again_and_not_done_again(card):
    session = card.welcome()
    message = request(session, 1, Access(0x10, data=(4,)), Access(0x10))
    first = card.answer(message)
    assert [card.answer(message) for _ in range(3)] == [first] * 3
    assert card.answer(Message(Kind.HELLO, 0, 77)).kind is not None  # anybody's
    assert card.answer(message) == first
    assert card.accesses == [("write", 0x10, 4), ("read", 0x10)]


def test_the_longest_request_and_the_longest_reply(card):
    session = card.welcome()
    data = tuple(range(PAYLOAD_BYTES // 4 - 1))
    card.ask(session, 1, Access(0x10, len(data), data))
    assert [access[2] for access in card.accesses] == list(data)
    assert card.ask(session, 2, Access(0x10, REPLY_WORDS)) == [data[-1]] * REPLY_WORDS
    answer = card.answer(request(session, 3, Access(0x10, REPLY_WORDS + 1)))
    assert struct.unpack_from("<I", answer.payload) == (REPLY_WORDS | Error.MALFORMED << ERROR_BIT,)
    lacking = struct.pack("<2I", Access(0x14, 2, (6, 7)).words()[0], 6)
    answer = card.answer(Message(Kind.REQUEST, 4, session, lacking))
    assert struct.unpack_from("<I", answer.payload) == (1 | Error.MALFORMED << ERROR_BIT,)
    assert card.ask(session, 5, Access(0x14)) == [6]


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message._replace(sequence=message.sequence + 1),
        lambda message: message._replace(sequence=message.sequence - 2),
        lambda message: message._replace(session=message.session + 1),
        lambda message: message._replace(session=message.session ^ 1 << 32),
        lambda message: message._replace(kind=Kind.REPLY),
        lambda message: message._replace(kind=0),
    ],
    ids=["too new", "too old", "another session", "another session above", "a reply", "no kind"],
)
def test_what_is_no_request_of_this_session_does_nothing(card, change):
    session = card.welcome()
    card.ask(session, 1, Access(0x10, data=(1,)))
    card.ask(session, 2, Access(0x10, data=(2,)))
    assert card.answer(change(request(session, 3, Access(0x10, data=(3,)))), clocks=3000) is None
    assert card.ask(session, 3, Access(0x10)) == [2]


def test_a_message_with_a_bit_changed_or_cut_or_of_another_key_does_nothing(card):
    session = card.welcome()
    message = request(session, 1, Access(0x10, data=(1,)))
    whole = message.pack(KEY)
    for bit in (*range(16, 8 * len(whole), 37), 8 * len(whole) - 1):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        card.hear(damaged)
        assert card.say(2500) is None, bit
    for length in (0, 1, 23, 24, len(whole) - 8, len(whole) - 1):
        card.hear(bytes(1000))  # nothing of the message is in the buffer
        card.hear(whole[:length])
        assert card.say(2500) is None, length
    assert card.answer(message, bytes(16), 2500) is None
    assert card.accesses == []
    assert card.ask(session, 1, Access(0x14)) == [0]


def test_longer_than_any_message(card):
    session = card.welcome()
    card.hear(bytes(3000))
    card.hear(request(session, 1, Access(0x10)).pack(KEY)[:30], end=False)  # and another one takes its place
    assert card.ask(session, 1, Access(0x10)) == [0]


def test_what_comes_while_a_request_is_carried_out_is_lost(card):
    session = card.welcome()
    card.pause = 400
    message = request(session, 1, Access(0x10, data=(1,)))
    card.hear(message.pack(KEY))
    for _ in range(300):
        card.clock()
    card.hear(request(session, 1, Access(0x10, data=(2,))).pack(KEY))
    said = card.say()
    assert Message.unpack(said, KEY)[:3] == (Kind.REPLY, 1, session)
    assert card.accesses == [("write", 0x10, 1)]


def test_sessions(card):
    """One that was offered begins with its first request, and ends the one before; each name is new."""
    first = card.welcome()
    card.ask(first, 1, Access(0x10, data=(1,)))
    second, third = card.welcome(), card.welcome()
    assert len({first, second, third}) == 3
    assert card.ask(first, 2, Access(0x10)) == [1]  # until then it goes on
    assert card.answer(request(second, 1, Access(0x10)), clocks=3000) is None  # another was offered since
    assert card.answer(request(third, 2, Access(0x10)), clocks=3000) is None
    assert card.ask(third, 1, Access(0x10)) == [1]
    assert card.answer(request(first, 3, Access(0x10)), clocks=3000) is None
    assert card.answer(request(first, 2, Access(0x10)), clocks=3000) is None
    assert card.ask(third, 2, Access(0x10)) == [1]


def test_no_key_of_another_length():
    with pytest.raises(BpfnicError, match="^key must be 16 bytes, not 4$"):
        Endpoint(b"four")
