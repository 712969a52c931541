"""The hash of a key: the sum of its 16-bit digits, each times a secret number of 40 bits of its own, modulo 2**40,
without the lowest 16 bits (Lemire and Kaser, "Strongly universal string hashing is fast", 2014, theorem 3.1). Whoever
chooses keys without knowing the secret finds two that share a bucket as seldom as chance does."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import HashSecret, key_slots
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.registers import HASH_SECRET_WORDS

DIGIT_BITS = 16
SECRET_BITS = 40
HASH_BITS = SECRET_BITS - DIGIT_BITS
HASH_LATENCY = 3
"""Clocks from a key's last word to its hash."""

_WORDS = MAX_KEY_BYTES // 8
_DIGITS = 64 // DIGIT_BITS
_SECRET_LANES = _DIGITS * SECRET_BITS // 32
assert HASH_SECRET_WORDS == _WORDS * _SECRET_LANES


class KeyHash(Component):
    """A word of any key each clock.

    Members
    -------
    add : takes `word` of the key in `slot`. A clock ago its number was next_number[next_chosen]; 0 begins a key. It is
        known late which one is chosen, so factors are read for each.
    slots : `hash` of the key in each `slot` that is asked for, in the same clock, from HASH_LATENCY clocks after the
        key's last word on. readers of them.
    secret : mapinterfaces.HashSecret. Hashes of keys change with it.
    """

    def __init__(self, config: NicConfig, numbers: int, readers: int):
        self.slots, self.readers = key_slots(config), readers
        slot = range(self.slots)
        super().__init__(
            {
                "add": In(1),
                "slot": In(slot),
                "next_number": In(range(_WORDS)).array(numbers),
                "next_chosen": In((numbers - 1).bit_length()),
                "word": In(64),
                "reader": In(slot).array(readers),
                "hash": Out(HASH_BITS).array(readers),
                "secret": In(HashSecret(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.secrets = secrets = memory.Memory(shape=32 * _SECRET_LANES, depth=_WORDS, init=[])
        write = secrets.write_port(granularity=32)
        lane = Signal(range(_SECRET_LANES))
        m.d.comb += [
            write.data.eq(self.secret.data.replicate(_SECRET_LANES)),
            write.en.eq(Mux(self.secret.write, 1 << lane, 0)),
        ]
        factors, first = Signal(32 * _SECRET_LANES, reset_less=True), Signal(reset_less=True)
        for i, number in enumerate(self.next_number):
            read = secrets.read_port(domain="comb")
            m.d.comb += read.addr.eq(number)
            with m.If(self.next_chosen == i):
                m.d.sync += [factors.eq(read.data), first.eq(number == 0)]
        with m.If(self.secret.write):
            m.d.sync += lane.eq(lane + 1)
            with m.If(lane == _SECRET_LANES - 1):
                m.d.sync += [lane.eq(0), write.addr.eq(write.addr + 1)]

        # Products by 16 bits of the secrets, their sums, and all in its place on what the words before came to.
        places = range(0, SECRET_BITS, DIGIT_BITS)
        sums = []
        for place in places:
            bits = min(2 * DIGIT_BITS, SECRET_BITS - place)
            products = []
            for digit in range(_DIGITS):
                secret = factors.word_select(digit, SECRET_BITS)[place : place + DIGIT_BITS]
                product = Signal(bits, name=f"product{digit}_{place}", reset_less=True)
                m.d.sync += product.eq(self.word.word_select(digit, DIGIT_BITS) * secret)
                products.append(product)
            total = Signal(min(bits_for(_DIGITS * (2**bits - 1)), SECRET_BITS - place), name=f"sum_{place}",
                           reset_less=True)  # fmt: skip
            m.d.sync += total.eq((products[0] + products[1]) + (products[2] + products[3]))
            sums.append(total)
        arrived, begins = Signal(HASH_LATENCY - 1), Signal(HASH_LATENCY - 1, reset_less=True)
        slots = [Signal(range(self.slots), name=f"slot{i}", reset_less=True) for i in range(HASH_LATENCY - 1)]
        m.d.sync += [arrived.eq(Cat(self.add, arrived)), begins.eq(Cat(first, begins))]
        m.d.sync += [after.eq(before) for after, before in zip(slots, [self.slot, *slots], strict=False)]

        m.submodules.sums = kept = memory.Memory(shape=SECRET_BITS, depth=self.slots, init=[])
        write, before = kept.write_port(), kept.read_port(domain="comb")
        placed = sums[0]
        upper = (sums[1] + (sums[2] << DIGIT_BITS))[: SECRET_BITS - DIGIT_BITS]
        m.d.comb += [
            before.addr.eq(slots[-1]),
            write.addr.eq(slots[-1]),
            write.en.eq(arrived[-1]),
            write.data.eq((Mux(begins[-1], 0, before.data) + placed) + (upper << DIGIT_BITS)),
        ]
        for reader, hash in zip(self.reader, self.hash, strict=True):
            port = kept.read_port(domain="comb")
            m.d.comb += [port.addr.eq(reader), hash.eq(port.data[DIGIT_BITS:])]
        return m
