"""A case on the hardware's core, simulated by Verilator."""

from pathlib import Path

import cffi

from bpfnic.hdl.config import NicConfig
from bpfnic.sim.conformance import case as cases
from bpfnic.sim.conformance.case import Case
from bpfnic.sim.rtl import build
from bpfnic.spec import addresses, engine
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES

HERE = Path(__file__).parent
CONFIG = NicConfig(
    threads=8, program_slots=cases.PROGRAM_SLOTS, buffer_bytes=4096, map_bytes=cases.MAP_BYTES, map_banks=1, maps=1,
    ports=1, trace=True, conformance=True,
)  # fmt: skip
ROOM = CONFIG.buffer_bytes - addresses.HEADROOM


class Rtl:
    """The core of CONFIG in a machine of its own, fresh from reset for each case; compiled now (half a minute) if it
    isn't in the cache. Raises BpfnicError where Verilator or a C++ compiler is missing.

    say : told of what takes long.
    """

    def __init__(self, say: build.Say = build.silent):
        ffi = cffi.FFI()
        ffi.cdef((HERE / "harness.h").read_text())
        self._library = ffi.dlopen(str(_library(say)))

    def run(self, case: Case) -> int:
        """r0 at the end, 64 bits. Raises BpfnicError for a program that is refused or faults, and for more memory than
        a packet buffer holds."""
        image = cases.image(case, lambda row: row.group in engine.GROUPS)
        if len(case.memory) > ROOM:
            raise BpfnicError(f"{len(case.memory)} bytes of memory: the hardware has room for {ROOM}")
        data_end = addresses.HEADROOM + len(case.memory)
        end = self._library.machine_run(
            image, len(image) // SLOT_BYTES, case.memory, len(case.memory), data_end, cases.BUDGET
        )
        assert end.status != 2, "the trace and the verdict disagree on r0"
        if end.status:
            raise BpfnicError(f"the core stands still at instruction {end.pc}")
        if end.cause:
            raise cases.fault(Cause(end.cause), end.pc)
        return end.r0

    def close(self) -> None:
        """Nothing is held."""


def _library(say: build.Say) -> Path:
    def write(folder: Path) -> None:
        say("writing the core's Verilog")
        from bpfnic.sim.conformance.machine import Machine

        (folder / "machine.v").write_text(build.verilog_of(Machine(CONFIG), "machine"))

    netlist = build.netlist_by(write, [HERE / "machine.py", Path(__file__)], CONFIG)
    recipe = build.Recipe(
        "library", "machine.so", (netlist / "machine.v", HERE / "harness.cpp", HERE / "harness.h"),
        verilate=("--top-module", "machine", "--prefix", "Vmachine"),
        compile=("-DVL_TIME_CONTEXT", "-fvisibility=hidden"), link=("-shared",),
    )  # fmt: skip
    return build.make(recipe, say)
