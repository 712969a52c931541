"""The parameters of a NIC, and what they may be."""

from dataclasses import dataclass, field

from bpfnic.spec import engine
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType
from bpfnic.spec.metadata import Metadata


@dataclass(frozen=True)
class NicConfig:
    """Size of a NIC. Every component takes it whole.

    Parameters
    ----------
    cores : 1 to 4 barrel cores, each with its own windows, packet buffers and copy of the program store.
    threads : hardware threads of a core, 8 or 16.
    program_slots : 8-byte instruction slots, a power of two up to 65,536.
    packet_buffers : buffers of a core, a power of two, at least twice the threads; 0 for just that.
    buffer_bytes : bytes of a buffer, headroom and tailroom included: 2,048 or 4,096.
    map_bytes : bytes of map memory, a power of two.
    map_banks : banks of map memory, interleaved by 16 bytes: 1, 2, 4 or 8.
    maps : map descriptors, a power of two.
    map_types : types of maps that it has; what the others alone need is left out.
    ports : network ports, 1 to 3; the host is interface number `ports`.
    receive_metadata : it keeps what programs may ask of a frame as it came in (spec.metadata).
    slice_places : places of a register slice (hdl/slice.py): 2, or 1 for fewer LUTs and a slower clock.
    clock_ns : nanoseconds of a clock, 1 to 255: what the register CLOCK_NS holds from reset on.
    trace : add the trace port (design.md, "Trace port").
    target : "generic" infers memories; "ecp5" instantiates DP16KD.
    conformance : no NIC but a core for the conformance suite: helper 5 returns its first argument, and is the only one.
    """

    cores: int = 1
    threads: int = 16
    program_slots: int = 4096
    packet_buffers: int = field(default=0)
    buffer_bytes: int = 2048
    map_bytes: int = 128 * 1024
    map_banks: int = 4
    maps: int = 64
    map_types: frozenset[MapType] = engine.MAP_TYPES
    ports: int = 2
    receive_metadata: bool = True
    slice_places: int = 2
    clock_ns: int = 8
    trace: bool = False
    target: str = "generic"
    conformance: bool = False

    def __post_init__(self) -> None:
        if self.packet_buffers == 0:
            object.__setattr__(self, "packet_buffers", 2 * self.threads)

        def check(name: str, legal: bool, rule: str) -> None:
            if not legal:
                raise BpfnicError(f"{name} must be {rule}, not {getattr(self, name)!r}")

        def power(value: int) -> bool:
            return value > 0 and value & (value - 1) == 0

        check("cores", 1 <= self.cores <= 4, "1 to 4")
        check("threads", self.threads in (8, 16), "8 or 16")
        check("program_slots", power(self.program_slots) and 64 <= self.program_slots <= 65536,
              "a power of two from 64 to 65536")
        check("packet_buffers", power(self.packet_buffers) and self.packet_buffers >= 2 * self.threads,
              "a power of two, at least twice the threads")
        check("buffer_bytes", self.buffer_bytes in (2048, 4096), "2048 or 4096")
        check("map_bytes", power(self.map_bytes) and 4096 <= self.map_bytes <= 1 << 24,
              "a power of two from 4096 to 16777216")
        check("map_banks", self.map_banks in (1, 2, 4, 8), "1, 2, 4 or 8")
        check("maps", power(self.maps) and 1 <= self.maps <= 256, "a power of two up to 256")
        if lacking := self.map_types - engine.MAP_TYPES:
            have, asked = (", ".join(each.name for each in sorted(some)) for some in (engine.MAP_TYPES, lacking))
            raise BpfnicError(f"map_types must be some of {have}, not {asked}")
        check("ports", 1 <= self.ports <= 3, "1 to 3")
        check("slice_places", self.slice_places in (1, 2), "1 or 2")
        check("clock_ns", 1 <= self.clock_ns <= 255, "1 to 255")
        check("target", self.target in ("generic", "ecp5"), "generic or ecp5")

    @property
    def helpers(self) -> frozenset[int]:
        """By number, the helpers that programs may call."""
        return engine.HELPERS if self.receive_metadata else engine.HELPERS - frozenset(Metadata)

    @property
    def interfaces(self) -> int:
        """Ports and the host, which comes last."""
        return self.ports + 1

    @property
    def ingresses(self) -> int:
        """Interfaces, and behind them what programs clone."""
        return self.interfaces + 1
