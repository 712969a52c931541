"""Each request is carried out once at most, and in its turn, whatever is lost, repeated, delayed or damaged: every
short order of messages against a model, and a network that keeps all that it carried and delivers what it likes."""

import itertools
import random

import pytest

from bpfnic.boards.messages import Message
from bpfnic.hdl.wire import Endpoint
from bpfnic.spec.wire import Access, Kind
from tests.hdl.simulated import Library, Simulated
from tests.hdl.wire.ends import KEY, Card, request


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(Endpoint(KEY), tmp_path_factory.mktemp("endpoint"))


class Model:
    """What an endpoint has to do: its answers, and which requests it carries out."""

    def __init__(self):
        self.session, self.last, self.offered = None, 0, None
        self.done: list[tuple[int, int]] = []

    def hear(self, message: Message) -> tuple[str, tuple[int, int]] | None:
        """"welcome", or "reply" with session and number."""
        if message.kind == Kind.HELLO:
            return "welcome", (0, 0)
        asked = message.session, message.sequence
        if message.kind != Kind.REQUEST or not message.authentic:
            return None
        if message.session == self.session and message.sequence == self.last:
            return "reply", asked
        next_ = message.session == self.session and message.sequence == self.last + 1
        begins = message.session not in (None, self.session) and message.session == self.offered
        if next_ or begins and message.sequence == 1:
            self.session, self.last = asked
            self.done.append(asked)
            return "reply", asked
        return None


class Pair:
    """An endpoint and its model, told the same."""

    def __init__(self, dut):
        self.card, self.model = Card(dut), Model()
        self.replies: dict[tuple[int, int], bytes] = {}

    def tell(self, message: Message) -> None:
        data = message.pack(KEY)
        if not message.authentic:
            data = data[:-1] + bytes([data[-1] ^ 0x80])
        self.card.hear(data)
        said = self.card.settled()
        expected = self.model.hear(message)
        answer = said and Message.unpack(said, KEY)
        if expected is None:
            assert said is None
        elif expected[0] == "welcome":
            assert answer[:3] == (Kind.WELCOME, 0, message.session) and answer.authentic
            self.model.offered = int.from_bytes(answer.payload, "little")
        else:
            assert answer[:3] == (Kind.REPLY, message.sequence, message.session) and answer.authentic
            assert self.replies.setdefault(expected[1], said) == said  # byte by byte, when it comes again
        written = [access[2] for access in self.card.accesses if access[0] == "write"]
        assert written == [number_of(*each) for each in self.model.done]


def number_of(session: int, sequence: int) -> int:
    """What a request writes, to be known by."""
    return (session * 1000 + sequence) % (1 << 32)


def asks(session: int, sequence: int) -> Message:
    return request(session, sequence, Access(0x10, data=(number_of(session, sequence),)), Access(0x14))


def test_every_order_of_three_messages(library):
    """Behind a session A with one request done, a session B that was offered, and one Z that ended."""
    dut = Simulated(library)
    for order in itertools.product(("A0", "A1", "A2", "A3", "B1", "B2", "Z1", "damaged", "hello"), repeat=3):
        pair = Pair(dut)
        names = {}
        for name in "ZAB":
            pair.tell(Message(Kind.HELLO, 0, ord(name)))
            names[name] = pair.model.offered
            if name != "B":
                pair.tell(asks(names[name], 1))
        for each in order:
            if each == "hello":
                pair.tell(Message(Kind.HELLO, 0, 99))
            elif each == "damaged":
                pair.tell(asks(pair.model.session, pair.model.last + 1)._replace(authentic=False))
            else:
                pair.tell(asks(names[each[0]], int(each[1])))


@pytest.mark.parametrize("seed", range(2))
def test_a_network_that_delivers_what_it_likes(library, seed):
    pair, rng = Pair(Simulated(library)), random.Random(seed)
    sent = [Message(Kind.HELLO, 0, 1)]
    for _ in range(250):
        model = pair.model
        pair.tell(rng.choice(sent[-4:]) if rng.random() < 0.6 else rng.choice(sent))
        if rng.random() < 0.5:
            pair.tell(rng.choice(sent)._replace(authentic=False, kind=Kind.REQUEST))
        if rng.random() < 0.1:
            sent.append(Message(Kind.HELLO, 0, rng.getrandbits(64)))
        if model.session is not None:
            sent.append(asks(model.session, model.last + 1))
        if model.offered is not None and rng.random() < 0.15:
            sent.append(asks(model.offered, 1))
    assert len(pair.model.done) > 50 and len({session for session, _ in pair.model.done}) > 2
    assert pair.model.done == sorted(set(pair.model.done), key=pair.model.done.index)  # none twice
