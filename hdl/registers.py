"""Registers from spec.registers: each is bound to its behaviour once, and one without is an error when it is built."""

from collections.abc import Iterable
from functools import reduce
from operator import or_

from amaranth import Cat, Module, Signal, Value

from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.registers import ADDRESS_BITS, BY_NAME, REGISTERS, Access, Register


class RegisterBank:
    """Collects behaviours; `build` makes the decoder.

    An access is decoded in one clock, and has its effects or is shown in a later one.

    Attributes (signals)
    --------------------
    address, data : byte address of the access, and what is written; they stay for the whole of it.
    decode : high in a clock; from the next on `readable` and `writable` say whether it may be read, written.
    write, read : high in the clock in which a write, or a read, has its effects.
    show : high in a clock; from the next on `value` is what is read, 0 where no register is.
    """

    def __init__(self, m: Module):
        self._m = m
        self.address, self.data = Signal(ADDRESS_BITS, reset_less=True), Signal(32, reset_less=True)
        self.decode, self.write, self.read, self.show = Signal(), Signal(), Signal(), Signal()
        self.readable, self.writable = Signal(reset_less=True), Signal(reset_less=True)
        self.value = Signal(32, reset_less=True)
        self._values: dict[str, list[Value | int]] = {}
        self._selects: dict[int, Signal] = {}

    def _bind(self, name: str, access: Access, values: Iterable[Value | int]) -> Register:
        register = BY_NAME[name]
        if name in self._values:
            raise BpfnicError(f"register {name} has two behaviours")
        if register.access is not access:
            raise BpfnicError(f"register {name} is {register.access.value}, not {access.value}")
        self._values[name] = list(values)
        return register

    def _sync(self, when: Value, statement) -> None:
        with self._m.If(when):
            self._m.d.sync += statement

    def _select(self, register: Register, index: int) -> Signal:
        place = register.address(index)
        if place not in self._selects:
            self._selects[place] = select = Signal(name=f"select_{register.name}{index}", reset_less=True)
            self._sync(self.decode, select.eq(self.address == place))
        return self._selects[place]

    def _strobe(self, kind: Value, register: Register, index: int) -> Value:
        return kind & self._select(register, index)

    def constant(self, name: str, value: int) -> None:
        """Read only; an array holds a long integer, its lowest 32 bits first."""
        words = [value >> 32 * i & 0xFFFF_FFFF for i in range(BY_NAME[name].count)]
        self._bind(name, Access.RO, words)

    def shown(self, name: str, values: Iterable[Value | int]) -> None:
        """Read only; shows a signal for each index. Further ones read as 0."""
        self._bind(name, Access.RO, values)

    def read_of(self, name: str) -> Value:
        """The strobe of a read of a register that is shown."""
        return self._strobe(self.read, BY_NAME[name], 0)

    def write_of(self, name: str) -> Value:
        """The strobe of a write to a register that is stored."""
        return self._strobe(self.write, BY_NAME[name], 0)

    def stored(
        self, name: str, mask: int = 0xFFFF_FFFF, count: int | None = None, reset: int | None = None
    ) -> list[Signal]:
        """Read and write; keeps the bits of `mask`, of the first `count` of an array. reset: where it isn't the
        table's. Returns what is stored."""
        register = BY_NAME[name]
        begins = register.reset if reset is None else reset
        kept = [Signal(32, init=begins & mask, name=f"{name}{i}") for i in range(count or register.count)]
        self._bind(name, Access.RW, kept)
        for index, signal in enumerate(kept):
            self._sync(self._strobe(self.write, register, index), signal.eq(self.data & mask))
        return kept

    def live(self, name: str, values: Iterable[Value | int]) -> tuple[list[Value], list[Value]]:
        """Read and write, with effects. Returns (written, read), a strobe for each index."""
        register = self._bind(name, Access.RW, values)
        indices = range(register.count)
        return tuple([self._strobe(kind, register, i) for i in indices] for kind in (self.write, self.read))

    def command(self, name: str) -> Value:
        """Write only. Returns the strobe of a write, of an array to any of its registers."""
        register = self._bind(name, Access.WO, [])
        return Cat(self._strobe(self.write, register, index) for index in range(register.count)).any()

    def build(self) -> None:
        """Makes the decoder. Raises BpfnicError for a register of the table that nothing was said of."""
        for register in REGISTERS:
            if register.name not in self._values:
                raise BpfnicError(f"register {register.name} has no behaviour")
        shown: dict[int, tuple[Value, list[int]]] = {}  # addresses at which the same value is seen share a select
        for register in REGISTERS:
            for index, value in enumerate(self._values[register.name][: register.count]):
                shown.setdefault(id(value), (Value.cast(value), []))[1].append(register.address(index))
        selected = []
        for value, places in shown.values():
            select = Signal(name="show", reset_less=True)
            self._sync(self.decode, select.eq(self.address.matches(*places)))
            selected.append(value & select.replicate(32))
        self._sync(self.show, self.value.eq(reduce(or_, selected)))
        for signal, kinds in ((self.readable, tuple(Access)), (self.writable, (Access.RW, Access.WO))):
            places = [r.address(i) for r in REGISTERS if r.access in kinds for i in range(r.count)]
            self._sync(self.decode, signal.eq(self.address.matches(*places)))
