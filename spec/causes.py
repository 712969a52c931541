"""Why a packet ended as aborted. One counter a cause; the number is what the NIC reports."""

from enum import IntEnum


class Cause(IntEnum):
    """Cause of an aborted packet (4 bits). NONE is a program that ended by itself with a verdict of its type."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1  # unknown opcode, reserved field set, register above r10, write to r10
    MEMORY_ACCESS = 2  # address outside every window, or a write to the context
    MISALIGNED = 3  # stack, context or atomic access that is not naturally aligned
    UNSUPPORTED = 4  # an instruction of RFC 9669 whose conformance group this device does not have
    BUDGET = 5  # the instruction budget is spent
    CALL_DEPTH = 6  # more than 8 frames, or more than 512 bytes of stack along the chain
    HELPER = 7  # call of a helper that this device does not have
    MAP = 8  # a helper was given something that is no map of this device
    PROGRAM_RANGE = 9  # the program counter left the program store
    VERDICT = 10  # XDP: the program returned a verdict above XDP_REDIRECT
    REDIRECT = 11  # XDP_REDIRECT without a target, or to an interface that is no port of this device
    PROGRAM = 12  # the program itself returned XDP_ABORTED
