"""Writes tests/data/edges_*.vec: tables too large to write by hand, for every row of the instruction table.

What must come out is computed from the text of RFC 9669 (rfc.py) and from nothing of ours; rows, registers and
addresses are read from spec/. Read the files like those that are written by hand; the running kernel judges them too.

    .venv/bin/python -m tools.vectors
"""

from pathlib import Path

from tools.vectors.arithmetic import arithmetic, division, jumps
from tools.vectors.atomics import atomics, local_atomics
from tools.vectors.memory import memory, packet
from tools.vectors.registers import registers

DATA = Path(__file__).parent.parent.parent / "tests" / "data"


def files() -> dict[Path, str]:
    """What stands in each file."""
    writers = (arithmetic, division, jumps, registers, memory, packet, atomics, local_atomics)
    return {DATA / f"edges_{writer.__name__}.vec": writer() for writer in writers}
