"""Damaged `.BTF` and `.BTF.ext`: whatever reads them ends in what it should, or in one line that says where it is
wrong. `make fuzz-objects` does this with whole objects, for as long as you like."""

import random
from pathlib import Path

import pytest

from bpfnic.host.btf import Btf
from bpfnic.host.btf.check import check
from bpfnic.host.btf.dump_c import dump_c
from bpfnic.host.btf.dump_raw import dump_raw
from bpfnic.host.btf.encode import encode_object
from bpfnic.host.btf.extension import read_extension
from bpfnic.host.btf.merge import merge
from bpfnic.host.btf.relocate import Relocator
from bpfnic.host.compile import compile_object
from bpfnic.host.elf import Elf
from bpfnic.spec.errors import BpfnicError
from tests.host.btf.graphs import damaged

TYPES = Path(__file__).parents[2] / "objectfuzz" / "types.bpf.c"
_LARGEST = 4096  # bytes of a value that is worth a look


@pytest.fixture(scope="module")
def sections():
    elf = Elf(compile_object(TYPES))
    return elf.section(".BTF").data, elf.section(".BTF.ext").data


def uses(data, behind, target):
    """What is done with them, a function each. Raises BpfnicError where they can't be read."""
    yield lambda: check(data)
    types = Btf(data).read_all()
    yield lambda: "".join(dump_raw(types))
    yield lambda: "".join(dump_c(types))
    yield lambda: merge([types, types])
    for type in types:
        if 0 < types.size(type.number) <= _LARGEST:
            yield lambda type=type: types.format(type.number, bytes(types.size(type.number)))
            yield lambda type=type: types.parse(type.number, {} if type.parts else 0)
    extension = read_extension(behind, types)
    relocator = Relocator(types, target)
    for relocations in extension.relocations.values():
        for relocation in relocations:
            yield lambda relocation=relocation: relocator.value(relocation)
    yield lambda: encode_object(list(types), extension)


def said_of(data, behind, target):
    """What is said of them: whether they can be read, and the messages of what was refused."""
    said = []
    try:
        for use in uses(data, behind, target):
            try:
                use()
            except BpfnicError as error:
                said.append(str(error))
    except BpfnicError as error:
        return False, [*said, str(error)]
    return True, said


def test_damage_is_said_in_one_line(sections):
    data, behind = sections
    target, readable = Btf(data), 0
    for seed in range(150):
        chance = random.Random(seed)
        changed = chance.choice(["types", "lines", "both"])
        whole, said = said_of(damaged(chance, data) if changed != "lines" else data,
                              damaged(chance, behind) if changed != "types" else behind, target)  # fmt: skip
        assert all(line and "\n" not in line for line in said), seed
        readable += whole
    assert 30 < readable < 120  # damage matters, and not each one does


def test_the_original_is_readable(sections):
    assert said_of(*sections, Btf(sections[0]))[0]
