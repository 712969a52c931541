"""docs/results.md: the measures as tables, beside what was asked for."""

from collections.abc import Mapping, Sequence

from bench.clock import SIZES
from bench.maps import CORES, ENTRIES, KEYS, LENGTHS, Lookup
from bench.resources import Resources
from bench.speed import THREADS, Run

Table = tuple[list[str], list[list[str]]]
"""Head and rows."""

HEAD = """<!-- Written by `make bench`; never edited by hand. -->

# Results

Clocks and ratios first: they depend on no machine. Seconds are processor time of one core of whatever machine ran this.
"""

SIMULATION = """
For cocotb, too, the ports alone are public, which makes it faster than it is by default; what it costs grows with the
interfaces that carry packets.

What was done for the speed of the simulation:

- The NIC's inputs stand behind registers (sim/rtl/ports.py), so that a clock is settled by one evaluation instead of
  two. What depends on an input or on reset without a register between had taken 38 % of the packet path's time.
- Signals are public only where waves are asked for; what the harness needs are ports.
- Idle spans are skipped: the clock that programs read is advanced instead.
- Records of packets are made natively and turned into Python objects once, without the garbage collector.
- g++'s vectorizer is off (8 % faster), and a bit repeated in a concatenation is written as a repetition (5 %, and a
  fifth less C++).
- g++ is told that what an `if` guards is unlikely, and puts it out of the way: 9 % faster. A run's profile
  (`-fprofile-use`) makes 13 %, and would double the time to build.
- By callgrind's count of instructions, 7 % fewer a clock: 5 % without a loop through bits of one signal of the map
  engine, for which the logic behind it was evaluated twice (such a loop is now an error of the build), 2 % with byte
  masks that are signals, where an expression had been written and simulated once for each bit.

Tried without gain: fewer or larger C++ files (`--output-split`), Verilator's `-fno-table` (2 % fewer instructions),
`-fno-split` and `--gate-stmts 1000`, `-fno-expand` (4 % slower), -O3, -Os; -O1 costs 5 % and hardly builds sooner.
clang instead of g++, measured without that hint, is 9 % faster and takes three times as long to compile.
Yosys' own conversion of processes (`proc` with multiplexers, with or without `opt_dff`) costs a third. Verilator's
`--flatten` and g++'s `-fno-gcse -fno-tree-pre` or unaligned code make 2 to 4 % each, and nothing more together. A third
of the registers (435) are copied to a shadow that is written again before anyone reads it, for Verilator sees no
further than one of its functions. Control and its counters take 10 % of a clock, idle tables 12 %; a clock of their
own, stopped for finder, serial unit and rings together, makes 5 %, and the registers' selects in one signal nothing.

Building: memories are initialized in loops rather than line by line (two thirds of the C++ had been that), Verilator's
headers are compiled once instead of for each of its sources (half of the rest), what runs at the start alone is
compiled without optimization, and everything is cached by content.
"""


def results(
    runs: Sequence[Run],
    lookups: Sequence[Lookup],
    pairs: Mapping[int, tuple[float, float]],
    building: Mapping[str, float],
    parts: Mapping[str, Resources],
    units: Mapping[str, Resources],
    engine: tuple[Mapping[str, Resources], Mapping[str, Resources]],
    accesses: Mapping[str, float],
    verdicts: Sequence[Table],
    boards: Mapping[str, Mapping],
    on_boards: Mapping[str, Sequence[Run]],
    alone: Mapping[str, Mapping],
    lines_full: Mapping[str, Run],
) -> str:
    """The whole document. lookups: what bench.maps found; pairs: clocks a second of the native loop and of cocotb with
    packets into so many interfaces; building: seconds of each step; parts: what each part of the NIC takes; units: what
    each unit of the core adds; engine: what each unit of the map engine does, and what resources.map_types found;
    accesses: of registers, for an entry of a map; verdicts: tables of bench.verifier, if it was given objects; boards:
    what `bpfnic board build --record` measured; on_boards: runs on each one's NIC; alone: what bench.clock
    measured, by the number of cores; lines_full: a run of as many ports, likewise."""
    counter = next(run for run in runs if run.program == "counter")
    lines = [HEAD]
    lines += [f"## The barrel: {THREADS} threads, one core, 64-byte packets back to back into port 0", ""]
    lines += _table(
        ["program", "instructions a packet", "clocks a packet", "instructions a clock", "clocks of one packet"],
        [
            [run.program, f"{run.instructions_a_packet:.1f}", f"{run.clocks_a_packet:.1f}",
             f"{run.instructions_a_clock:.3f}", f"{run.latency}"]
            for run in runs
        ],
    )  # fmt: skip
    lines += [
        "",
        "Asked for: 0.9 instructions a clock on `counter` and `l2swap`, 0.85 on `firewall`, which finds rules for 256",
        "flows; 140 clocks a packet on `router`, where a packet takes four look-ups and one in a redirect map; on",
        "`balancer` 1.2 clocks for each instruction, so 0.833 instructions a clock. `drop` is as fast as its port: 8",
        "clocks bring 64 bytes. The last column is the median from a program's start to its end, with all threads",
        "busy: a barrel is built for throughput.",
        "",
        "## Look-ups in maps",
        "",
        *_table(
            ["map", "clocks a call adds to a thread alone", "asked for", "clocks from one look-up to the next, all "
             f"{THREADS} threads of a core at it", "instructions in them", f"all threads of {CORES} cores at it",
             "asked for"],
            [
                [each.case.name, f"{each.adds:.1f}", f"≤ {each.case.adds}", f"{each.of_core:.1f}",
                 f"{each.instructions:.1f}", f"{each.of_all:.2f}", str(each.case.of_all or "–")]
                for each in lookups
            ],
        ),
        "",
        f"A call adds what it takes beyond the 10 clocks of any instruction. The map is full of {ENTRIES:,} keys, in",
        f"the LPM_TRIE prefixes of {len(LENGTHS)} lengths; each packet draws {KEYS} that are there and looks them up",
        "in turn (`bench/lookup.bpf.c`). A key of more than 8 bytes takes an issue slot for each 8. The map engine",
        "takes 8 bytes of a key each clock: for a look-up in an array one clock, with a 16-byte key two.",
        "",
        "## The simulation",
        "",
    ]
    lines += _table(
        ["measure", "found", "asked for"],
        [
            *(
                [f"clocks a second, native loop ÷ cocotb, same netlist, packets into {count} of 3 interfaces",
                 f"{native:,.0f} ÷ {cocotb:,.0f} = {native / cocotb:.0f}", "20"]
                for count, (native, cocotb) in pairs.items()
            ),  # fmt: skip
            ["packets a second, `counter`, 64 bytes", f"{counter.packets_a_second:,.0f}", "8,000 (aim 20,000)"],
            ["clocks a second at that", f"{counter.clocks_a_second:,.0f}", "–"],
            *([f"seconds: {step}", f"{seconds:.1f}", "–"] for step, seconds in building.items()),
            ["seconds: all that a first run builds (on two cores in parallel)", f"{sum(building.values()):.0f}", "–"],
        ],
    )
    lines += [SIMULATION, *_accesses(accesses), *_verdicts(verdicts), *_resources(parts, units), *_map_engine(*engine)]
    lines += [*_clock(alone, lines_full), *_boards(boards, on_boards)]
    return "\n".join(lines)


def _accesses(accesses: Mapping[str, float]) -> list[str]:
    return [
        "## The host and maps",
        "",
        *_table(
            ["operation on a HASH, keys of 4 bytes, values of 8", "register accesses an entry"],
            [[name, f"{count:.2f}"] for name, count in accesses.items()],
        ),
        "",
        "Asked for: batch forms that cost a few accesses an entry.",
        "",
    ]


def _verdicts(tables: Sequence[Table]) -> list[str]:
    lines = ["## The verifier", ""]
    for head, rows in tables:
        lines += [*_table(head, rows), ""]
    if not tables:
        return [*lines, "Not measured in this run: it was given no objects (`make bench OBJECTS=DIR`).", ""]
    return [*lines, "On objects that aren't in this repository (docs/verifier.md says which), by their folders.", ""]


def _resources(parts: Mapping[str, Resources], units: Mapping[str, Resources]) -> list[str]:
    return [
        "## Resources: ECP5, `synth_ecp5`",
        "",
        *_cells("part", parts),
        "",
        "Asked for: a core with the whole instruction set of at most 6,000 LUT4. A carry cell takes two LUT4 sites, a",
        "distributed memory six. Mapped for few LUTs, none wider than four inputs, as for the smallest part",
        "(boards/recipe.py), before place and route; frequencies come with the boards.",
        "",
        "### What each unit of the core costs (16 threads)",
        "",
        *_units("unit (`hdl/core/`)", units),
        "",
        "From one synthesis that keeps the units apart (`-noflatten`). The core as a whole, in the table above, is",
        "mapped without regard to borders.",
        "`pipeline` is the registers of what walks down with an instruction; the rest is `core.py` and `steps.py`:",
        "micro steps, operands, the next pc, what a pass leaves behind.",
        "",
    ]


GIGABIT_PACKETS = 1e9 / 8 / 84
"""A second, of 64 bytes: with preamble and gap each takes 84 bytes' time."""


def _clock(alone: Mapping[str, Mapping], lines_full: Mapping[str, Run]) -> list[str]:
    """Of the NIC by itself, after place and route, and what that means for as many ports as it has cores."""
    if not alone:
        return []
    rates = []
    for cores, run in sorted(lines_full.items()):
        (clock,) = alone[cores]["clocks"]
        rate, full = clock["achieved"] / run.clocks_a_packet, int(cores) * GIGABIT_PACKETS / 1e6
        rates.append([run.program, cores, f"{run.clocks_a_packet:.1f}", f"{rate:.2f}", f"{full:.3f}"])
    return [
        "## The NIC's clock by itself",
        "",
        *_table(
            ["cores of 16 threads", "MHz reached", "asked for", "seed", "LUTs", "blocks of RAM", "longest path"],
            [
                [cores, f"{clock['achieved']:.1f}", f"{clock['asked']:g}",
                 f"{found['seed']}, of 1 to {found['placements']}", f"{found['used']['LUTs'][0]:,}",
                 f"{found['used']['blocks of RAM'][0]:,}", " → ".join(clock["path"])]
                for cores, found in sorted(alone.items())
                for clock in found["clocks"]
            ],
        ),
        "",
        "Placed and routed on an ECP5-85F of speed grade 6, between registers (bench/clock.py), by the best of the",
        "seeds tried. Others, and other designs that are nearly the same, come out up to 5 % slower or faster, and",
        "with two cores up to 15 %. Map memory has",
        f"128 KiB, with two cores {SIZES[2]['map_bytes'] // 1024}: the part has blocks of RAM for no more.",
        "",
        *_table(["program, 64-byte packets back to back", "cores, and ports that they come in by", "clocks a packet",
                 "million packets a second", "line rate of so many ports of 1 Gbit/s"], rates),
        "",
    ]  # fmt: skip


def _boards(boards: Mapping[str, Mapping], runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """After place and route, with what that means for packets."""
    lines = ["## Boards: place and route", ""]
    if not boards:
        return [*lines, "None was built (`make boards`).", ""]
    for name, found in boards.items():
        lines += [f"### {name}", ""]
        if found["clocks"]:
            lines += _table(
                ["clock", "MHz reached", "asked for", "longest path"],
                [[each["name"], f"{each['achieved']:.1f}", f"{each['asked']:g}", " → ".join(each["path"])]
                 for each in found["clocks"]],
            ) + [""]  # fmt: skip
        used = [[what, f"{n:,}", f"{of:,}", f"{100 * n / of:.0f}"] for what, (n, of) in found["used"].items()]
        lines += [*_table(["resource", "used", "of", "%"], used), ""]
    clocks = ((name, each) for name, found in boards.items() for each in found["clocks"])
    core = {name: each["achieved"] for name, each in clocks if each["name"] == "core"}
    if core:
        rates = {name: {run.program: f"{megahertz / run.clocks_a_packet:.2f} million" for run in runs[name]}
                 for name, megahertz in core.items()}  # fmt: skip
        programs = sorted({program for rate in rates.values() for program in rate})
        lines += [
            "### Packets a second, 64 bytes",
            "",
            *_table(
                ["program", *(f"{name}, a core of {megahertz:.1f} MHz" for name, megahertz in core.items())],
                [[program, *(rate.get(program, "–") for rate in rates.values())] for program in programs],
            ),
            "",
            "Frequency after place and route ÷ clocks a packet in simulation, with the board's threads, map memory and",
            "types of maps, and two ports; no board was measured. Programs that don't fit aren't here. Line rate of",
            f"1 Gbit/s is {GIGABIT_PACKETS / 1e6:.3f} million.",
            "",
        ]  # fmt: skip
    return lines


def _map_engine(units: Mapping[str, Resources], types: Mapping[str, Resources]) -> list[str]:
    return [
        "### What each unit of the map engine costs (16 threads, 128 KiB of map memory)",
        "",
        *_units("unit (`hdl/maps/`)", units),
        "",
        "The same kind of synthesis as the core's units; `calls` has the serial unit with its program, and the rings.",
        "",
        "### What map types cost",
        "",
        *_cells("what a build without them saves of the map engine", {name: types[name] for name in types if name}
                | {"the map engine, with all types": types[""]}),
        "",
        "Differences of whole syntheses, of which each is a little luckier or unluckier than the other.",
        "",
    ]  # fmt: skip


def _units(what: str, units: Mapping[str, Resources]) -> list[str]:
    """The largest first."""
    by_size = sorted((name for name in units if name), key=lambda name: -units[name].sites)
    every = sum(units.values(), Resources(0, 0, 0, 0, 0, 0))
    return _cells(what, {name: units[name] for name in by_size} | {"the rest": units[""], "in all": every})


def _cells(what: str, rows: Mapping[str, Resources]) -> list[str]:
    return _table(
        [what, "LUT4", "carry (CCU2C)", "distributed memory (DPR16X4)", "LUT4 sites in all", "flip-flops",
         "block RAM", "multipliers"],
        [
            [name, *(f"{value:,}" for value in (has.lut4, has.carry, has.distributed, has.sites, has.flip_flops,
                                                has.block_rams, has.multipliers))]
            for name, has in rows.items()
        ],
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
