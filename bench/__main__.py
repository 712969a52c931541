"""Measure everything, print it, write docs/results.md: `python -m bench [DIR]`, where DIR has objects for the
verifier."""

import json
import sys
from pathlib import Path

from bench import accesses, clock, maps, report, resources, speed, verifier
from bpfnic.hdl.config import NicConfig

RESULTS = Path("docs/results.md")
BOARDS = Path("docs/boards.json")  # written by `make boards`


def say(text: str) -> None:
    """What is going on, to whoever waits."""
    print(f"# {text}", file=sys.stderr, flush=True)


def main() -> None:
    runs = speed.programs(say)
    lookups = maps.lookups(say)
    pairs = {count: speed.with_and_without_cocotb(say, count) for count in (speed.INTERFACES, 1)}
    building = speed.build_seconds(say)
    small = NicConfig(threads=8, program_slots=2048, map_bytes=32 * 1024, target="ecp5")
    parts = {
        "core, 16 threads": resources.core(NicConfig(target="ecp5"), say),
        "core, 8 threads": resources.core(small, say),
        "NIC, 16 threads, 128 KiB of maps": resources.nic(NicConfig(target="ecp5"), say),
        "NIC, 8 threads, 32 KiB of maps": resources.nic(small, say),
    }
    ecp5 = NicConfig(target="ecp5")
    units = resources.core_units(ecp5, say)
    engine = resources.map_engine_units(ecp5, say), resources.map_types(ecp5, say)
    verdicts = verifier.apart(Path(sys.argv[1])) if sys.argv[1:] else []
    boards = json.loads(BOARDS.read_text()) if BOARDS.exists() else {}
    on_boards = {name: speed.on_board(name, say) for name, found in boards.items() if found["clocks"]}
    alone = json.loads(clock.CLOCK.read_text()) if clock.CLOCK.exists() else {}
    lines_full = {cores: speed.full_lines(int(cores), say) for cores in alone}
    text = report.results(
        runs, lookups, pairs, building, parts, units, engine, accesses.measure(), verdicts, boards, on_boards, alone,
        lines_full,
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
