"""Block memories: DP16KD of the ECP5 by name, or a behavioural twin for simulation and other parts.

Both read with a latency of exactly 2 clocks (array, output register): an address given in clock t has its data in clock
t + 2; or of 1, where what reads it has a register of its own at once. Contents are zero at configuration; reset does
not touch them. Everything is in the domain "sync" but what is read in another one.

Where accesses meet in one clock:

- A port of `DualPortRam` that writes (even if no lane) reads nothing in that clock: the data of two clocks later is
  undefined, in every lane. (DP16KD's write mode NORMAL: blocks that write keep their output, others read.)
- A port reads an address that another port writes: what it reads is undefined, in every lane. (The twin reads the old
  word. Don't build on it.) From the next clock on it reads the new word.
- Two ports write one address: that word is undefined.
"""

from amaranth import ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import ceil_log2

from bpfnic.spec.errors import BpfnicError

READ_LATENCY = 2
"""Clocks from an address to its data."""

# Depths and widths of one DP16KD (Lattice FPGA-TN-02204). The widest takes the data pins of both sides, so that one
# side only writes and the other only reads.
_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
_MODES = {1: "NOREG", READ_LATENCY: "OUTREG"}
_BYTE = 9  # bits of a block's byte lane
_SIDE = 18  # data pins of a side
_ADDRESS_PINS = 14  # they count bits; the lower ones of a wide word are byte enables or unused


def _check(width: int, depth: int, lane: int, target: str) -> None:
    if depth < 2 or depth & (depth - 1):
        raise BpfnicError(f"depth must be a power of two from 2, not {depth!r}")
    if width <= 0 or lane <= 0 or width % lane:
        raise BpfnicError(f"width must be a multiple of the lane's {lane!r} bits, not {width!r}")
    if target not in ("generic", "ecp5"):
        raise BpfnicError(f"target must be generic or ecp5, not {target!r}")
    if target == "ecp5" and depth > _SHAPES[-1][0]:
        raise BpfnicError(f"depth must be at most {_SHAPES[-1][0]} on ecp5, not {depth!r}")


class _Blocks:
    """The DP16KDs that hold a memory side by side, each some of the bits of every word."""

    def __init__(self, width: int, depth: int, lane: int, widest: int):
        self.tile_depth, self.tile = next(s for s in _SHAPES if s[0] >= depth and s[1] <= widest)
        piece = min(self.tile, _BYTE)
        pieces = [
            (start, min(piece, first + lane - start), first // lane)
            for first in range(0, width, lane)
            for start in range(first, first + lane, piece)
        ]
        each = max(1, self.tile // _BYTE)
        self.contents = [pieces[i : i + each] for i in range(0, len(pieces), each)]
        """For each block its pieces (first bit, bits, lane), none of which crosses a byte lane of the block."""
        self.pins: list[dict[str, object]] = [{} for _ in self.contents]

    def _data(self, number: int, direction: str, sides: str, word) -> None:
        for place, (start, bits, _) in enumerate(self.contents[number]):
            for bit in range(bits):
                side, pin = divmod(place * _BYTE + bit, _SIDE)
                self.pins[number][f"{direction}{sides[side]}{pin}"] = word[start + bit]

    def port(self, side: str, address, *, enable=None, lanes=None, write=None, read=None, data_sides: str = "",
             domain: str = "sync", latency: int = READ_LATENCY) -> None:  # fmt: skip
        """Connects one side of every block. `data_sides`: whose data pins, if not its own. Wide blocks have pins for
        what of a word is written, so that nothing stands between `enable` and their own."""
        low = [Const(0)] * (_ADDRESS_PINS - ceil_log2(self.tile_depth))
        for number, pins in enumerate(self.pins):
            chosen = [Const(1) if lanes is None else lanes[lane] for _, _, lane in self.contents[number]]
            wide = self.tile > _BYTE and enable is not None
            address_pins = (chosen + low[len(chosen) :] if wide else low) + list(address)
            address_pins += [Const(0)] * (_ADDRESS_PINS - len(address_pins))
            pins |= {f"i_AD{side}{i}": pin for i, pin in enumerate(address_pins)}
            pins |= {f"i_CS{side}{i}": Const(0) for i in range(3)}
            pins |= {f"i_CLK{side}": ClockSignal(domain), f"i_RST{side}": Const(0)}
            pins |= {f"i_CE{side}": Const(1), f"i_OCE{side}": Const(1)}
            pins[f"i_WE{side}"] = Const(0) if enable is None else enable if wide else enable & chosen[0]
            pins |= {f"p_DATA_WIDTH_{side}": self.tile, f"p_REGMODE_{side}": _MODES[latency]}
            pins |= {f"p_WRITEMODE_{side}": "NORMAL", f"p_CSDECODE_{side}": "0b000"}
            if write is not None:
                self._data(number, "i_DI", data_sides or side, write)
            if read is not None:
                self._data(number, "o_DO", data_sides or side, read)

    def place(self, m: Module) -> None:
        for number, pins in enumerate(self.pins):
            m.submodules[f"block{number}"] = Instance("DP16KD", p_RESETMODE="SYNC", p_GSR="DISABLED", **pins)


def _written(width: int, lane: int) -> dict:
    """Members of a port that writes."""
    return {"enable": Out(1)} | ({"lanes": Out(width // lane)} if width > lane else {})


def _lanes(port) -> Value | None:
    return getattr(port, "lanes", None)


def _lane_enables(port) -> Value:
    """A bit for each lane that is written."""
    lanes = _lanes(port)
    return port.enable if lanes is None else Mux(port.enable, lanes, 0)


def _output_register(m: Module, array, output, domain: str = "sync") -> None:
    register = Signal(len(output), reset_less=True)
    m.d[domain] += register.eq(array)
    m.d.comb += output.eq(register)


class SimpleRam(Component):
    """One write port, one read port.

    Parameters
    ----------
    width : bits of a word, a multiple of `lane`.
    depth : words, a power of two (2 to 16,384 on "ecp5").
    lane : bits that are written or not as one; the whole word by default.
    target : NicConfig.target.
    read_domain : the read port's clock. A word that is written there and here at once reads as undefined.

    Members
    -------
    write : `enable`, `address`, `data`; of a memory with several lanes `lanes`, a bit for each that is to be written,
        the first one lowest.
    read : `address`; `data` 2 clocks later. There is no enable: it reads in every clock.

    Attributes
    ----------
    contents : what the twin holds (amaranth.lib.memory.MemoryData), for simulations.
    """

    def __init__(self, *, width: int, depth: int, lane: int | None = None, target: str = "generic",
                 read_domain: str = "sync"):  # fmt: skip
        self.width, self.depth, self.lane, self.target = width, depth, lane or width, target
        self.read_domain = read_domain
        _check(width, depth, self.lane, target)
        self.contents = memory.MemoryData(shape=width, depth=depth, init=[])
        address = range(depth)
        write = _written(width, self.lane) | {"address": Out(address), "data": Out(width)}
        super().__init__(
            {
                "write": In(Signature(write)),
                "read": In(Signature({"address": Out(address), "data": In(width)})),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.target == "ecp5":
            blocks = _Blocks(self.width, self.depth, self.lane, widest=36)
            wide = blocks.tile > _SIDE
            blocks.port("A", self.write.address, enable=self.write.enable, lanes=_lanes(self.write),
                        write=self.write.data, data_sides="AB" if wide else "A")  # fmt: skip
            blocks.port("B", self.read.address, read=self.read.data, data_sides="AB" if wide else "B",
                        domain=self.read_domain)  # fmt: skip
            blocks.place(m)
            return m
        m.submodules.array = array = memory.Memory(self.contents)
        write = array.write_port(granularity=self.lane)
        read = array.read_port(domain=self.read_domain)
        m.d.comb += [write.en.eq(_lane_enables(self.write)), write.addr.eq(self.write.address)]
        m.d.comb += [write.data.eq(self.write.data), read.addr.eq(self.read.address)]
        _output_register(m, read.data, self.read.data, self.read_domain)
        return m


class DualPortRam(Component):
    """Two ports, `a` and `b`, each of which reads or writes in a clock.

    Parameters
    ----------
    width, depth, lane, target : as of SimpleRam.
    latency : of reading, in clocks: 2, or 1, without the output register.

    Members
    -------
    a, b : `enable` (it writes), `lanes` (as of SimpleRam), `address`, `write_data`; `read_data` `latency` clocks after
        an address with no enable.
    """

    def __init__(self, *, width: int, depth: int, lane: int | None = None, target: str = "generic",
                 latency: int = READ_LATENCY):  # fmt: skip
        self.width, self.depth, self.lane, self.target = width, depth, lane or width, target
        self.latency = latency
        assert latency in _MODES
        _check(width, depth, self.lane, target)
        self.contents = memory.MemoryData(shape=width, depth=depth, init=[])
        port = Signature(
            _written(width, self.lane)
            | {
                "address": Out(range(depth)),
                "write_data": Out(width),
                "read_data": In(width),
            }
        )
        super().__init__({"a": In(port), "b": In(port)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.target == "ecp5":
            blocks = _Blocks(self.width, self.depth, self.lane, widest=18)
            for side, port in (("A", self.a), ("B", self.b)):
                blocks.port(side, port.address, enable=port.enable, lanes=_lanes(port), write=port.write_data,
                            read=port.read_data, latency=self.latency)  # fmt: skip
            blocks.place(m)
            return m
        m.submodules.array = array = memory.Memory(self.contents)
        for port in (self.a, self.b):
            write = array.write_port(granularity=self.lane)
            read = array.read_port()
            m.d.comb += [write.en.eq(_lane_enables(port)), write.addr.eq(port.address), write.data.eq(port.write_data)]
            m.d.comb += [read.addr.eq(port.address), read.en.eq(~port.enable)]
            if self.latency == READ_LATENCY:
                _output_register(m, read.data, port.read_data)
            else:
                m.d.comb += port.read_data.eq(read.data)
        return m
