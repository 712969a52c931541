"""Every proof. docs/verification.md has its table, and a test that it is the same."""

from tests.formal import access, core, lanes, scheduling, streams, units

PROOFS = [*streams.PROOFS, *core.PROOFS, *access.PROOFS, *lanes.PROOFS, *units.PROOFS, *scheduling.PROOFS]


def table() -> str:
    """The table of docs/verification.md."""
    rows = ["| proof | of | what is proved | how far |", "| --- | --- | --- | --- |"]
    for proof in PROOFS:
        files = ", ".join(f"`{file}`" for file in proof.of)
        rows.append(f"| `{proof.name}` | {files} | {proof.says} | {proof.strength} |")
    return "\n".join(rows) + "\n"
