"""The reference NIC: registers, program store, map memory, and what becomes of a frame. Clear before fast.

It has the hardware's registers, addresses and map layout, and neither its clocks nor its order: whoever drives it
(sim/golden/device.py) decides on which CPU a frame's program runs, and when each shared access happens.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields

from bpfnic.sim.golden import outcome
from bpfnic.sim.golden.helpers import Clone, Helpers, Samples
from bpfnic.sim.golden.host_maps import HostMaps
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.maps import Maps
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.outcome import Outcome, Stage
from bpfnic.sim.golden.registers import Registers
from bpfnic.sim.golden.thread import Choice, Retired, SharedAccess, Thread, Trap
from bpfnic.spec import addresses, engine, registers
from bpfnic.spec.causes import Cause
from bpfnic.spec.metadata import RSS_KEY_BYTES
from bpfnic.spec.programs import Hook, ProgramType, XdpAction
from bpfnic.spec.registers import (
    CHAIN_BIT,
    CHAIN_WORDS,
    CONTROL_ENABLE,
    ENTRY_VALID,
    HOOKS,
    INTERFACES,
    WIDTH_TAKES,
    entry_next,
)

COUNTED_AS = {
    XdpAction.XDP_ABORTED: "ABORTED",
    XdpAction.XDP_DROP: "DROPPED",
    XdpAction.XDP_PASS: "PASSED",
    XdpAction.XDP_TX: "TRANSMITTED",
    XdpAction.XDP_REDIRECT: "REDIRECTED",
}
REFUSALS = ("REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR")


@dataclass(frozen=True)
class Size:
    """What the NIC says of itself in its capability block (registers of the same names)."""

    cores: int
    threads: int
    program_slots: int
    packet_buffers: int
    buffer_bytes: int
    map_bytes: int
    maps: int
    ports: int
    groups: int
    map_types: int
    helpers: int
    program_types: int


class GoldenNic:
    """One NIC. Counts into its registers' counters; they show at a SNAPSHOT.

    deliver: gets each record that leaves, as a frame (spec.rings)."""

    deliver: Callable[[bytes], None] = staticmethod(lambda frame: None)

    def __init__(self, size: Size):
        self.size = size
        self.clones = size.ports + 1  # the ingress that they are counted at
        self.registers = Registers()
        groups = engine.groups_of(size.groups)
        self.code = Code(size.program_slots, lambda row: row.group in groups)
        self.helpers = frozenset(number for number in range(256) if size.helpers >> number & 1)
        self.map_memory = bytearray(size.map_bytes)
        self.maps = Maps(size.maps, size.cores * size.threads, self.map_memory)
        self.host_maps = HostMaps(self.maps, self.registers)
        self.counters = {
            register.name: [0] * register.count
            for register in registers.REGISTERS
            if register.offset >= registers.BY_NAME["RECEIVED"].offset
        }
        self.in_flight = [0] * INTERFACES
        self.accepted = [0] * INTERFACES
        self.released = [0] * INTERFACES
        self.retired = 0
        self.chain = [0] * CHAIN_WORDS
        self.lower_half = 0  # of the slot that is being written
        self.rss_key = bytearray(RSS_KEY_BYTES)
        self._describe()
        self._behave()

    # ------------------------------------------------------------ frames

    def admit(self, ingress: int, frame: bytes, error: bool, port: int = 0) -> bool:
        """A frame's end at an ingress: count it, and say whether it is accepted. `port`: which the host asks for."""
        error = error or (ingress == self.size.ports and port >= self.size.ports)
        self._count("RECEIVED", ingress)
        self._count("RECEIVED_BYTES", ingress, len(frame))
        if len(frame) > self.size.buffer_bytes - addresses.HEADROOM:
            self._count("REFUSED_LONG", ingress)
        elif error or len(frame) < addresses.ETH_HLEN:
            self._count("REFUSED_ERROR", ingress)
        else:
            self.accepted[ingress] += 1
            self.in_flight[ingress] += 1
            return True
        return False

    def admit_clone(self, length: int, refused: bool = False) -> None:
        """Count a clone of so many bytes, or one that there was no buffer for."""
        self._count("RECEIVED", self.clones)
        self._count("RECEIVED_BYTES", self.clones, length)
        if refused:
            self._count("REFUSED_FULL", self.clones)
        else:
            self.accepted[self.clones] += 1
            self.in_flight[self.clones] += 1

    def way(self, ingress: int, port: int) -> tuple[Stage, ...]:
        """The hooks that a frame from an ingress comes to, if no program says otherwise. port: which the host asks
        for."""
        first = Stage(Hook.XDP, ingress)
        if ingress == self.size.ports:
            return first, Stage(Hook.TCX_EGRESS, port)
        return first, *self.from_there(Stage(Hook.TCX_INGRESS, ingress))

    def way_of(self, clone: Clone) -> tuple[Stage, ...]:
        """The same for a clone."""
        return self.from_there(Stage(Hook.TCX_EGRESS if clone.leaving else Hook.TCX_INGRESS, clone.device))

    @staticmethod
    def from_there(stage: Stage) -> tuple[Stage, ...]:
        """The hooks from one on that a packet comes to where no program stands."""
        return (stage, Stage(Hook.SOCKET, stage.device)) if stage.hook is Hook.TCX_INGRESS else (stage,)

    def entry(self, stage: Stage) -> int:
        """The word of the first program at a hook, 0 for none."""
        word = self.registers.get(HOOKS[stage.hook], stage.device)
        return word if word & ENTRY_VALID else 0

    def following(self, word: int) -> int:
        """The word of the program behind another one of its hook, 0 for none."""
        found = self.chain[entry_next(word)] if entry_next(word) else 0
        return found if found & ENTRY_VALID else 0

    def without_program(self, ingress: int, port: int) -> Outcome:
        """What becomes of a frame where no program is attached: to the host, and from the host to the port that it asks
        for."""
        if ingress == self.size.ports:
            return Outcome(XdpAction.XDP_TX, port)
        return Outcome(XdpAction.XDP_PASS, self.size.ports)

    def of_clone(self, clone: Clone) -> Outcome:
        """What becomes of a clone where no program is attached."""
        if clone.leaving:
            return Outcome(XdpAction.XDP_REDIRECT, clone.device)
        return Outcome(XdpAction.XDP_PASS, self.size.ports)

    def prepare(
        self,
        device: int,
        program_type: ProgramType,
        buffer: Buffer,
        cpu: int,
        samples: Samples,
        iif: int | None = None,
        hops: int = 0,
        skb: bytes = b"",
    ) -> tuple[Thread, Helpers]:
        """A thread for a program that stands at an interface, on a frame, and the helpers that it calls. iif: where the
        frame came in, there if None; hops: as decide has them; skb: words of the skb context, of the program before.
        """
        iif = device if iif is None else iif
        ifindexes = [self.registers.get("IFINDEX", number) for number in range(self.size.ports + 1)]
        memory = Memory(buffer, ifindexes[device], self.map_memory, ifindexes[iif])
        if skb:
            memory.set_skb(skb)
        helpers = Helpers(cpu, buffer, self.maps, self.helpers, samples, ifindexes[:-1], bytes(self.rss_key),
                          program_type, iif, hops)  # fmt: skip
        helpers.memory = memory
        return Thread(self.code, memory, helpers.table, budget=self.registers["BUDGET"]), helpers

    def execute(
        self,
        stage: Stage,
        entry: int,
        program_type: ProgramType,
        thread: Thread,
        helpers: Helpers,
        steps: bool = False,
    ) -> Generator[SharedAccess | Choice | Retired, None, Outcome]:
        """Run the program of that type at slot `entry` on what `prepare` prepared. Gives way before each shared access,
        and with `steps` behind each instruction."""
        try:
            verdict = (yield from thread.run(entry, steps=steps)) & 0xFFFFFFFF
        except Trap as trap:
            outside = trap.cause is Cause.PROGRAM_RANGE  # no slot has what it was to execute
            decided = outcome.aborted(trap.cause, stopped=None if outside else trap.pc)
        else:
            decided = outcome.decide(
                program_type, verdict, helpers.target, stage, self.size.ports, helpers.hops, helpers.buffer.queue
            )
        self.maps.end(thread)
        self.retired += thread.retired
        return decided

    def release(self, ingress: int, decided: Outcome, frame: bytes) -> None:
        """A frame leaves: count its outcome, and the frame itself at its egress."""
        self.released[ingress] += 1
        self.in_flight[ingress] -= 1
        self._count(COUNTED_AS[decided.action], ingress)
        if decided.cause is not Cause.NONE:
            self._count("CAUSES", decided.cause)
        if decided.egress is not None:
            self._count("SENT", decided.egress)
            self._count("SENT_BYTES", decided.egress, len(frame))

    def ready(self, index: int) -> bool:
        """Whether a record of map `index` may leave."""
        ring = self.maps.rings[index] if index < len(self.maps.rings) else None
        return ring is not None and ring.ready()

    def emit(self, index: int) -> None:
        """The oldest record of map `index`, which is ready, leaves, or is passed over."""
        ring = self.maps.rings[index]
        assert ring
        if frame := ring.take():
            self.deliver(frame)

    def enabled(self) -> bool:
        """Whether the ingresses accept frames."""
        return bool(self.registers["CONTROL"] & CONTROL_ENABLE)

    # ------------------------------------------------------------ registers

    def _describe(self) -> None:
        self.registers["MAGIC"] = registers.MAGIC
        self.registers["VERSION"] = registers.VERSION
        for field in fields(self.size):
            name, value = field.name.upper(), getattr(self.size, field.name)
            for index in range(registers.BY_NAME[name].count):
                self.registers.set(name, index, value >> 32 * index)

    def _behave(self) -> None:
        on_read, on_write = self.registers.on_read, self.registers.on_write
        on_read["PROGRAM_DATA"] = lambda _: self._read_program()
        on_write["PROGRAM_DATA"] = lambda _, value: self._write_program(value)
        on_read["MAP_DATA"] = lambda _: self._read_map()
        on_write["MAP_DATA"] = lambda _, value: self._write_map(value)
        on_write["MAP_COMMIT"] = lambda _, index: self.host_maps.describe(index)
        on_write["MAP_COMMAND"] = lambda _, command: self.host_maps.command(command)
        on_read["MAP_STATUS"] = lambda _: self.host_maps.read_status()
        on_write["MAP_ADDRESS"] = lambda _, __: self.host_maps.aim()
        on_write["RSS_KEY"] = self._write_rss_key
        on_write["CHAIN"] = lambda _, word: self._chain(word)
        on_write["SNAPSHOT"] = lambda _, __: self._snapshot()
        on_read["NEXT_SEQUENCE"] = lambda index: self.accepted[index] & 0xFFFFFFFF
        on_read["OLDEST_SEQUENCE"] = lambda index: self.released[index] & 0xFFFFFFFF

    def _write_rss_key(self, index: int, value: int) -> None:
        self.rss_key[4 * index : 4 * index + 4] = value.to_bytes(4, "little")

    def _chain(self, word: int) -> None:
        self.chain[word >> CHAIN_BIT & CHAIN_WORDS - 1] = word

    def _read_program(self) -> int:
        half = self._advance("PROGRAM_ADDRESS", 1) % (2 * self.size.program_slots)
        return int.from_bytes(self.code.read(half // 2)[4 * (half % 2) :][:4], "little")

    def _write_program(self, value: int) -> None:
        """A slot is written with its upper half."""
        half = self._advance("PROGRAM_ADDRESS", 1) % (2 * self.size.program_slots)
        if half % 2 == 0:
            self.lower_half = value
        else:
            self.code.write(half // 2, (self.lower_half | value << 32).to_bytes(8, "little"))

    def _read_map(self) -> int:
        if self.host_maps.astray:
            return 0
        place = self._map_access()
        value = int.from_bytes(self.map_memory[place], "little")
        if self.registers["MAP_WIDTH"] & WIDTH_TAKES:
            self.map_memory[place] = (1).to_bytes(place.stop - place.start, "little")
        return value

    def _write_map(self, value: int) -> None:
        if self.host_maps.astray:
            return
        place = self._map_access()
        self.map_memory[place] = value.to_bytes(4, "little")[: place.stop - place.start]

    def _map_access(self) -> slice:
        """Where in map memory an access of MAP_DATA goes."""
        size = {0: 1, 1: 2}.get(self.registers["MAP_WIDTH"] & 3, 4)
        at = self._advance("MAP_ADDRESS", size) % self.size.map_bytes & ~(size - 1)
        return slice(at, at + size)

    def _advance(self, pointer: str, step: int) -> int:
        at = self.registers[pointer]
        self.registers[pointer] = at + step
        return at

    def _snapshot(self) -> None:
        self.counters["IN_FLIGHT"] = list(self.in_flight)
        self.counters["RETIRED"] = [self.retired, self.retired >> 32]
        for name, values in self.counters.items():
            for index, value in enumerate(values):
                self.registers.set(name, index, value)

    def _count(self, name: str, index: int, amount: int = 1) -> None:
        self.counters[name][index] += amount
