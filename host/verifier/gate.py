"""The gate: what the verifier doesn't accept reaches no device, and no device is given what it lacks the means for.

Every device that doesn't verify by itself asks here (driver.py), about the program as it will run it: weak functions
that it doesn't have are absent, and constants are those that lie in its map memory. A verdict is kept by its content,
so that loading a program again costs nothing."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bpfnic.host import listing
from bpfnic.host.structure import check
from bpfnic.host.valuetypes import lock_offset
from bpfnic.host.verifier import limits
from bpfnic.host.verifier.verdict import Subject, verify
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import encode

if TYPE_CHECKING:
    from bpfnic.host.device import Capabilities
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.object import Program
    from bpfnic.host.verifier.refusal import Refusal
    from bpfnic.host.verifier.verdict import StackUse

_KEPT = 256
_verdicts: "OrderedDict[bytes, tuple[Refusal | None, StackUse | None, list[str]]]" = OrderedDict()
"""Why a program is refused or what it uses of the stack, and what no device has for its calls, by `_digest`; the ones
used last."""


def admit(
    program: "Program", maps: "Mapping[str, MapDefinition]", device: "Capabilities", *, unsafe: bool = False
) -> "StackUse | None":
    """What the program uses of the stack, None where nobody asked the verifier. Raises BpfnicError for a program that
    isn't whole and legal, that the device can't run, or (but with `unsafe`) that the verifier doesn't accept: one line
    that names object, program, instruction and line of C, says what is wrong and what would help. `maps`: as they are
    on the device, by name."""
    subject = Subject.on(program, maps, device.helpers)
    check(subject.code, program.name, program_type=program.type, line=program.line)
    if lacking := limits.lacking(subject, device):
        raise BpfnicError(f"{program.path.name}: program {program.name}: {lacking[0]}")
    if unsafe:
        return None
    digest = _digest(subject)
    if digest not in _verdicts:
        verdict = verify(subject)
        _verdicts[digest] = verdict.error, verdict.stack_use, limits.calls_lacking(subject, verdict.map_calls)
    _verdicts.move_to_end(digest)
    while len(_verdicts) > _KEPT:
        _verdicts.popitem(last=False)
    error, stack_use, lacking = _verdicts[digest]
    if error:
        raise BpfnicError(_sentence(program, error))
    if lacking:
        raise BpfnicError(f"{program.path.name}: program {program.name}: {lacking[0]}")
    return stack_use


def _digest(subject: Subject) -> bytes:
    """Of all that the verdict depends on."""
    code = encode(subject.code)
    references = sorted((slot, one.map, one.offset) for slot, one in subject.references.items())
    used = sorted({name for _, name, _ in references})
    described = [_described(subject.maps[name]) for name in used]
    rest = (subject.name, subject.type, subject.license, subject.attach, subject.device_bound,
            sorted(subject.named.items()), references, described,
            [(slot, one.function.number, one.hidden, one.btf.digest)
             for slot, one in sorted(subject.prototypes.items())])  # fmt: skip
    return hashlib.sha256(code + repr(rest).encode()).digest()


def _described(definition: "MapDefinition") -> tuple[object, ...]:
    inner = _described(definition.inner) if definition.inner else None
    return (definition.name, definition.type, definition.key_size, definition.value_size, definition.max_entries,
            definition.flags, definition.constants, inner, lock_offset(definition))  # fmt: skip


def _sentence(program: "Program", error: "Refusal") -> str:
    where = ""
    if error.slot >= 0:
        source = listing.source(program, error.slot)
        where = f", {listing.instruction(program, error.slot)}" + (f" ({source})" if source else "")
    fix = f". What would help: {error.fix}" if error.fix else ""
    return f"{program.path.name}: program {program.name}{where}: {error.why.rstrip('.')}{fix}"
