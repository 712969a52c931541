"""What a device lacks of what a program needs: a pass of its own, for the words that EINVAL doesn't have."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping

from bpfnic.host import runtime
from bpfnic.host.device import Capabilities
from bpfnic.host.eventmaps import sized
from bpfnic.host.image import lay_out
from bpfnic.host.ksyms import ABSENT
from bpfnic.host.object import Object, Program
from bpfnic.host.registermaps import map_bytes
from bpfnic.host.structure import tail_calls
from bpfnic.host.taildepth import Demand, excess
from bpfnic.host.verifier.verdict import StackUse
from bpfnic.host.verifier.walk import Subject
from bpfnic.spec import helpers, isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Operation
from bpfnic.spec.maps import MapType


def lacking(subject: Subject, device: Capabilities) -> list[str]:
    """A line for each thing that the device doesn't have, with the instruction that first needs it; empty if the
    program fits the device."""
    return list(_needs(subject, device))


def _needs(subject: Subject, device: Capabilities) -> Iterator[str]:
    if len(subject.code) > device.program_slots:
        yield f"{len(subject.code)} instruction slots are more than this device's {device.program_slots}"
    available = device.helpers | runtime.linked(subject.type, device.helpers)
    seen: set[object] = set()
    for slot, instruction in enumerate(subject.code):
        if instruction is None:
            continue
        if (reference := subject.references.get(slot)) and reference.map not in seen:
            seen.add(reference.map)
            if line := _map(subject, device, reference.map):
                yield f"{line} (needed by {_where(subject, slot)})"
        row = isa.find(instruction)
        if row.operation is Operation.CALL_HELPER:
            number = instruction.imm
            helper = helpers.BY_NUMBER.get(number)
            if helper is None or number in available or number in seen:
                continue  # there is none, and the verifier knows: POISON, too
            seen.add(number)
            why = helpers.REFUSED.get(number, "it is neither in hardware nor in the firmware runtime")
            yield f"helper bpf_{helper.name} ({number}) at {_where(subject, slot)} is not on this device: {why}"
        elif row.operation is Operation.CALL_BTF and instruction.imm != ABSENT:
            yield f"the kernel function called at {_where(subject, slot)} is not on this device"
        elif row.group not in device.groups and row.group not in seen:
            seen.add(row.group)
            yield f"{row.name} at {_where(subject, slot)} is not on this device (group {row.group.value})"


def _map(subject: Subject, device: Capabilities, name: str) -> str:
    """What the device lacks for a map, "" for nothing."""
    definition = subject.maps[name]
    has = ", ".join(sorted(type.name for type in device.map_types))
    if definition.type not in device.map_types:
        return f"map {name} ({definition.type.name}) is not on this device, which has {has}"
    if definition.inner and definition.inner.type not in device.map_types:
        return f"map {name} holds maps of type {definition.inner.type.name}, which is not on this device: it has {has}"
    return ""


def memory_lacking(subject: Subject, device: Capabilities) -> list[str]:
    """What a device that has no maps yet lacks for all of a program's together: map memory and descriptors. (A map that
    is made says what is free: host/driver.py.)"""
    maps = [subject.maps[name] for name in sorted({reference.map for reference in subject.references.values()})]
    maps = [sized(each, device.cpus) for each in maps if each.type in device.map_types]
    takes = {each.name: map_bytes(each, device.cpus, device.map_bytes) for each in maps}
    found = []
    if (total := sum(takes.values())) > device.map_bytes:
        most = sorted(maps, key=lambda each: -takes[each.name])[:_NAMED]
        named = ", ".join(f"{each.name} ({each.type.name}, max_entries {each.max_entries}) {takes[each.name]}"
                          for each in most)  # fmt: skip
        found.append(f"its maps take {total} bytes of map memory together, of this device's {device.map_bytes}: {named}"
                     + (", …" if len(maps) > _NAMED else ""))  # fmt: skip
    described = sum(each.variables is None for each in maps)
    if described > device.maps:
        found.append(f"its {described} maps take a descriptor each, of this device's {device.maps}")
    return found


_NAMED = 3
_UNREADABLE = (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.XSKMAP)


def calls_lacking(subject: Subject, calls: Mapping[tuple[int, MapType], int]) -> list[str]:
    """The same of calls that the verifier saw, helper and type of map by the slot of the first: of those that Linux
    lets a program make with a map and no NIC does."""
    found = []
    for (number, type), slot in calls.items():
        name = helpers.BY_NUMBER[number].name
        if number == _LOOKUP and type in _UNREADABLE:
            found.append(f"{name} at {_where(subject, slot)} can't read entries of a {type.name} on this device")
    return found


_LOOKUP = helpers.BY_NAME["map_lookup_elem"].number


def depth_lacking(
    object: Object, program: Program, device: Capabilities, use: Callable[[Program], StackUse | None]
) -> list[str]:
    """The same of frames and stack, of an accepted program with its routines, and with what its tail calls lead to if
    PROG_ARRAYs hold what the object puts into them. `use`: of any of its programs, None of one that isn't accepted."""

    @functools.cache
    def demand(name: str) -> Demand | None:
        found = use(object.programs[name])
        if found is None:
            return None
        whole = object.programs[name].with_firmware(runtime.linked(object.programs[name].type, device.helpers))
        layout = lay_out(whole.resolved(device.helpers), name, whole.own, found)
        return Demand.of(whole, layout, found, {each: each for each in object.maps})

    @functools.cache
    def entries(array: Hashable) -> list[tuple[int, str, Demand]]:
        programs = sorted(object.maps[str(array)].programs.items())
        found = [(index, f"{array}[{index}]", demand(name)) for index, name in programs]
        return [(index, entry, target) for index, entry, target in found if target]

    why = ""
    try:
        demand(program.name)  # fits alone
        together = _reached(object, program)
        if any(map(_calls_from_a_function, together)):
            why = excess([each for one in together if (each := demand(one.name))], entries)
    except BpfnicError as error:
        why = str(error)
    return [why] if why else []


def _reached(object: Object, program: Program) -> list[Program]:
    """A program and all that may run behind it, by what the object puts into the maps that they use."""
    found = [program]
    for each in found:
        targets = [object.programs[name] for used in each.maps for name in object.maps[used].programs.values()]
        found += (target for target in dict.fromkeys(targets) if target not in found)
    return found


def _calls_from_a_function(program: Program) -> bool:
    """Whether there is a tail call behind the program's own function: otherwise nobody need be asked how deep it is."""
    behind = min((start for start in program.functions if start), default=len(program.instructions))
    return any(slot >= behind for slot in tail_calls(program.instructions))


def _where(subject: Subject, slot: int) -> str:
    line = subject.line(slot)
    return f"instruction {slot}" + (f" ({line.file.rsplit('/', 1)[-1]}:{line.line})" if line else "")
