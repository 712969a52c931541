"""Where a device ended programs, as their author knows it: program, instruction, line of C."""

from collections.abc import Iterable, Sequence

from bpfnic.host import listing
from bpfnic.host.check import Ended
from bpfnic.host.device import LoadedProgram, Traffic
from bpfnic.host.registermaps import RegisterProgram
from bpfnic.spec.causes import Cause


def lying_at(programs: Iterable[LoadedProgram], slot: int) -> tuple[RegisterProgram, int] | None:
    """The one of a NIC's programs that lies at a slot of its store, and the number of the instruction there."""
    for loaded in programs:
        if isinstance(loaded, RegisterProgram) and loaded.entry <= slot < loaded.entry + len(loaded.image):
            return loaded, slot - loaded.entry
    return None


def places(programs: Sequence[LoadedProgram], traffic: Traffic) -> list[Ended]:
    """Where the device ended programs, the most frequent place first."""
    packets: dict[tuple[Cause, int], list[int]] = {}
    for number, packet in enumerate([*traffic.packets, *traffic.clones]):
        if packet.stopped is not None:
            packets.setdefault((packet.cause, packet.stopped), []).append(traffic.origin(number))
    found = []
    for (cause, slot), numbers in sorted(packets.items(), key=lambda item: -len(item[1])):
        name, instruction, text, source = "", slot, "outside the program", ""
        if lies := lying_at(programs, slot):
            loaded, instruction = lies
            name, source = loaded.program.name, listing.source(loaded.whole, instruction)
            text = listing.instruction(loaded.whole, instruction).partition(": ")[2]
        found.append(Ended(cause, len(numbers), numbers[0], name, instruction, text, source))
    return found
