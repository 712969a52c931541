"""The golden NIC goes along with a device: each of its threads does an instruction when the device's did, and a shared
access when the device's was granted. See host/lockstep.py for the contract."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bpfnic.host.device import Arrival
from bpfnic.host.lockstep import (
    BEGAN_DEVICE_BIT,
    BEGAN_HOOK_BIT,
    BEGAN_MASK,
    NO_ADDRESS,
    NO_REGISTER,
    PAST,
    Difference,
    Happening,
    Parted,
    State,
    Step,
)
from bpfnic.sim.golden.helpers import Clone, Helpers
from bpfnic.sim.golden.memory import Buffer
from bpfnic.sim.golden.nic import GoldenNic
from bpfnic.sim.golden.outcome import Outcome, Stage
from bpfnic.sim.golden.thread import Choice, Memory, Retired, SharedAccess, Trap
from bpfnic.spec import addresses, isa
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Operation
from bpfnic.spec.programs import Hook, ProgramType
from bpfnic.spec.registers import ENTRY_TYPES

Found = SharedAccess | Choice | Retired | Outcome
"""Where a thread stands: before an access, or the device's answer, behind an instruction, or behind its end."""

RETIRED, PENDING, RESULT, SHARED, BEGAN, ENDED, WRITTEN, EMITTED, CLONED = (int(kind) for kind in Happening)


class Ended(NamedTuple):
    """What a program came to. word: as it is attached there."""

    stage: Stage
    word: int
    cpu: int
    outcome: Outcome
    instructions: int


_HOOKS = tuple(Hook)


def began_value(program_type: ProgramType, stage: Stage) -> int:
    """What BEGAN says of a program."""
    place = _HOOKS.index(stage.hook) << BEGAN_HOOK_BIT | stage.device << BEGAN_DEVICE_BIT
    return ENTRY_TYPES.index(program_type) | place


class Made(NamedTuple):
    """A clone that a packet's program made."""

    clone: Clone
    length: int  # in bytes, when it was made
    parent: int
    time_ns: int


class Write(NamedTuple):
    """What a shared access wrote. `seen`: a device shows it (a CMPXCHG that changes nothing may not write at all)."""

    address: int
    value: int
    seen: bool


def write_of(nic: GoldenNic, access: SharedAccess) -> Write | None:
    """What an access that was made just now wrote to map memory."""
    if access.operation in (Operation.LDX, Operation.CALL_HELPER):
        return None
    start = access.address - addresses.MAP_VALUES
    value = int.from_bytes(nic.map_memory[start : start + access.size], "little")
    return Write(access.address, value, access.operation is not Operation.ATOMIC_CMPXCHG)


class Lockstep:
    """Compares a device, event by event. `packets`, what `ended` of each, and `clones` by number of the packet, as in a
    Recording; `refused`: lengths of clones that there was no buffer for."""

    def __init__(self, nic: GoldenNic, arrivals: Sequence[Arrival]):
        self.nic = nic
        self.arrivals = arrivals
        self.ended: dict[int, list[Ended]] = {}
        self.packets: dict[int, _Packet] = {}
        self.clones: dict[int, Made] = {}
        self.refused: list[int] = []
        self._running: dict[int, _Program] = {}  # by CPU

    def see(self, events: Iterable[tuple]) -> None:
        """As Follower.see. Raises Parted."""
        running = self._running
        for event in events:
            kind, cpu = event[6], event[7]
            if kind == RETIRED:
                running[cpu].retire(event)
            elif kind == SHARED:
                running[cpu].share(event)
            elif kind == PENDING:
                running[cpu].pending = event
            elif kind == RESULT:
                running[cpu].finish(event)
            elif kind == WRITTEN:
                running[cpu].wrote(event)
            elif kind == BEGAN:
                running[cpu] = self._begin(event)
            elif kind == CLONED:
                self._clone(running[cpu], event)
            elif kind == EMITTED:
                self._emit(event)
            else:
                program = running.pop(cpu)
                ended = program.end(event)
                self.ended.setdefault(event[3], []).append(ended)
                self.packets[event[3]].end(program, ended.outcome)
                self.refused += program.helpers.refused

    def _begin(self, event: tuple) -> "_Program":
        number, value = event[3], event[1]
        if number not in self.packets:
            if number < len(self.arrivals):
                arrival = self.arrivals[number]
                buffer = Buffer(arrival.data, self.nic.size.buffer_bytes)
                self.packets[number] = _Packet(buffer, arrival.interface, 0)
            else:
                clone = self.clones[number].clone
                self.packets[number] = _Packet(clone.buffer, clone.iif, clone.hops)
        hook = _HOOKS[value >> BEGAN_HOOK_BIT & BEGAN_MASK]
        stage = Stage(hook, value >> BEGAN_DEVICE_BIT & BEGAN_MASK)
        return _Program(self.nic, stage, ENTRY_TYPES[value & BEGAN_MASK], self.packets[number], event)

    def _clone(self, program: "_Program", event: tuple) -> None:
        parent = program.packet
        time_ns = self.clones[parent].time_ns if parent in self.clones else self.arrivals[parent].time_ns
        clone = program.clone(event)
        self.clones[event[3]] = Made(clone, len(clone.buffer.frame), parent, time_ns)

    def _emit(self, event: tuple) -> None:
        """The device let a record leave: so does the reference."""
        clock, index = event[0], event[1]
        if self.nic.ready(index):
            self.nic.emit(index)
            return
        nowhere = State((0,) * isa.REGISTERS, None, 0)
        raise Parted(
            Difference(
                what=f"record of map {index}",
                actual="leaves",
                expected="there is none that is whole",
                packet=0,
                cpu=0,
                clock=clock,
                number=0,
                entry=0,
                pc=0,
                instruction=None,
                actual_state=nowhere,
                expected_state=nowhere,
                past=(),
            )
        )


class _Packet:
    """A packet between its programs: where it came in, how often tc programs sent it on, and the last program."""

    def __init__(self, buffer: Buffer, iif: int, hops: int):
        self.buffer = buffer
        self.iif = iif
        self.hops = hops
        self.last: _Program | None = None
        self.program_type: ProgramType | None = None  # of the last one, and the words that it left
        self.skb = b""

    def end(self, program: "_Program", outcome: Outcome) -> None:
        """A program ended."""
        self.last, self.program_type, self.skb = program, program.program_type, program.helpers.memory.skb()
        self.hops += outcome.sent
        self.iif = self.iif if outcome.iif is None else outcome.iif

    def word(self, nic: GoldenNic, stage: Stage) -> int:
        """As the program is attached that begins there now."""
        last = self.last
        if last and last.stage == stage and last.chained:
            return nic.following(last.word)
        return nic.entry(stage)


class _Program:
    """One packet's program: the reference's thread, which is as far as the device's, or a part of an instruction
    further (it has made the shared accesses that the device made)."""

    def __init__(self, nic: GoldenNic, stage: Stage, program_type: ProgramType, packet: _Packet, began: tuple):
        _, _, _, self.packet, self.entry, _, _, self.cpu, _, _ = began
        self.nic = nic
        self.stage, self.program_type = stage, program_type
        self.word, self.chained = packet.word(nic, stage), False
        of_tc = packet.program_type is ProgramType.SCHED_CLS
        self.helpers: Helpers
        self.thread, self.helpers = nic.prepare(
            stage.device, program_type, packet.buffer, self.cpu, self, packet.iif, packet.hops,
            packet.skb if of_tc else b"",
        )  # fmt: skip
        self.program = nic.execute(stage, self.entry, program_type, self.thread, self.helpers, steps=True)
        self.slot_mask = (1 << (nic.size.program_slots - 1).bit_length()) - 1  # what a device shows of a slot
        self.found: Found | None = None  # where the thread stands, if further
        self.before: list[int] = []  # registers before the instruction
        self.pending: tuple | None = None
        self.writes: Write | None = None  # by the last shared access; the device hasn't yet
        self.sample = 0
        self.past: deque[tuple[tuple, Retired]] = deque(maxlen=PAST - 1)

    # -- what no program can compute is what the device says --

    def clock(self) -> int:
        return self.sample

    def random(self) -> int:
        return self.sample & 0xFFFFFFFF

    def arrival(self) -> int:
        return self.sample

    def chosen(self, mine: int) -> int:
        return self.sample

    def room(self) -> bool:
        return self.sample == 0

    # -- events --

    def share(self, event: tuple) -> None:
        """The device was granted a shared access: make it."""
        access = self.found or self._begin()
        if type(access) is not SharedAccess:
            raise self._parted(event, "access to map memory", "makes one", self._does(access))
        self._see_to_writes(event)
        self._proceed()
        self.writes = write_of(self.nic, access)

    def clone(self, event: tuple) -> Clone:
        """The device made a clone, within a call whose result comes later: make it."""
        self.sample = 0
        found = self.found or self._begin()
        if not self.helpers.clones:
            raise self._parted(event, "clone", "makes one", self._does(found))
        return self.helpers.clones.pop()

    def wrote(self, event: tuple) -> None:
        """The device wrote map memory."""
        value, address = event[1], event[2]
        write, self.writes = self.writes, None
        if write is None or (address, value) != write[:2]:
            expected = "nothing" if write is None else f"{write.value:#x} at {write.address:#x}"
            raise self._parted(event, "written to map memory", f"{value:#x} at {address:#x}", expected)

    def _see_to_writes(self, event: tuple) -> None:
        """Behind an access, the device has written what the reference has."""
        write, self.writes = self.writes, None
        if write is not None and write.seen:
            raise self._parted(event, "written to map memory", "nothing", f"{write.value:#x} at {write.address:#x}")

    def retire(self, event: tuple) -> None:
        """The device retired an instruction: do it, and compare."""
        _, value, address, _, pc, next_pc, _, _, register, _ = event
        self.sample = value
        found = self.found or self._begin()
        if type(found) is Choice:
            found = self._proceed()
        if type(found) is not Retired:
            raise self._parted(event, "instruction", "retires it", self._does(found))
        self.found = None
        at, _, written, result, accessed, onward, stored = found
        if pc != at:
            raise self._parted(event, "pc", self._slot(pc), self._slot(at), found)
        if written is None:
            if register != NO_REGISTER:
                raise self._parted(event, f"r{register}", f"{value:#x}", "does not write it", found)
        elif register != written:
            actual = "writes no register" if register == NO_REGISTER else f"writes r{register} = {value:#x}"
            raise self._parted(event, "register", actual, f"writes r{written} = {result:#x}", found)
        elif value != result:
            raise self._parted(event, f"r{written}", f"{value:#x}", f"{result:#x}", found)
        if accessed is not None:
            if address != accessed:
                actual = "none" if address == NO_ADDRESS else f"{address:#x}"
                raise self._parted(event, "address", actual, f"{accessed:#x}", found)
            if stored is not None:
                self._compare_store(event, found, stored)
        if onward is not None and next_pc != onward & self.slot_mask:
            raise self._parted(event, "next pc", self._slot(next_pc), self._slot(onward), found)
        self.past.append((event, found))

    def finish(self, event: tuple) -> None:
        """The result of an instruction that was pending."""
        self._see_to_writes(event)
        if self.pending is None:
            raise self._parted(event, "result", "gives one", "has retired no instruction that waits for one")
        clock, value, address, packet, pc, next_pc, _, cpu, _, _ = self.pending
        register = event[8]
        self.pending = None
        self.retire((clock, event[1] if register != NO_REGISTER else value, address, packet, pc, next_pc, RESULT, cpu,
                     register, 0))  # fmt: skip

    def end(self, event: tuple) -> Ended:
        """The device's program ended."""
        self._see_to_writes(event)
        found = self.found or self._begin()
        verdict, cause = event[1], Cause(event[9])
        if type(found) is not Outcome or (found.verdict is None) is (cause is Cause.NONE):
            raise self._parted(event, "end", _ending(None if cause else verdict, cause), self._does(found))
        if found.verdict is None and found.cause is not cause:
            raise self._parted(event, "cause", cause.name, found.cause.name)
        if found.verdict is not None and found.verdict != verdict:
            raise self._parted(event, "verdict", f"{verdict:#x}", f"{found.verdict:#x}")
        self.chained = found.chained
        return Ended(self.stage, self.word, self.cpu, found, self.thread.retired)

    # -- the reference's thread --

    def _begin(self) -> Found:
        """Do the next instruction, up to its first shared access or to its end."""
        self.before = self.thread.registers[:]
        return self._proceed()

    def _proceed(self) -> Found:
        try:
            self.found = next(self.program)
        except StopIteration as end:
            self.found = end.value
        return self.found

    def _compare_store(self, event: tuple, found: Retired, stored: bytes) -> None:
        """What was stored; of an access that crosses a row of map memory the device shows the second part."""
        shown = last_part(self.thread.memory, found)
        first = len(stored) - len(shown)
        actual, expected = event[1] & (1 << 8 * len(shown)) - 1, int.from_bytes(shown, "little")
        if actual != expected:
            what = f"stored, byte {first} and on" if first else "stored"
            raise self._parted(event, what, f"{actual:#x}", f"{expected:#x}", found)

    # -- the difference --

    def _slot(self, slot: int) -> str:
        return f"instruction {slot - self.entry}"

    def _does(self, found: Found) -> str:
        match found:
            case SharedAccess(operation, address, size):
                return f"makes an access to map memory ({operation.name}, {size} bytes at {address:#x})"
            case Choice():
                return "waits for an answer"
            case Retired():
                return f"retires {self._slot(found.pc)}: {disassemble(found.instruction)}"
            case Outcome():
                return _ending(found.verdict, found.cause)

    def _parted(
        self, event: tuple, what: str, actual: str, expected: str, retired: Retired | None = None
    ) -> Parted:
        clock, value, _, _, at, next_pc, kind, _, register, _ = event
        thread = self.thread
        ours, theirs = list(thread.registers), thread.registers
        if retired is not None and retired.register is not None:
            ours[retired.register] = self.before[retired.register]
        retires = kind in (RETIRED, RESULT)
        if retires and register != NO_REGISTER:
            ours[register] = value
        goes_to = {RETIRED: next_pc, RESULT: next_pc, ENDED: None}.get(kind, thread.pc)
        onward = None if isinstance(self.found, Outcome) else thread.pc
        if retired is not None:
            onward = retired.next_pc
            goes_to = None if onward is None and at == retired.pc else next_pc
        return Parted(
            Difference(
                what=what,
                actual=actual,
                expected=expected,
                packet=self.packet,
                cpu=self.cpu,
                clock=clock,
                number=thread.retired - (type(retired or self.found) is Retired),
                entry=self.entry,
                pc=thread.pc,
                instruction=self._instruction(thread.pc),
                actual_state=State(tuple(ours), goes_to, thread.depth),
                expected_state=State(tuple(theirs), onward, thread.depth),
                past=tuple(
                    Step(done[0], model.pc, model.instruction, done[8], done[1], done[2], model.stored)
                    for done, model in self.past
                ),
            )
        )

    def _instruction(self, pc: int) -> Instruction | None:
        try:
            return self.nic.code.step(pc).instruction
        except Trap:
            return None


def _ending(verdict: int | None, cause: Cause) -> str:
    return f"ends the program with {cause.name}" if verdict is None else f"has ended the program with {verdict:#x}"


def last_part(memory: Memory, store: Retired) -> bytes:
    """What a device shows of a store: the bytes stored, or of those that cross a row of map memory the second part."""
    assert store.address is not None and store.stored is not None
    parts = memory.shared_parts(store.address, len(store.stored))
    return store.stored[parts[0] :] if len(parts) > 1 else store.stored
