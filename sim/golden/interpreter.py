"""The interpreter for RFC 9669, all conformance groups, and the extensions: what each instruction does to the thread
(thread.py) that executes it, in plain Python. `Code` is the program store.
"""

from collections.abc import Callable
from typing import Any

from bpfnic.sim.golden.arithmetic import ARITHMETIC, ATOMIC, CONDITION, signed
from bpfnic.sim.golden.thread import MASK, SharedAccess, Step, Suspending, Thread, Trap
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, WIDE_OPCODE, Instruction, decode
from bpfnic.spec.isa import Legal, Operation, Row


class Code:
    """The program store: `slots` 8-byte slots, zero (an illegal instruction) where nothing was written. Instructions
    that the device doesn't execute trap as UNSUPPORTED. Each is decoded when it is first reached."""

    def __init__(self, slots: int, executes: Callable[[Row], bool] = lambda row: True):
        self.executes = executes
        self.slots = slots
        self._bytes = bytearray(slots * SLOT_BYTES)
        self._steps: list[Step | None] = [None] * slots

    def write(self, slot: int, code: bytes) -> None:
        """Replaces the slots from `slot` on. Raises BpfnicError if `code` isn't whole slots or leaves the store."""
        count, rest = divmod(len(code), SLOT_BYTES)
        if rest or slot < 0 or slot + count > len(self._steps):
            raise BpfnicError(f"{len(code)} bytes at slot {slot} do not fit the {len(self._steps)} program slots")
        self._bytes[slot * SLOT_BYTES : slot * SLOT_BYTES + len(code)] = code
        before = max(slot - 1, 0)  # may hold the first half of a wide instruction
        self._steps[before : slot + count] = [None] * (slot + count - before)

    def read(self, slot: int) -> bytes:
        """The 8 bytes of a slot."""
        return bytes(self._bytes[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES])

    def step(self, pc: int) -> Step:
        """The instruction at `pc`. Raises Trap(PROGRAM_RANGE) outside the store."""
        if not 0 <= pc < len(self._steps):
            raise Trap(Cause.PROGRAM_RANGE)
        step = self._steps[pc]
        if step is None:
            step = self._steps[pc] = self._decode(pc)
        return step

    def _decode(self, pc: int) -> Step:
        start = pc * SLOT_BYTES
        slots = 2 if self._bytes[start] == WIDE_OPCODE else 1
        if pc + slots > len(self._steps):
            raise Trap(Cause.PROGRAM_RANGE)
        try:
            instruction = decode(bytes(self._bytes[start : start + slots * SLOT_BYTES]))[0]
            assert instruction is not None
            row = isa.find(instruction)
        except BpfnicError:
            return Step(_trap(Cause.ILLEGAL_INSTRUCTION), False, Instruction(self._bytes[start]), None)
        if not self.executes(row):
            return Step(_trap(Cause.UNSUPPORTED), False, instruction, None)
        build = _BUILDERS.get(row.operation, _arithmetic)
        return Step(build(row, instruction), build in _SUSPENDING, instruction, _written(row, instruction))


def _written(row: Row, instruction: Instruction) -> int | None:
    """The register that an instruction writes, r10 of calls left out."""
    if row.dst is Legal.WRITTEN:
        return instruction.dst
    if row.src is Legal.WRITTEN:
        return instruction.src
    writes_r0 = (Operation.ATOMIC_CMPXCHG, Operation.CALL_HELPER, Operation.LD_ABS, Operation.LD_IND)
    return 0 if row.operation in writes_r0 else None


# One function for each kind of instruction: given row and instruction, it returns what executes it.


def _trap(cause: Cause) -> Callable[[Thread], int]:
    def execute(thread: Thread) -> int:
        raise Trap(cause)

    return execute


def _arithmetic(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    dst, src, width, mask = instruction.dst, instruction.src, row.width, MASK[row.width]
    constant = instruction.imm & mask
    compute = ARITHMETIC[row.operation]

    def with_register(thread: Thread) -> int:
        registers = thread.registers
        registers[dst] = compute(registers[dst] & mask, registers[src] & mask, width) & mask
        return thread.pc + 1

    def with_constant(thread: Thread) -> int:
        registers = thread.registers
        registers[dst] = compute(registers[dst] & mask, constant, width) & mask
        return thread.pc + 1

    return with_register if row.register_operand else with_constant


def _move_extended(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    """MOVSX: sign extends the low `offset` bits to the operation's width; a width of 32 zeroes the upper half."""
    dst, src, bits, mask = instruction.dst, instruction.src, instruction.offset, MASK[row.width]

    def execute(thread: Thread) -> int:
        thread.registers[dst] = signed(thread.registers[src], bits) & mask
        return thread.pc + 1

    return execute


def _constant(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    dst, constant = instruction.dst, instruction.imm64

    def execute(thread: Thread) -> int:
        thread.registers[dst] = constant
        return thread.pc + 2

    return execute


def _jump(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    """JA: by `offset` in class JMP, by `imm` in class JMP32."""
    distance = 1 + (instruction.offset if row.offset is Legal.BRANCH else instruction.imm)
    return lambda thread: thread.pc + distance


def _branch(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    dst, src, width, mask = instruction.dst, instruction.src, row.width, MASK[row.width]
    constant, distance = instruction.imm & mask, 1 + instruction.offset
    taken = CONDITION[row.operation]

    def with_register(thread: Thread) -> int:
        registers = thread.registers
        return thread.pc + (distance if taken(registers[dst] & mask, registers[src] & mask, width) else 1)

    def with_constant(thread: Thread) -> int:
        return thread.pc + (distance if taken(thread.registers[dst] & mask, constant, width) else 1)

    return with_register if row.register_operand else with_constant


def _may_goto(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    """Jumps once less than half of the budget is left (isa.Group.MAY_GOTO)."""
    distance = 1 + instruction.offset

    def execute(thread: Thread) -> int:
        remaining = thread.budget - thread.retired - thread.repeated
        return thread.pc + (distance if remaining < thread.budget >> 1 else 1)

    return execute


def _call_local(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    distance, frame_bytes = 1 + instruction.imm, instruction.offset or isa.DEFAULT_FRAME_BYTES
    return lambda thread: thread.enter(thread.pc + distance, frame_bytes)


def _call_firmware(row: Row, instruction: Instruction) -> Callable[[Thread], int]:
    distance = 1 + instruction.imm
    return lambda thread: thread.enter_firmware(thread.pc + distance)


def _call_register(row: Row, instruction: Instruction) -> Callable[[Thread], Suspending]:
    """callx: of the function at a code address, or of the helper of that number."""
    dst, frame_bytes = instruction.dst, instruction.offset or isa.DEFAULT_FRAME_BYTES

    def execute(thread: Thread) -> Suspending:
        value = thread.registers[dst]
        if not addresses.CODE <= value < addresses.CODE + addresses.CODE_BYTES:
            thread.written = 0
            return (yield from thread.call(value))
        slot, rest = divmod(value - addresses.CODE, addresses.CODE_SLOT_BYTES)
        return thread.enter(-1 if rest else slot, frame_bytes)  # between two slots is outside the store

    return execute


def _call_helper(row: Row, instruction: Instruction) -> Callable[[Thread], Suspending]:
    return lambda thread: thread.call(instruction.imm)


def _exit(row: Row, instruction: Instruction) -> Callable[[Thread], int | None]:
    return Thread.leave


def _load(row: Row, instruction: Instruction) -> Callable[[Thread], Suspending]:
    dst, src, offset, width = instruction.dst, instruction.src, instruction.offset, row.width
    extends, ordered = row.operation is Operation.LDXS, row.operation is Operation.LOAD_ACQUIRE

    def execute(thread: Thread) -> Suspending:
        address = thread.effective_address(thread.registers[src], offset)
        if ordered:
            thread.memory.check_aligned(address, width // 8, write=False)
        value = yield from thread.load(address, width // 8)
        thread.registers[dst] = signed(value, width) & MASK[64] if extends else value
        return thread.pc + 1

    return execute


def _store(row: Row, instruction: Instruction) -> Callable[[Thread], Suspending]:
    """ST stores `imm`, sign extended to 64 bits, the others store `src`."""
    dst, src, offset, size = instruction.dst, instruction.src, instruction.offset, row.width // 8
    constant = instruction.imm if row.operation is Operation.ST else None
    ordered = row.operation is Operation.STORE_RELEASE

    def execute(thread: Thread) -> Suspending:
        registers = thread.registers
        address = thread.effective_address(registers[dst], offset)
        if ordered:
            thread.memory.check_aligned(address, size, write=True)
        value = (registers[src] if constant is None else constant) & MASK[row.width]
        yield from thread.store(address, size, value)
        thread.stored = value.to_bytes(size, "little")
        return thread.pc + 1

    return execute


def _atomic(row: Row, instruction: Instruction) -> Callable[[Thread], Suspending]:
    """Read, compute and write as one. With fetch the old value goes to `src`, of compare and exchange always to r0;
    32-bit ones zero the register's upper half."""
    dst, src, offset, size, mask = instruction.dst, instruction.src, instruction.offset, row.width // 8, MASK[row.width]
    operation, fetched = row.operation, _written(row, instruction)

    def execute(thread: Thread) -> Suspending:
        registers, memory = thread.registers, thread.memory
        address = thread.effective_address(registers[dst], offset)
        memory.check_aligned(address, size, write=True)
        if memory.shared_parts(address, size):
            yield SharedAccess(operation, address, size)
        old, operand = memory.load(address, size), registers[src] & mask
        if operation is Operation.ATOMIC_CMPXCHG:
            new = operand if old == registers[0] & mask else old
        else:
            new = ATOMIC[operation](old, operand) & mask
        memory.store(address, size, new)
        if fetched is not None:
            registers[fetched] = old
        return thread.pc + 1

    return execute


def _load_packet(row: Row, instruction: Instruction) -> Callable[[Thread], int | None]:
    """LD_ABS, LD_IND: the packet's bytes at `imm`, or at src + imm in 32 bits, from network to host order into r0. As
    in Linux (net/core/filter.c bpf_gen_ld_abs: r0 = 0, EXIT), a read outside the packet returns 0 from the function:
    that ends the program only where no function called."""
    src, imm, size = instruction.src, instruction.imm, row.width // 8
    indirect = row.operation is Operation.LD_IND

    def execute(thread: Thread) -> int | None:
        registers = thread.registers
        value = thread.memory.load_packet(signed(registers[src] + imm, 32) if indirect else imm, size)
        registers[0] = value or 0
        return thread.leave() if value is None else thread.pc + 1

    return execute


_BUILDERS: dict[Operation, Callable[[Row, Instruction], Callable[[Thread], Any]]] = {
    Operation.MOVSX: _move_extended,
    Operation.LDDW: _constant,
    Operation.LDDW_REFERENCE: lambda row, instruction: _trap(Cause.ILLEGAL_INSTRUCTION),  # the loader resolves them
    Operation.JA: _jump,
    **dict.fromkeys(CONDITION, _branch),
    Operation.MAY_GOTO: _may_goto,
    Operation.CALL_LOCAL: _call_local,
    Operation.CALL_FIRMWARE: _call_firmware,
    Operation.CALLX: _call_register,
    Operation.CALL_HELPER: _call_helper,
    Operation.CALL_BTF: lambda row, instruction: _trap(Cause.HELPER),  # no kernel, no kernel functions
    Operation.EXIT: _exit,
    **dict.fromkeys((Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE), _load),
    **dict.fromkeys((Operation.ST, Operation.STX, Operation.STORE_RELEASE), _store),
    **dict.fromkeys((*ATOMIC, Operation.ATOMIC_CMPXCHG), _atomic),
    **dict.fromkeys((Operation.LD_ABS, Operation.LD_IND), _load_packet),
}

_SUSPENDING = (_call_helper, _call_register, _load, _store, _atomic)
