"""What the running kernel's verifier says of a program: the judge of host/verifier.

Maps are created as the program's object defines them, the program is loaded, and everything is closed again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from bpfnic.host import valuetypes
from bpfnic.host.eventmaps import sized
from bpfnic.host.linux import bpf, functions, locks
from bpfnic.host.maps import MapDefinition
from bpfnic.host.structure import function_starts
from bpfnic.host.verifier.walk import Subject
from bpfnic.spec import isa
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.maps import OF_MAPS, MapFlag
from bpfnic.spec.programs import ProgramType

_STATISTICS = 4
"""log_level of the sums alone (BPF_LOG_STATS)."""
_ATTACH = {"devmap": 33, "cpumap": 35}  # BPF_XDP_DEVMAP, BPF_XDP_CPUMAP
_MAP_FD, _MAP_VALUE = 1, 2


@dataclass(frozen=True)
class KernelVerdict:
    """`log` as the kernel wrote it; `processed` instructions and states, 0 where the log doesn't say."""

    accepted: bool
    log: str
    processed: int
    states: int

    @property
    def error(self) -> str:
        """The line that says why not."""
        sums = ("processed ", "verification ", "stack depth ")
        lines = [line for line in self.log.splitlines() if line and not line.startswith(sums)]
        return lines[-1] if lines and not self.accepted else ""


def judge(subject: Subject, log_level: int = _STATISTICS) -> KernelVerdict:
    """The kernel's verdict. Raises OSError where it doesn't create a map."""
    descriptors: dict[str, int] = {}
    opened: list[int] = []
    try:
        for name in {reference.map for reference in subject.references.values()}:
            descriptors[name] = _create(subject.maps[name], opened)
        code = encode(_linked(subject, descriptors))
        rows = [None if one is None else isa.find(one) for one in subject.code]
        starts = function_starts(subject.code, rows, subject.name)
        lines = {slot: line for slot, one in enumerate(subject.code) if one and (line := subject.line(slot))}
        records, shown, btf = b"", b"", 0
        if len(starts) > 1 or lines:
            known = functions.described(starts, subject.prototypes, lines)
            records, shown, btf = known.functions, known.lines, bpf.btf_load(known.types)
            opened.append(btf)
        attach = _ATTACH.get(subject.attach, 0) if subject.type is ProgramType.XDP else 0
        try:
            fd, log = bpf.prog_load(subject.type, code, name=subject.name, license=subject.license, attach_type=attach,
                                    log_level=log_level, btf_fd=btf, functions=records, lines=shown)  # fmt: skip
            opened.append(fd)
            return _verdict(True, log)
        except bpf.Refused as refused:
            if not refused.log:
                return KernelVerdict(False, str(refused), 0, 0)
            return _verdict(False, refused.log)
    finally:
        for fd in opened:
            os.close(fd)


def _verdict(accepted: bool, log: str) -> KernelVerdict:
    sums = re.search(r"processed (\d+) insns .* total_states (\d+)", log)
    return KernelVerdict(accepted, log, int(sums[1]) if sums else 0, int(sums[2]) if sums else 0)


def _create(definition: MapDefinition, opened: list[int]) -> int:
    inner = _create(definition.inner, opened) if definition.inner and definition.type in OF_MAPS else 0
    definition = sized(definition, bpf.possible_cpus())
    lock, types = valuetypes.lock_offset(definition), {}
    if lock is not None:
        types = {"btf_fd": bpf.btf_load(locks.btf(definition, lock)), "btf_key": locks.key_type(definition),
                 "btf_value": locks.VALUE_TYPE}  # fmt: skip
        opened.append(types["btf_fd"])
    fd = bpf.map_create(definition.type, definition.key_size, definition.value_size, definition.max_entries,
                        flags=definition.flags, name=definition.name, inner_map_fd=inner, **types)  # fmt: skip
    opened.append(fd)
    if definition.variables is not None:
        bpf.map_update(fd, bytes(4), bytes(definition.variables.content))
        if definition.flags & MapFlag.RDONLY_PROG:
            bpf.map_freeze(fd)
    return fd


def _linked(subject: Subject, descriptors: dict[str, int]) -> list[Instruction | None]:
    linked = list(subject.code)
    for slot, reference in subject.references.items():
        instruction = linked[slot]
        assert instruction
        src = _MAP_FD if reference.offset is None else _MAP_VALUE
        linked[slot] = replace(instruction, src=src, imm=descriptors[reference.map], next_imm=reference.offset or 0)
    return linked
