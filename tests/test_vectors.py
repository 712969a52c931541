"""The reader of tests/data/*.vec."""

from pathlib import Path

import pytest

from bpfnic.spec.causes import Cause
from tests import vectors

EXAMPLE = """
# what 2 + b is
test add 4.1
    r0 = 2
    r1 = $b      # replaced
    r0 += r1
    r2 = $map ll
    exit
    ---
    b   packet  budget : r0  trap    packet
    -3  0102    7      : -1  -       0102
    5   ff      8      : 0x7 BUDGET  fe
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.vec"
    path.write_text(text)
    return path


def test_cases_of_a_table(tmp_path: Path):
    first, second = vectors.read(write(tmp_path, EXAMPLE))
    assert (first.name, first.section) == ("x.vec:11 add", "4.1")
    assert first.text.splitlines()[1] == "r1 = -3"
    assert (first.packet, first.budget, first.registers, first.trap) == (b"\1\2", 7, {0: (1 << 64) - 1}, Cause.NONE)
    assert (second.trap, second.packet_after, second.map_after) == (Cause.BUDGET, b"\xfe", None)
    assert first.map == bytes(64)
    assert first.code(0x11223344, entry=0)[24:32] == bytes.fromhex("1802000044332211")
    assert [row.name for row in first.rows] == ["mov64_imm", "mov64_imm", "add64_reg", "lddw", "exit"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("    1 : 2", r"x.vec:13: '1 : 2' does not fit the columns"),
        ("    1 ff 3 4", r"x.vec:13: no colon in '1 ff 3 4'"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, line: str, message: str):
    with pytest.raises(ValueError, match=message):
        vectors.read(write(tmp_path, EXAMPLE + line))


def test_what_stands_for_what(tmp_path: Path):
    text = "test x -\n  r0 = $a ll\n  raw b70b000000000000\n  r1 = $map ll\n  raw ff\n  ---\n a : trap\n $map_end : -"
    (vector,) = vectors.read(write(tmp_path, text))
    code = vector.code(0x11223344, entry=0, map_bytes=0x100)
    assert code.hex() == "18000000443422110000000000000000b70b00000000000018010000443322110000000000000000ff"
    assert vector.test == "x.vec x"


def test_names_of_all_cases_are_unique():
    names = [vector.name for vector in vectors.read_all()]
    assert len(set(names)) == len(names) > 400
