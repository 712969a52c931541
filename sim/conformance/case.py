"""One case, and the program store that runs it.

The memory is the packet: its window has exact ends, takes any alignment, and is what LD_ABS and LD_IND read. The
program stands behind a prologue that puts address and length where the suite wants them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bpfnic.host.image import at_slot, place_frames, place_frames_alone
from bpfnic.host.structure import Code, Limits, check
from bpfnic.spec import addresses, helpers
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import decode, encode
from bpfnic.spec.isa import Row

MEMORY = addresses.PACKET + addresses.HEADROOM
"""Where the memory begins."""

PROGRAM_SLOTS = 65536
MAP_BYTES = 4096  # the least that a NIC has; no case is told where it lies
BUDGET = 1 << 22  # instructions: some seconds, on rtl half a minute, before a program that never ends is given up

_PROLOGUE = "r1 = {address} ll\nr2 = {length}"
_PROLOGUE_SLOTS = 3


@dataclass(frozen=True)
class Case:
    """`program`: its instructions as they are encoded. `memory`: what r1 points at; where it has no bytes, r1 is 0."""

    program: bytes
    memory: bytes = b""


def image(case: Case, executes: Callable[[Row], bool]) -> bytes:
    """The slots from 0 on that run the case. `executes`: which rows the engine has. Raises BpfnicError for what is no
    legal encoding and for what the engine doesn't have."""
    address = MEMORY if case.memory else 0
    prologue = assemble(_PROLOGUE.format(address=address, length=len(case.memory)))
    code = decode(case.program)
    limits = Limits(PROGRAM_SLOTS - _PROLOGUE_SLOTS, executes, frozenset({helpers.RETURN_FIRST}))
    check(code, "conformance", limits=limits)
    return prologue + encode(at_slot(_framed(code), _PROLOGUE_SLOTS))


def _framed(code: Code) -> Code:
    """With the frame sizes that a loader finds, or, in chains that it refuses, with what each function uses: those are
    the verifier's business. A recursion may well end in time; where it doesn't the engine traps."""
    try:
        return place_frames(code, "conformance")
    except BpfnicError:
        return place_frames_alone(code, "conformance")


def fault(cause: Cause, pc: int) -> BpfnicError:
    """The program ended abnormally in slot `pc` of its image."""
    return BpfnicError(f"{cause.name} at instruction {pc - _PROLOGUE_SLOTS}")
