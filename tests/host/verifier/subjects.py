"""Programs in assembly, for the verifier and for the kernel's. `r1 = map_by_fd(2) ll` names map 2 of MAPS, and
`map_val(map_by_fd(3)) + 8` its value."""

from bpfnic.host.link import Reference
from bpfnic.host.maps import Globals, MapDefinition
from bpfnic.host.verifier.verdict import Subject
from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.instruction import decode
from bpfnic.spec.maps import MapFlag, MapType
from bpfnic.spec.programs import ProgramType

CONSTANTS = bytes([7, 0, 0, 0, 0, 0, 0, 0]) + b"text\0\0\0\0"
MAPS = (
    MapDefinition("array", MapType.ARRAY, 4, 16, 4),
    MapDefinition("hash", MapType.HASH, 8, 16, 4),
    MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 4),
    MapDefinition(".rodata", MapType.ARRAY, 4, 16, 1, MapFlag.RDONLY_PROG,
                  variables=Globals(".rodata", bytearray(CONSTANTS), None, {})),
    MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096),
    MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 4, inner=MapDefinition("inner", MapType.ARRAY, 4, 16, 4)),
    MapDefinition("devices", MapType.DEVMAP, 4, 4, 4),
    MapDefinition("readonly", MapType.ARRAY, 4, 16, 4, MapFlag.RDONLY_PROG),
    MapDefinition("writeonly", MapType.ARRAY, 4, 16, 4, MapFlag.WRONLY_PROG),
    MapDefinition("queue", MapType.QUEUE, 0, 8, 4),
)  # fmt: skip
_MAP_FD, _MAP_VALUE = isa.BY_NAME["lddw_map_fd"], isa.BY_NAME["lddw_map_value"]


def subject(text, type=ProgramType.XDP, *, license="GPL", attach="", device_bound=False, code=None):
    """A program from its text, or from its encoded `code`."""
    code = decode(assemble(text) if code is None else code)
    references = {}
    for slot, one in enumerate(code):
        if one and one.opcode == _MAP_FD.opcode and one.src in (_MAP_FD.src, _MAP_VALUE.src):
            offset = one.next_imm if one.src == _MAP_VALUE.src else None
            references[slot] = Reference(MAPS[one.imm % len(MAPS)].name, offset)
    maps = {definition.name: definition for definition in MAPS}
    return Subject("program", type, code, references, maps, license, attach, device_bound)
