"""The run of one packet's program: registers, frames, calls, and the order in which it lets others at what it shares.

`Thread` runs it on a `Memory` and with `helpers` that the NIC gives; what the instructions do is in interpreter.py.
`Thread.run` is a generator, so that a scheduler can replay the order in which the hardware let threads at what they
share:

- It yields a `SharedAccess` right before each load, store or atomic on memory that `Memory.shared_parts` calls shared,
  once for each part (the hardware takes a row of 16 bytes at a time, the lower addresses first), and does that part,
  alone, when it is resumed. An atomic is one part, so that nothing comes between its read and its write.
- A helper is a generator function too: `helper(thread)` finds its arguments in `thread.registers[1:6]`, yields before
  what it shares, and returns r0, or a `TailCall`. It may use `yield from thread.load(…)` and `thread.store(…)`.
- Where several results are right and a device chooses one, a helper yields a `Choice` before it asks which
  (helpers.Samples.chosen).
- With `steps`, it also yields a `Retired` after each instruction, so that another machine can be followed.
- It returns r0 of the outermost function, or raises `Trap`.

The scheduler that doesn't care runs it to its end at once: `finish(thread.run(entry))`.

Registers r0 to r5 and r10 are one set; r6 to r9 are a window for each frame, the firmware's included, which keeps what
the same packet last left there. Helpers change r0 alone, a tail call r1. An instruction that traps changes nothing and
does not retire.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Operation
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


class Choice(NamedTuple):
    """A thread is about to ask what a device chose, of the map with this handle."""

    handle: int


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


class Step(NamedTuple):
    """A decoded instruction. `execute(thread)` does it and returns the next slot, or None where the program ends; where
    `suspends`, it is a generator that returns so. `written` is the register that it writes."""

    execute: Callable[["Thread"], Any]
    suspends: bool
    instruction: Instruction
    written: int | None


class Program(Protocol):
    """Where instructions come from."""

    slots: int

    def step(self, pc: int) -> Step:
        """The instruction at `pc`. Raises Trap(PROGRAM_RANGE) outside the store."""


Suspending = Generator[SharedAccess | Choice, None, Any]
Helper = Callable[["Thread"], Generator[SharedAccess | Choice, None, "int | TailCall"]]


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

    def __init__(self, code: Program, memory: Memory, helpers: Mapping[int, Helper], *, budget: int,
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
        self.written: int | None = None
        self.stored: bytes | None = None
        self.frame = 0  # the number of the running function's
        self._callers: list[_Caller] = []
        self._windows = [[0] * 4 for _ in range(addresses.FIRMWARE_FRAME + 1)]  # r6 to r9 of frames that aren't running

    def run(
        self, entry: int, context: int = addresses.CONTEXT, steps: bool = False
    ) -> Generator[SharedAccess | Choice | Retired, None, int]:
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
                self._address, self.stored, self.written = None, None, written
                next_pc = (yield from execute(self)) if suspends else execute(self)
                self.retired += 1
                if steps or self.trace:
                    written = self.written
                    value = 0 if written is None else registers[written]
                    retired = Retired(pc, instruction, written, value, self._address, next_pc, self.stored)
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
        self.registers[1], self.written = self._context, 1
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
