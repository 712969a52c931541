"""The interpreter for RFC 9669, all conformance groups, and the extensions: what each instruction does, in plain
Python.

`Code` is the program store; `Thread` runs one packet's program in it, on a `Memory` and with `helpers` that the NIC
gives. `Thread.run` is a generator, so that a scheduler can replay the order in which the hardware let threads at what
they share:

- It yields a `SharedAccess` right before each load, store or atomic on memory that `Memory.shared_parts` calls shared,
  once for each part (the hardware takes a row of 16 bytes at a time, the lower addresses first), and does that part,
  alone, when it is resumed. An atomic is one part, so that nothing comes between its read and its write.
- A helper is a generator function too: `helper(thread)` finds its arguments in `thread.registers[1:6]`, yields before
  what it shares, and returns r0, or a `TailCall`. It may use `yield from thread.load(…)` and `thread.store(…)`.
- With `steps`, it also yields a `Retired` after each instruction, so that another machine can be followed.
- It returns r0 of the outermost function, or raises `Trap`.

The scheduler that doesn't care runs it to its end at once: `finish(thread.run(entry))`.

Registers r0 to r5 and r10 are one set; r6 to r9 are a window for each frame, the firmware's included, which keeps what
the same packet last left there. Helpers change r0 alone, a tail call r1. An instruction that traps changes nothing and
does not retire.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

from bpfnic.sim.golden.arithmetic import ARITHMETIC, ATOMIC, CONDITION, signed
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, WIDE_OPCODE, Instruction, decode
from bpfnic.spec.isa import Legal, Operation, Row
from bpfnic.spec.maps import MAX_TAIL_CALLS

MASK = {width: (1 << width) - 1 for width in (8, 16, 32, 64)}


class Trap(Exception):
    """The program ended abnormally. `cause` says why; `pc`, the slot of the instruction that did it, is put in by the
    interpreter (helpers and memories raise Trap(cause))."""

    def __init__(self, cause: Cause, pc: int | None = None):
        super().__init__(cause, pc)
        self.cause = cause
        self.pc = pc

    def __str__(self) -> str:
        return self.cause.name if self.pc is None else f"{self.cause.name} at instruction {self.pc}"


class SharedAccess(NamedTuple):
    """What a thread is about to do to shared memory: an LDX, STX or atomic operation, address, bytes; or a call that
    looks at or changes the keys of the map with this handle."""

    operation: Operation
    address: int
    size: int


class TailCall(NamedTuple):
    """Returned by a helper: go on at slot `entry`, in the same frame. None: there is no program to go on with, and so
    the program goes on with its next instruction, as it does where the packet made 33 tail calls already. Either way r1
    is the context, and every other register and the stack are what they were."""

    entry: int | None


class Retired(NamedTuple):
    """One retired instruction, as the trace port shows it: the register that it wrote (None for none; r10 of calls is
    not shown) and its value, the address of its memory access or None, the next slot, None after the last, and the
    bytes that a store stored."""

    pc: int
    instruction: Instruction
    register: int | None
    value: int
    address: int | None
    next_pc: int | None
    stored: bytes | None = None


class Memory(Protocol):
    """What a program can reach. Addresses are below 2**32, values unsigned and little-endian."""

    privileged: bool
    """The firmware's frame runs, which reaches the firmware stack too."""

    def shared_parts(self, address: int, size: int) -> list[int]:
        """Bytes of each part of a shared access, lower addresses first; empty for what this thread alone reaches."""

    def load(self, address: int, size: int, aligned: bool = True) -> int:
        """Raises Trap(MEMORY_ACCESS) outside every window, Trap(MISALIGNED) where the window asks for alignment and so
        does the access (an instruction's is `aligned`, a helper's need not be)."""

    def store(self, address: int, size: int, value: int, aligned: bool = True) -> None:
        """Raises Trap as `load` does."""

    def check_aligned(self, address: int, size: int, write: bool) -> None:
        """Raises Trap where the access can't be, or isn't naturally aligned, whatever the window."""

    def load_packet(self, offset: int, size: int) -> int | None:
        """For the packet group: the bytes at `offset` (signed) from the packet's start as a big-endian number, None
        where they aren't all in the packet."""


Suspending = Generator[SharedAccess, None, Any]
Helper = Callable[["Thread"], Generator[SharedAccess, None, "int | TailCall"]]


class Step(NamedTuple):
    """A decoded instruction. `execute(thread)` does it and returns the next slot, or None where the program ends; where
    `suspends`, it is a generator that returns so. `written` is the register that it writes."""

    execute: Callable[["Thread"], Any]
    suspends: bool
    instruction: Instruction
    written: int | None


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


class _Caller(NamedTuple):
    """Where a function's exit goes back to: the next instruction, the caller's frame and its r10."""

    return_pc: int
    frame: int
    pointer: int


class Thread:
    """The run of one packet's program.

    `budget` is how many instructions may retire, or begin again (where a lock isn't free). `trace`, if given, is called
    with each `Retired`. `registers` holds r0 to r10 of the running frame and stays readable after the end and after a
    trap, as do `pc` and `retired`, the count of retired instructions."""

    def __init__(self, code: Code, memory: Memory, helpers: Mapping[int, Helper], *, budget: int,
                 trace: Callable[[Retired], None] | None = None):  # fmt: skip
        self.code = code
        self.memory = memory
        self.helpers = helpers
        self.budget = budget
        self.trace = trace
        self.registers = [0] * isa.REGISTERS
        self.pc = 0
        self.retired = 0
        self.repeated = 0  # instructions that began again
        self.tail_calls = 0
        self._context = 0
        # Of the running instruction: the address of its memory access, the register that it writes, and what it stores.
        self._address: int | None = None
        self._written: int | None = None
        self._stored: bytes | None = None
        self.frame = 0  # the number of the running function's
        self._callers: list[_Caller] = []
        self._windows = [[0] * 4 for _ in range(addresses.FIRMWARE_FRAME + 1)]  # r6 to r9 of frames that aren't running

    def run(
        self, entry: int, context: int = addresses.CONTEXT, steps: bool = False
    ) -> Generator[SharedAccess | Retired, None, int]:
        """Runs from slot `entry` with r1 = `context`; see the module's text for what it yields, returns and raises. Of
        two causes to trap, the spent budget comes before what is found at `pc`."""
        registers, code = self.registers, self.code
        registers[1] = self._context = context
        registers[isa.FRAME_POINTER] = addresses.STACK_TOP
        next_pc: int | None = entry
        try:
            while next_pc is not None:
                pc = self.pc = next_pc
                if self.retired + self.repeated >= self.budget:
                    raise Trap(Cause.BUDGET)
                execute, suspends, instruction, written = code.step(pc)
                self._address, self._stored, self._written = None, None, written
                next_pc = (yield from execute(self)) if suspends else execute(self)
                self.retired += 1
                if steps or self.trace:
                    written = self._written
                    value = 0 if written is None else registers[written]
                    retired = Retired(pc, instruction, written, value, self._address, next_pc, self._stored)
                    if self.trace:
                        self.trace(retired)
                    if steps:
                        yield retired
        except Trap as trap:
            trap.pc = self.pc
            raise
        return registers[0]

    def begin_again(self) -> None:
        """The running instruction begins again, and retires later. Raises Trap(BUDGET) where none is left for that."""
        self.repeated += 1
        if self.retired + self.repeated >= self.budget:
            raise Trap(Cause.BUDGET)

    @property
    def depth(self) -> int:
        """Callers of the running function."""
        return len(self._callers)

    def load(self, address: int, size: int) -> Generator[SharedAccess, None, int]:
        """The unsigned number of `size` bytes at `address`, part by part where it is shared."""
        parts = self.memory.shared_parts(address, size)
        if not parts:
            return self.memory.load(address, size)
        value = done = 0
        for part in parts:
            yield SharedAccess(Operation.LDX, address + done, part)
            value |= self.memory.load(address + done, part) << 8 * done
            done += part
        return value

    def store(self, address: int, size: int, value: int) -> Generator[SharedAccess, None, None]:
        """Stores the low `size` bytes of `value`, part by part where the memory is shared."""
        parts = self.memory.shared_parts(address, size)
        if not parts:
            self.memory.store(address, size, value & MASK[8 * size])
            return
        for part in parts:
            yield SharedAccess(Operation.STX, address, part)
            self.memory.store(address, part, value & (1 << 8 * part) - 1)
            address += part
            value >>= 8 * part

    def effective_address(self, base: int, offset: int) -> int:
        """base + offset, computed in 64 bits; the program sees 32-bit addresses. Raises Trap(MEMORY_ACCESS) beyond."""
        address = self._address = base + offset & MASK[64]
        if address > MASK[32]:
            raise Trap(Cause.MEMORY_ACCESS)
        return address

    def enter(self, target: int, frame_bytes: int) -> int:
        """A local call: the callee's stack frame begins where the caller's `frame_bytes` end. Raises Trap(CALL_DEPTH)
        beyond 8 frames or the stack's 512 bytes."""
        top = self.registers[isa.FRAME_POINTER] - frame_bytes
        if self.frame + 1 >= addresses.FRAMES or top < addresses.STACK:
            raise Trap(Cause.CALL_DEPTH)
        self._callers.append(self._caller())
        self._switch(self.frame + 1, top)
        return target

    def enter_firmware(self, target: int) -> int:
        """The call of a privileged routine. Raises Trap(CALL_DEPTH) from another one."""
        if self.frame == addresses.FIRMWARE_FRAME:
            raise Trap(Cause.CALL_DEPTH)
        self._callers.append(self._caller())
        self._switch(addresses.FIRMWARE_FRAME, addresses.FIRMWARE_STACK_TOP)
        return target

    def _caller(self) -> _Caller:
        return _Caller(self.pc + 1, self.frame, self.registers[isa.FRAME_POINTER])

    def _switch(self, frame: int, pointer: int) -> None:
        """Another frame runs."""
        registers = self.registers
        self._windows[self.frame], registers[6:10] = registers[6:10], self._windows[frame]
        registers[isa.FRAME_POINTER] = pointer
        self.frame = frame
        self.memory.privileged = frame == addresses.FIRMWARE_FRAME

    def call(self, number: int) -> Suspending:
        """Helper `number`, and what comes behind it. Raises Trap(HELPER) if there is none."""
        if number not in self.helpers:
            raise Trap(Cause.HELPER)
        result = yield from self.helpers[number](self)
        self._address = None  # what a helper reads is not the call's access
        if isinstance(result, TailCall):
            return self.tail_call(result.entry)
        self.registers[0] = result & MASK[64]
        return self.pc + 1

    def tail_call(self, entry: int | None) -> int:
        """Where a tail call goes on. The bits of `entry` above the program store's size are not looked at."""
        self.registers[1], self._written = self._context, 1
        if entry is None or self.tail_calls == MAX_TAIL_CALLS:
            return self.pc + 1
        self.tail_calls += 1
        return entry % self.code.slots

    def leave(self) -> int | None:
        """EXIT: back to the caller, or None from the outermost function."""
        if not self._callers:
            return None
        caller = self._callers.pop()
        self._switch(caller.frame, caller.pointer)
        return caller.return_pc


def finish(run: Generator[Any, None, int]) -> int:
    """Runs a thread, or a helper, to its end without regard to order, and returns what it returns."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


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
            thread._written = 0
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
        thread._stored = value.to_bytes(size, "little")
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
