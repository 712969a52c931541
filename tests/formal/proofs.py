"""Every proof. docs/verification.md has its table, and a test that it is the same."""

from tests.formal import access, core, lanes, packets, receiving, scheduling, searching, streams, sums, tables, units

PARTS = (streams, receiving, packets, core, access, lanes, units, sums, scheduling, searching, tables)
PROOFS = [proof for part in PARTS for proof in part.PROOFS]


TESTED = (
    ("hdl/core/", "calls, exits, tail calls, may_goto, packet loads, atomics, helpers, second halves of accesses",
     ("tests/data/", "tests/hdl/core/", "tests/sim/test_lockstep.py")),
    ("hdl/packets/", "no beat is lost, doubled or reordered, whatever waits: between its parts",
     ("tests/hdl/packets/",)),
    ("hdl/packets/windows.py", "the context's fields", ("tests/hdl/packets/", "tests/data/")),
    ("hdl/maps/", "what atomics compute, banks, crossbar, engine", ("tests/hdl/test_maps.py",)),
    ("hdl/memory.py", "DP16KD and its twin agree", ("tests/hdl/test_memory.py",)),
    ("hdl/control.py", "registers, counters that balance", ("tests/hdl/test_control.py", "tests/hdl/test_nic.py")),
)  # fmt: skip
"""What no proof covers: of, what is meant, and by which tests."""


def table() -> str:
    """The table of docs/verification.md."""
    rows = ["| proof | of | what is proved | how far |", "| --- | --- | --- | --- |"]
    for proof in PROOFS:
        rows.append(f"| `{proof.name}` | {_files(proof.of)} | {proof.says} | {proof.strength} |")
    for of, says, tests in TESTED:
        rows.append(f"| – | {_files([of])} | {says} | tested only: {_files(tests)} |")
    return "\n".join(rows) + "\n"


def _files(paths) -> str:
    return ", ".join(f"`{path}`" for path in paths)
