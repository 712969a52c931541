"""Runs programs on the core alone and on the golden interpreter, and compares everything that they did.

`bench.cpp` is what stands around the core. It reads lines:

    program SLOT HEX        code for the program store
    map OFFSET HEX          contents of map memory
    descriptor INDEX TYPE BASE ENTRIES STRIDE VALUE_SIZE CPU_STRIDE LOCK
    answer CALL TRAP COPY INSERT SIZE VALUE LOCK LOCKED
                            what the engine says to every MapCall of that number, whatever its words
    packet ENTRY HEX        a frame (`-`: empty) for the program at slot ENTRY; frames are taken in order
    set SEED THREADS LEAST MOST STALL BUDGET CPU_BASE
                            random seed; threads to use; least and most clocks of each answer; percent of clocks in
                            which each stream's receiver is not ready; budget; first CPU number

and writes lines (P is the packet's number):

    S CLOCK P THREAD        started
    R P PC NEXT_PC PENDING WRITE REGISTER VALUE SAMPLED MEMORY ADDRESS   retired
    V P WRITE REGISTER VALUE                                             a pending one's end
    M P OPERATION OFFSET BYTES                                           map memory did an access
    W P CALL FLAGS LAST HANDLE DATA                                      a word of a call whose answer is given
    F CLOCK P VERDICT CAUSE FRAME                                        finished
    H CLOCK                 hung; E CLOCKS RETIRED  at the end; D HEX  map memory then
"""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from amaranth import Value
from amaranth.back import verilog

from bpfnic.hdl import interfaces, mapinterfaces
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core import Core
from bpfnic.sim.golden.helpers import Helpers
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.maps import Descriptor, Maps
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Retired, SharedAccess, Thread, Trap
from bpfnic.spec import addresses, engine
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import MapType
from tests.hdl.verilator import compile_simulation

LOOP = 11
"""Clocks from a thread's pass to its next one."""
IFINDEX = 7
PORTS = 2  # of the model of the packet path, which knows no ifindex of theirs
_LAYOUTS = {
    "START": (interfaces.Start, {"thread": "THREAD", "pc": "PC"}),
    "FINISH": (interfaces.Finish, {"thread": "THREAD", "verdict": "VERDICT", "cause": "CAUSE"}),
    "BOUNDS": (interfaces.Bounds, {"buffer": "BUFFER", "data_meta": "META", "data": "DATA", "data_end": "END"}),
    "MAP_REQUEST": (mapinterfaces.MapRequest, None),
    "MAP_ANSWER": (lambda config: mapinterfaces.MapAnswer, None),
    "ENGINE_WORD": (mapinterfaces.EngineWord, None),
    "ENGINE_ANSWER": (mapinterfaces.EngineAnswer, None),
    "SERVICE_REQUEST": (interfaces.ServiceRequest, None),
    "ANSWER": (interfaces.Answer, None),
    "RETIRE": (interfaces.RetireTrace, None),
    "RESULT": (interfaces.ResultTrace, None),
}


def layouts_header(config: NicConfig) -> str:
    """layouts.h: LAYOUTS(FIELD) names every field of every struct; and the numbers that the models need."""
    rows = []
    for name, (layout, names) in _LAYOUTS.items():
        for key, place in layout(config):
            rows.append(f"FIELD({name}_{names[key] if names else key.upper()}, {place.offset}, {place.width})")
    numbers = {
        "PROGRAM_SLOTS": config.program_slots, "MAP_BYTES": config.map_bytes, "MAPS": config.maps,
        "THREADS": config.threads, "STACK_WINDOW_BYTES": addresses.STACK_WINDOW_BYTES,
        "BUFFER_BYTES": config.buffer_bytes, "HEADROOM": addresses.HEADROOM,
        "PACKET": addresses.PACKET, "MAP_VALUES": addresses.MAP_VALUES, "MAP_HANDLES": addresses.MAP_HANDLES,
        "HANDLE_KEY_BIT": addresses.HANDLE_KEY_BIT, "CALL_CHECK": mapinterfaces.MapCall.CHECK.value,
        "CALL_LOOKUP": mapinterfaces.MapCall.LOOKUP.value, "CALL_DELETE": mapinterfaces.MapCall.DELETE.value,
        "CALL_TAIL": mapinterfaces.MapCall.TAIL.value, "TYPE_PROG_ARRAY": MapType.PROG_ARRAY.value,
        "CALL_REDIRECT": mapinterfaces.MapCall.REDIRECT.value, "TYPE_DEVMAP": MapType.DEVMAP.value,
        "TYPE_CPUMAP": MapType.CPUMAP.value, "TYPE_XSKMAP": MapType.XSKMAP.value, "PORTS": PORTS,
        "SERVICE_REDIRECT_MAP": interfaces.Service.REDIRECT_MAP.value,
        "SERVICE_REDIRECT": interfaces.Service.REDIRECT.value, "SERVICE_HEAD": interfaces.Service.ADJUST_HEAD.value,
        **{f"OP_{operation.name}": operation.value for operation in mapinterfaces.MapOperation},
        **{f"REGION_{region.name}": region.value for region in interfaces.Region},
    }  # fmt: skip
    constants = "".join(f"constexpr unsigned {name} = {value}u;\n" for name, value in numbers.items())
    return "#pragma once\n#define LAYOUTS(FIELD) \\\n    " + " \\\n    ".join(rows) + "\n" + constants


def build(config: NicConfig, folder: Path) -> Path:
    """The compiled bench."""
    core = Core(config)
    # Verilator spells two underscores otherwise.
    ports = {
        "_".join(map(str, path)): (Value.cast(signal), None)
        for path, _, signal in core.signature.flatten(core)
    }
    (folder / "core.v").write_text(verilog.convert(core, name="core", ports=ports, emit_src=False))
    (folder / "layouts.h").write_text(layouts_header(config))
    main = Path(__file__).with_name("bench.cpp").read_text()
    return compile_simulation(folder, [folder / "core.v"], main, "core")


@dataclass
class Says:
    """What the engine says to a call (mapinterfaces.EngineAnswer)."""

    value: int = 0
    trap: int = 0
    copy: int = 0
    insert: int = 0
    size: int = 0
    lock: int = 0
    locked: int = 0


@dataclass
class Scenario:
    """What is run. packets: entry slot and frame of each. answers: what the engine says, of calls that it doesn't play;
    the golden interpreter knows nothing of that."""

    programs: dict[int, bytes]
    packets: list[tuple[int, bytes]]
    map: bytes = b""
    descriptors: dict[int, Descriptor] = field(default_factory=dict)
    answers: dict[mapinterfaces.MapCall, "Says"] = field(default_factory=dict)
    seed: int = 1
    threads: int = 16
    latency: tuple[int, int] = (1, 20)
    stall: int = 20
    budget: int = 1000
    cpu_base: int = 32

    def text(self) -> str:
        lines = [f"program {slot} {code.hex()}" for slot, code in self.programs.items()]
        lines += [f"map 0 {self.map.hex() or '-'}"]
        for index, d in self.descriptors.items():
            numbers = d.type, d.base, d.entries, d.stride, d.value_size, d.cpu_stride, d.lock
            lines.append(f"descriptor {index} {' '.join(str(int(number)) for number in numbers)}")
        for call, says in self.answers.items():
            value = says.value % (1 << 64)
            numbers = says.trap, says.copy, says.insert, says.size, value, says.lock, says.locked
            lines.append(f"answer {call.value} {' '.join(str(int(number)) for number in numbers)}")
        lines += [f"packet {entry} {frame.hex() or '-'}" for entry, frame in self.packets]
        least, most = self.latency
        lines.append(f"set {self.seed} {self.threads} {least} {most} {self.stall} {self.budget} {self.cpu_base}")
        return "\n".join(lines) + "\n"


class Word(NamedTuple):
    """A word of a call to which Scenario.answers has an answer."""

    call: mapinterfaces.MapCall
    flags: int
    last: int
    handle: int
    data: int


@dataclass
class Run:
    """What became of a packet on the core. retired: the fields of R and V lines."""

    thread: int
    retired: list[dict] = field(default_factory=list)
    verdict: int = -1
    cause: Cause = Cause.NONE
    frame: bytes = b""
    words: list[Word] = field(default_factory=list)


@dataclass
class Result:
    """What the core did. shared: packet, operation, offset, bytes of each access, in the order of map memory."""

    runs: list[Run]
    shared: list[tuple[int, str, int, int]]
    clocks: int
    retired: int
    map: bytes


_R = ("pc", "next_pc", "pending", "write", "register", "value", "sampled", "memory", "address")


def run(simulation: Path, scenario: Scenario) -> Result:
    """Runs the core. Raises AssertionError if it hangs or says something that doesn't fit together."""
    done = subprocess.run([simulation], input=scenario.text(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    runs: dict[int, Run] = {}
    shared, clocks, retired, memory = [], 0, 0, b""
    for line in done.stdout.splitlines():
        kind, *fields = line.split()
        if kind == "S":
            runs[int(fields[1])] = Run(int(fields[2]))
        elif kind == "R":
            record = dict(zip(_R, map(int, fields[1:]), strict=True))
            runs[int(fields[0])].retired.append(record)
        elif kind == "V":
            packet, write, register, value = map(int, fields)
            record = runs[packet].retired[-1]
            assert record["pending"] and (record["write"], record["register"]) == (write, register), (record, line)
            record |= {"value": value, "pending": 0}
        elif kind == "M":
            packet, operation, offset, size = map(int, fields)
            shared.append((packet, mapinterfaces.MapOperation(operation).name, offset, size))
        elif kind == "W":
            packet, call, *rest = map(int, fields)
            runs[packet].words.append(Word(mapinterfaces.MapCall(call), *rest))
        elif kind == "F":
            packet = runs[int(fields[1])]
            assert packet.verdict == -1, f"packet {fields[1]} ended twice"
            packet.verdict, packet.cause = int(fields[2]), Cause(int(fields[3]))
            packet.frame = bytes.fromhex(fields[4] if len(fields) > 4 else "")
            if packet.cause and packet.retired and packet.retired[-1]["pending"]:
                packet.retired.pop()  # it trapped after all
        elif kind == "E":
            clocks, retired = map(int, fields)
        elif kind == "D":
            memory = bytes.fromhex(fields[0])
        else:
            raise AssertionError(line)
    return Result([runs[number] for number in sorted(runs)], shared, clocks, retired, memory)


class _Recorded:
    """The clock and random numbers that a packet saw."""

    def __init__(self, retired: list[dict]):
        self._values = iter([record["value"] for record in retired if record["sampled"] and record["write"]])

    def clock(self) -> int:
        return next(self._values)

    random = clock


def _operation(access: SharedAccess) -> str:
    name = access.operation.name.removeprefix("ATOMIC_").removeprefix("FETCH_")
    return {"LDX": "LOAD", "STX": "STORE"}.get(name, name)


def check(config: NicConfig, scenario: Scenario, result: Result) -> None:
    """Replays the scenario on the golden interpreter, in the order that map memory recorded, and asserts that each
    packet did the same: every retired instruction, cause, verdict, frame, and the map memory at the end."""
    assert len(result.runs) == len(scenario.packets)
    code = Code(config.program_slots, lambda row: row.group in engine.GROUPS)
    for slot, program in scenario.programs.items():
        code.write(slot, program)
    memory = bytearray(scenario.map.ljust(config.map_bytes, b"\0"))
    maps = Maps(config.maps, config.threads, memory)
    for index, descriptor in scenario.descriptors.items():
        maps.describe(index, descriptor)

    golden = [_Golden(config, scenario, number, run, code, memory, maps) for number, run in enumerate(result.runs)]
    for packet, operation, offset, size in result.shared:
        access = golden[packet].waits_for
        assert access is not None, f"packet {packet}: the core accessed map memory, the model doesn't"
        expected = (_operation(access), access.address - addresses.MAP_VALUES, access.size)
        assert (operation, offset, size) == expected, f"packet {packet}"
        golden[packet].advance()
    for each in golden:
        each.compare()
    assert result.map == memory
    assert result.retired == sum(each.thread.retired for each in golden)


class _Golden:
    """A packet on the golden interpreter."""

    def __init__(self, config, scenario: Scenario, number: int, run: Run, code: Code, memory: bytearray, maps: Maps):
        entry, frame = scenario.packets[number]
        self.number, self.run, self.config = number, run, config
        samples = _Recorded(run.retired)
        self.buffer = Buffer(frame, config.buffer_bytes)
        windows = Memory(self.buffer, IFINDEX, memory)
        offered = Helpers(scenario.cpu_base + run.thread, self.buffer, maps, engine.HELPERS, samples, [0] * PORTS)
        self.retired: list[Retired] = []
        self.thread = Thread(code, windows, offered.table, budget=scenario.budget, trace=self.retired.append)
        self.cause, self.verdict = Cause.NONE, None
        self.waits_for: SharedAccess | None = None
        self._running = self.thread.run(entry)
        self.advance()

    def advance(self) -> None:
        self.waits_for = None
        try:
            self.waits_for = next(self._running)
        except StopIteration as end:
            self.verdict = end.value & 0xFFFFFFFF
        except Trap as trap:
            self.cause = trap.cause

    def compare(self) -> None:
        where = f"packet {self.number}"
        assert self.waits_for is None, f"{where}: the core never did {self.waits_for}"
        for index, (core, model) in enumerate(zip(self.run.retired, self.retired, strict=False)):
            expected = {"pc": model.pc, "register": model.register, "value": model.value}
            seen = {
                "pc": core["pc"],
                "register": core["register"] if core["write"] else None,
                "value": core["value"] if core["write"] else 0,
            }
            if model.next_pc is not None and 0 <= model.next_pc < self.config.program_slots:
                expected["next_pc"], seen["next_pc"] = model.next_pc, core["next_pc"]
            if model.address is not None and _accesses(model):
                expected["address"], seen["address"] = model.address, core["address"] if core["memory"] else None
            assert seen == expected, f"{where}, instruction {index}: {model.instruction}: {seen}, not {expected}"
        assert len(self.run.retired) == len(self.retired), where
        assert self.run.cause == self.cause, f"{where} at pc {self.thread.pc}, registers {self.thread.registers}"
        if self.verdict is not None:
            assert self.run.verdict == self.verdict, where
        assert self.run.frame == self.buffer.frame, where


def _accesses(model: Retired) -> bool:
    return model.instruction.opcode & 7 in (1, 2, 3)


