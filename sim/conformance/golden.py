"""A case on the golden interpreter."""

from bpfnic.sim.conformance import case as cases
from bpfnic.sim.conformance.case import Case
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Suspending, Thread, Trap, finish
from bpfnic.spec import addresses, helpers
from bpfnic.spec.instruction import SLOT_BYTES


class Golden:
    """The interpreter, which has every instruction."""

    def run(self, case: Case) -> int:
        """r0 at the end, 64 bits. Raises BpfnicError for a program that is refused or faults."""
        image = cases.image(case, executes=lambda row: True)
        code = Code(len(image) // SLOT_BYTES)
        code.write(0, image)
        buffer = Buffer(case.memory, addresses.HEADROOM + len(case.memory))
        memory = Memory(buffer, 0, bytearray(cases.MAP_BYTES))
        thread = Thread(code, memory, {helpers.RETURN_FIRST: _return_first}, budget=cases.BUDGET)
        try:
            return finish(thread.run(0))
        except Trap as trap:
            raise cases.fault(trap.cause, thread.pc) from None

    def close(self) -> None:
        """Nothing is held."""


def _return_first(thread: Thread) -> Suspending:
    yield from ()
    return thread.registers[1]
