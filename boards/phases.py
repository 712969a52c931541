"""What a tool is doing, from its log."""

import re
from collections.abc import Callable

_YOSYS = {
    "SYNTH_ECP5": "reading", "MEMORY_LIBMAP": "synthesizing: memories", "ALUMACC": "synthesizing: arithmetic",
    "ABC9": "synthesizing: logic into LUTs", "ABC": "synthesizing: logic into LUTs", "AUTONAME": "synthesizing: names",
}  # fmt: skip
_NEXTPNR = {
    "Packing": "placing: packing cells", "Promoting": "placing: clocks", "Running Static placer": "placing",
    "Running simulated annealing": "placing: refinement", "Routing": "routing", "Running router": "routing",
    "Program finished": "routed",
}  # fmt: skip


def of_yosys(say: Callable[[str], None]) -> Callable[[str], None]:
    """Passes begin with a line "2.28. Executing NAME pass"."""

    def known(line: str) -> str | None:
        found = re.match(r"[\d.]+ Executing (\w+)", line)
        return _YOSYS.get(found[1]) if found else None

    return _each_once(known, say)


def of_nextpnr(say: Callable[[str], None]) -> Callable[[str], None]:
    """Its log says in words what it does."""

    def known(line: str) -> str | None:
        words = line.removeprefix("Info: ")
        return next((phase for begin, phase in _NEXTPNR.items() if words.startswith(begin)), None)

    return _each_once(known, say)


def _each_once(known: Callable[[str], str | None], say: Callable[[str], None]) -> Callable[[str], None]:
    said = set()

    def hear(line: str) -> None:
        phase = known(line)
        if phase and phase not in said:
            said.add(phase)
            say(phase)

    return hear
