"""What a device lacks of what an accepted program needs: a pass of its own, for the words that EINVAL doesn't have."""

from bpfnic.host import runtime
from bpfnic.host.btf.patch import POISON
from bpfnic.host.device import Capabilities
from bpfnic.host.ksyms import ABSENT
from bpfnic.host.verifier.walk import Subject
from bpfnic.spec import helpers, isa
from bpfnic.spec.isa import Operation


def lacking(subject: Subject, device: Capabilities) -> list[str]:
    """A line for each thing that the device doesn't have; empty if the program fits it."""
    found = []
    available = device.helpers | runtime.linked(subject.type, device.helpers)
    if len(subject.code) > device.program_slots:
        found.append(f"{len(subject.code)} instruction slots are more than this device's {device.program_slots}")
    for name in dict.fromkeys(reference.map for reference in subject.references.values()):
        definition = subject.maps[name]
        if definition.type not in device.map_types:
            found.append(f"map {name} is a {definition.type.name}, which is not on this device")
        if definition.inner and definition.inner.type not in device.map_types:
            found.append(f"map {name} holds maps of type {definition.inner.type.name}, which is not on this device")
    seen: set[object] = set()
    for slot, instruction in enumerate(subject.code):
        if instruction is None:
            continue
        row = isa.find(instruction)
        if row.operation is Operation.CALL_HELPER:
            number = instruction.imm
            if number not in available and number not in seen and number != POISON:
                seen.add(number)
                why = helpers.REFUSED.get(number, "it is neither in hardware nor in the firmware runtime")
                name = helpers.BY_NUMBER[number].name
                found.append(f"helper bpf_{name} ({number}) at {_where(subject, slot)} is not on this device: {why}")
        elif row.operation is Operation.CALL_BTF and instruction.imm != ABSENT:
            found.append(f"the kernel function called at {_where(subject, slot)} is not on this device")
        elif row.group not in device.groups and row.group not in seen:
            seen.add(row.group)
            found.append(f"{row.name} at {_where(subject, slot)} is not on this device (group {row.group.value})")
    return found


def _where(subject: Subject, slot: int) -> str:
    line = subject.line(slot)
    return f"instruction {slot}" + (f" ({line.file.rsplit('/', 1)[-1]}:{line.line})" if line else "")
