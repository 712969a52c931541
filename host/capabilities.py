"""What a NIC says of itself in its registers."""

from collections.abc import Callable, Sequence

from bpfnic.host.device import Capabilities
from bpfnic.spec import engine
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import BY_NAME, MAGIC, VERSION

_ENGINES = ("barrel",)
_NUMBERS = ("ENGINE", "CORES", "THREADS", "PORTS", "PROGRAM_SLOTS", "MAP_BYTES", "MAPS", "BUFFER_BYTES", "GROUPS")
_SETS = ("MAP_TYPES", "HELPERS", "PROGRAM_TYPES")

ReadAll = Callable[[Sequence[int]], list[int]]
"""Reads registers at these byte addresses."""


def check_register_map(name: str, read_all: ReadAll) -> None:
    """Raises BpfnicError where what is called `name` is no NIC, or one with another register map."""
    magic, version = read_all([BY_NAME["MAGIC"].address(), BY_NAME["VERSION"].address()])
    if magic != MAGIC:
        raise BpfnicError(f"{name}: no bpfnic answers there (MAGIC reads 0x{magic:08x})")
    if version >> 16 != VERSION >> 16:
        raise BpfnicError(f"{name}: its register map has version {version >> 16}, not {VERSION >> 16}")


def read(name: str, read_all: ReadAll) -> Capabilities:
    """Its capabilities. Raises BpfnicError as check_register_map."""
    check_register_map(name, read_all)
    numbers = dict(zip(_NUMBERS, read_all([BY_NAME[each].address() for each in _NUMBERS]), strict=True))

    def bits(register: str) -> list[int]:
        words = read_all([BY_NAME[register].address(i) for i in range(BY_NAME[register].count)])
        return [32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1]

    map_types, helpers, program_types = map(bits, _SETS)
    return Capabilities(
        engine=_ENGINES[numbers["ENGINE"]],
        cpus=numbers["CORES"] * numbers["THREADS"],
        ports=numbers["PORTS"],
        program_slots=numbers["PROGRAM_SLOTS"],
        map_bytes=numbers["MAP_BYTES"],
        maps=numbers["MAPS"],
        buffer_bytes=numbers["BUFFER_BYTES"],
        groups=engine.groups_of(numbers["GROUPS"]),
        map_types=frozenset(map(MapType, map_types)),
        helpers=frozenset(helpers),
        program_types=frozenset(map(ProgramType, program_types)),
        cores=numbers["CORES"],
    )
