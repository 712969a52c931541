"""The table of helpers, judged by the kernel's own header and by the running kernel."""

import json
import os
import platform
import re
import struct

import pytest

from bpfnic.host.compile import find_compiler
from bpfnic.host.linux import bpf
from bpfnic.spec import kfuncs
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpernotes import ERRORS, NOTES, STACK
from bpfnic.spec.helpers import (
    BY_NAME,
    BY_NUMBER,
    HARDWARE,
    HELPERS,
    LIBRARY,
    OTHER_IN_TC,
    PRIVILEGED,
    REFUSED,
    Argument,
    Result,
    find,
)
from bpfnic.spec.maps import MapFlag, MapType
from bpfnic.spec.programs import ProgramType
from tools import helpers_doc


@pytest.fixture(scope="module")
def header():
    for folder in find_compiler().kernel_headers:
        if (folder / "linux" / "bpf.h").is_file():
            return (folder / "linux" / "bpf.h").read_text()
    pytest.skip("no linux/bpf.h to compare with")


def test_numbers_and_names_are_the_kernels(header):
    known = {int(number): name for name, number in re.findall(r"\bFN\((\w+), (\d+), ##ctx\)", header) if number != "0"}
    assert known == {helper.number: helper.name for helper in HELPERS}


def test_prototypes_have_the_kernels_arguments(header):
    for helper in HELPERS:
        documented = {arguments.count(",") for arguments in
                      re.findall(rf"^ \* [\w *]+\bbpf_{helper.name}\((.*)\)$", header, re.MULTILINE)}  # fmt: skip
        assert helper.prototype.count(",") in documented, helper.name


def test_map_types_and_flags_are_the_kernels(header):
    names = re.search(r"enum bpf_map_type \{(.*?)\n\};", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL), re.DOTALL)
    plain = [name for name in re.findall(r"BPF_MAP_TYPE_(\w+)", names[1].replace("_DEPRECATED", ""))]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(plain))}
    assert {type.name: type.value for type in MapType}.items() <= numbers.items()
    flags = dict(re.findall(r"\bBPF_F_(\w+)\s*= \(1U << (\d+)\)", header))
    assert {flag.name: 1 << int(flags[flag.name]) for flag in MapFlag} == {flag.name: flag.value for flag in MapFlag}


def test_an_unknown_number_is_refused():
    assert find(1) is BY_NAME["map_lookup_elem"]
    for number in (0, 212, -1):
        with pytest.raises(BpfnicError, match=f"unknown helper {number}: Linux 6.18 has 1 to 211"):
            find(number)


def test_what_is_checked_agrees_with_the_prototype():
    for helper in HELPERS:
        if helper.takes is not None:
            inside = helper.prototype.split("(", 1)[1].rstrip(")")
            assert len(helper.takes) == len([part for part in inside.split(",") if part != "void"])
            pointer = helper.gives in (Result.VALUE_OR_NULL, Result.RECORD_OR_NULL)
            assert pointer == helper.prototype.startswith("void *")
    assert BY_NAME["map_update_elem"].takes == (Argument.MAP, Argument.KEY, Argument.VALUE, Argument.SCALAR)


def test_every_helper_that_a_program_may_call_has_one_place():
    callable = {helper.number for helper in HELPERS if helper.programs}
    assert sorted([*HARDWARE, *LIBRARY, *PRIVILEGED, *REFUSED]) == sorted(callable)
    assert all(BY_NUMBER[number].takes is not None for number in HARDWARE | LIBRARY | PRIVILEGED)


def test_the_document_is_current():
    assert helpers_doc.TARGET.read_text() == helpers_doc.text(), "run python -m tools.helpers_doc"


def test_each_call_has_a_cost():
    """A helper's own, or that of one that a program calls with it; those that tc programs call otherwise, both."""
    costs = json.loads(helpers_doc.COSTS.read_text())
    others = " ".join(cost["says"] for cost in costs.values())
    in_tc = ProgramType.SCHED_CLS
    for helper in HELPERS:
        if helper.number in HARDWARE | LIBRARY | PRIVILEGED:
            other_in_tc = helper.number in OTHER_IN_TC
            if helper.programs - ({in_tc} if other_in_tc else set()):
                assert helper.name in costs or f"with bpf_{helper.name}" in others, helper.name
            assert not other_in_tc or f"{helper.name}, tc" in costs
    assert all(name in costs for name in kfuncs.callable(ProgramType.XDP))


def test_what_is_said_of_helpers_is_of_some():
    assert all(BY_NAME[name].programs for name in [*ERRORS, *NOTES, *STACK])


@pytest.mark.linux
@pytest.mark.parametrize("program_type", ProgramType)
def test_the_kernel_lets_the_same_programs_call(program_type):
    """A program of one call is refused for the helper itself, or for what it passes."""
    if tuple(map(int, platform.release().split(".")[:2])) != (6, 18):
        pytest.skip(f"the table is Linux 6.18's, this is {platform.release()}")
    allowed, gpl = set(), set()
    for helper in HELPERS:
        code = struct.pack("<BBhi", 0x85, 0, 0, helper.number) + bytes.fromhex("b700000000000000 9500000000000000")
        for license, found in (("GPL", allowed), ("Proprietary", gpl)):
            refused = _refusal(program_type, code, license)
            if license == "GPL" and "cannot use helper" not in refused:
                found.add(helper.name)
            if license != "GPL" and "GPL-restricted" in refused:
                found.add(helper.name)
    assert allowed == {helper.name for helper in HELPERS if program_type in helper.programs}
    assert gpl == {helper.name for helper in HELPERS if program_type in helper.programs and helper.gpl}


def _refusal(program_type, code, license):
    try:
        fd, _ = bpf.prog_load(program_type, code, license=license)
    except bpf.Refused as refused:
        return refused.log
    os.close(fd)
    return ""
