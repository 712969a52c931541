"""The runtime: helpers that are firmware, C functions under firmware/runtime/ which the loader links into the programs
that call them, and the functions that compilers take for granted.

`NAME.bpf.c` has one of them, with what it needs inlined: helper bpf_NAME is the function `helper_NAME`, the kernel's
function bpf_NAME (spec/kfuncs.py) `kfunc_NAME`, memcpy `memcpy`. It is compiled when a program first calls it. The
numbers of spec/ that it needs are defined for the compiler, so that they stand nowhere in C. A map that it declares is
created once a device and hidden from users; all routines share it by its name."""

import functools
from dataclasses import replace
from importlib import resources
from pathlib import Path

from bpfnic.host.btf import Btf
from bpfnic.host.btf.extension import read_extension
from bpfnic.host.compile import compile_object
from bpfnic.host.elf import Elf
from bpfnic.host.link import Frame, Linker, Routine
from bpfnic.host.maptable import MapTable
from bpfnic.spec import addresses, helpers, kfuncs
from bpfnic.spec.metadata import RSS_TYPE_BIT, TPID_BIT, Metadata
from bpfnic.spec.programs import ProgramType

FOLDER = Path(str(resources.files("bpfnic.firmware"))) / "runtime"
FUNCTIONS = ("memcpy", "memmove", "memset", "memcmp")
_DEFINED = {
    "CONTEXT_WINDOW": addresses.CONTEXT,
    "STACK_WINDOW": addresses.STACK,
    "STACK_BYTES": addresses.STACK_BYTES,
    "PACKET_WINDOW": addresses.PACKET,
    "MAP_VALUES": addresses.MAP_VALUES,
    "MAP_HANDLES": addresses.MAP_HANDLES,
    "HANDLE_KEY_BIT": addresses.HANDLE_KEY_BIT,
    "MAX_KEY_BYTES": addresses.MAX_KEY_BYTES,
    "MAP_WALK": helpers.MAP_WALK.number,
    "JIFFIES_PER_SECOND": helpers.JIFFIES_PER_SECOND,
    "SKB_WINDOW": addresses.SKB_CONTEXT,
    "RSS_TYPE_BIT": RSS_TYPE_BIT,
    "TPID_BIT": TPID_BIT,
} | {each.name: each for each in Metadata}

_AROUND = {
    ProgramType.SCHED_CLS: ("skb_enter", "tc_leave"),
    ProgramType.SOCKET_FILTER: ("socket_enter", "socket_leave"),
}


class Runtime:
    """What the runtime has for a program of a type (link.Routines) that is linked with it in place of `helpers`, by
    number: where there are none, nothing. `named`: as link.Routines has it."""

    def __init__(self, type: ProgramType | None, helpers: frozenset[int], named: bool = False):
        self._helpers = frozenset() if named else helpers
        self.named = named
        self.functions = kfuncs.callable(type)
        self.frame = _frame(*_AROUND[type]) if self._helpers and type in _AROUND else None
        # A tc program goes on behind such a load that ends it (tc_leave); a socket filter doesn't: nothing is kept.
        loads = routine("skb_load_packet", "skb_load_packet") if self.frame and type is ProgramType.SCHED_CLS else None
        self.loads = loads and replace(loads, privileged=True)

    def helper(self, number: int) -> Routine | None:
        if number not in self._helpers:
            return None
        name = helpers.BY_NUMBER[number].name
        return replace(routine(name, f"helper_{name}"), privileged=number not in helpers.LIBRARY)

    def function(self, name: str) -> Routine | None:
        return routine(name, name) if name in FUNCTIONS else None

    def kernel(self, name: str) -> Routine | None:
        if not (self._helpers or self.named) or name not in self.functions:
            return None
        file = "xdp_metadata_none" if kfuncs.METADATA.get(name) in self._helpers else name.removeprefix("bpf_")
        return routine(file, f"kfunc_{file}")


def _frame(*names: str) -> Frame:
    """What runs around a program whose context is an skb."""
    enter, leave = (replace(routine(name, name), privileged=True) for name in names)
    return Frame(enter, leave, addresses.SKB_CONTEXT)


def linked(type: ProgramType | None, hardware: frozenset[int]) -> frozenset[int]:
    """The helpers for which the runtime's routines stand in a program of that type, on a device that has the helpers
    `hardware` itself."""
    here = (helpers.LIBRARY | helpers.PRIVILEGED) - hardware
    if type is ProgramType.SCHED_CLS:
        here |= helpers.OTHER_IN_TC
    here = frozenset(number for number in here if type in helpers.BY_NUMBER[number].programs)
    return here | (frozenset(Metadata) - hardware if type is ProgramType.XDP else frozenset())


@functools.cache
def routine(file: str, function: str) -> Routine:
    """A function of the runtime. Raises BpfnicError where it can't be compiled."""
    define = [f"{name}={value:#x}" for name, value in _DEFINED.items()]
    elf = Elf(compile_object(FOLDER / f"{file}.bpf.c", define=define))
    types, lines = elf.section(".BTF"), elf.section(".BTF.ext")
    assert types and lines
    btf = Btf(types.data)
    linker = Linker(elf, MapTable(elf, btf), read_extension(lines.data, btf), btf, runtime=file)
    (unit,) = [number for number, unit in enumerate(linker.units) if unit.name == function]
    return Routine(linker, unit)
