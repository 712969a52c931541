"""Whole logs against the running kernel's, line by line: of the examples of every rule, and of shipped programs. Lines
that differ are of the kinds that docs/verifier-differences.md lists, and no more of each than it says."""

import difflib
import re
from collections import Counter

import pytest

from bpfnic.host.linux.verdict import judge
from bpfnic.host.verifier.verdict import Subject, verify
from tests.conftest import REPOSITORY
from tests.firmware.shipped import opened
from tests.host.verifier.subjects import subject
from tests.host.verifier.test_rules import LIMIT, RULES

ONLY_LINUX = re.compile(r"\([\d,]+\) (frame \d+ insn|live stack)|SCC (enter|exit)|$")
"""How Linux finds what of the stack is read later, and where it is in loops."""
KINDS = {
    "registers that are live": re.compile(r" +(\d  )? *\d+: [.\d]{10} |func#"),
    "where exact numbers come from": re.compile(r"mark_precise|force_precise|frame \d+: propagating"),
    "what an instruction left, apart from it": re.compile(r"\d+:( |$)(?!\()"),
    "states and their counts": re.compile(r"processed \d+ insns"),
    "the name of a map within a map": re.compile(r".*map_(ptr|value|value_or_null)\((id=\d+,)?(map=inner,)?ks="),
    "a call that marks its argument": re.compile(r"\d+: \(85\) call bpf_(tail_call|map_lookup_elem)"),
    "ranges of a moved pointer's lower half": re.compile(r".*R0=map_value\(map=array,ks=4,vs=16,smin=0"),
    "helpers that aren't followed": re.compile(r"program cannot use helper .* not fol|R1 type=fp expected=map_value"),
    "lines that Linux doesn't end": re.compile(r"expected prog array map"),
}  # fmt: skip
"""What lines that differ begin with, by kind."""
ALIKE = {1: 0.99, 2: 0.97}
"""The least share of the kernel's lines that are the same, by level."""
SHIPPED = ("counter", "drop", "forward", "l2swap", "router", "portfilter")
"""Whose logs at level 2 are wholly the same, with the lines of their source."""


def lines(log):
    """A log without what is no matter: addresses of maps, the ends of their names, the column of the states, and whose
    limit it is. Where a path is taken up again at level 1 the kernel goes on in the line of the last instruction."""
    found = []
    for line in log:
        if ONLY_LINUX.match(line):
            continue
        line = re.sub(r"map=([^,)]{15})[^,)]*", r"map=\1", line)
        line = re.sub(r"(\(18\) r\d) = (0xffff[\da-f]{12}|[a-zA-Z_.][\w.]*(\+\d+)?)(?= |$)", r"\1 = MAP", line)
        line = re.sub(r" +;( |$)", r" ;\1", line).replace(f"limit {LIMIT}", "limit 1000000")
        found += [part.rstrip() for part in re.split(r" +(?=\d+: (?:frame\d: )?R\d)|(?<=tail call)(?=processed)", line)]
    return found


def compare(programs, level):
    """How many lines the kernel's logs have, how many are the same, and those that differ by kind."""
    total = same = 0
    differing, unknown = Counter(), []
    for program in programs:
        ours = verify(program, level, limit=LIMIT)
        if ours.processed > LIMIT:
            continue  # Linux goes on for a million
        a, b = lines(ours.log), lines(judge(program, level).log.splitlines())
        total += len(b)
        for what, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            if what == "equal":
                same += b2 - b1
                continue
            for line in a[a1:a2] + b[b1:b2]:
                kind = next((name for name, pattern in KINDS.items() if pattern.match(line)), None)
                differing[kind] += 1
                if kind is None:
                    unknown.append(line)
    return total, same, differing, unknown


def examples():
    return [subject(text, type) for programs in RULES.values() for text, _error, type in programs]


@pytest.mark.linux
@pytest.mark.parametrize("level", ALIKE)
def test_examples_have_the_kernels_log(level):
    total, same, differing, unknown = compare(examples(), level)
    assert not unknown, unknown[:8]
    assert total > 800 and same >= ALIKE[level] * total, differing


@pytest.mark.linux
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_programs_have_the_kernels_log(name):
    object = opened(name)
    subjects = [Subject.of(object, program) for program in object.programs.values()]
    total, same, differing, _ = compare(subjects, 2)
    assert total > 5 and same == total and not differing
    assert any(line.startswith("; ") for line in judge(subjects[0], 2).log.splitlines())  # lines of C are among them


def test_a_difference_is_found(monkeypatch):
    """The comparison itself."""
    log = ["0: R1=ctx() R10=fp0", "0: (b7) r0 = 2                        ; R0=2", "1: (95) exit"]
    assert lines(log) == ["0: R1=ctx() R10=fp0", "0: (b7) r0 = 2 ; R0=2", "1: (95) exit"]
    assert lines(["(0) frame 0 insn 33 +live -8 ", "1: (18) r2 = 0xffff8881dbd48400      ; R2=map_ptr()"]) == [
        "1: (18) r2 = MAP ; R2=map_ptr()"]  # fmt: skip
    assert not any(pattern.match("0: (b7) r0 = 2 ; R0=3") for pattern in KINDS.values())


def test_the_document_lists_the_kinds():
    text = (REPOSITORY / "docs" / "verifier-differences.md").read_text()
    assert all(f"| {kind} |" in text for kind in KINDS)
