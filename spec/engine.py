"""What the barrel engine executes today: the capability block of the hardware and of the golden model.

GROUPS has a bit for each conformance group or extension, in the order of isa.Group: a group is there as a whole or not.
"""

from collections.abc import Iterable

from bpfnic.spec.helpers import HARDWARE, MAP_WALK
from bpfnic.spec.isa import Group
from bpfnic.spec.maps import EVENTS, KEYED, QUEUES, REDIRECT_MAPS, MapType
from bpfnic.spec.metadata import Metadata
from bpfnic.spec.programs import ProgramType

GROUPS = frozenset(
    {
        Group.BASE32,
        Group.BASE64,
        Group.DIVMUL32,
        Group.DIVMUL64,
        Group.ATOMIC32,
        Group.ATOMIC64,
        Group.PACKET,
        Group.CALLX,
        Group.ACQUIRE_RELEASE,
        Group.MAY_GOTO,
        Group.FIRMWARE,
    }
)
MAP_TYPES = (
    frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS})
    | KEYED
    | QUEUES
    | REDIRECT_MAPS
    | EVENTS
)
PROGRAM_TYPES = frozenset(ProgramType)
HELPERS = HARDWARE | {MAP_WALK.number} | frozenset(Metadata)

_ORDER = tuple(Group)


def group_bits(groups: Iterable[Group]) -> int:
    """The GROUPS register of a device."""
    return sum(1 << _ORDER.index(group) for group in groups)


def groups_of(bits: int) -> frozenset[Group]:
    """The groups in a GROUPS register; bits that this version doesn't know are left out."""
    return frozenset(group for number, group in enumerate(_ORDER) if bits >> number & 1)


def bit_set(numbers: Iterable[int]) -> int:
    """The MAP_TYPES, HELPERS or PROGRAM_TYPES registers, as one integer with the first register lowest."""
    return sum(1 << number for number in numbers)
