"""What `bpfnic dump` prints leads back to the same bytes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bpfnic import Nic
from bpfnic.host.compile import compile_object
from bpfnic.host.dump import Shown, blocks, render
from bpfnic.host.object import open_object
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import encode
from bpfnic.spec.registers import BY_NAME

PROGRAMS = sorted((Path(__file__).parents[2] / "firmware" / "programs").glob("*.bpf.c"))


def from_hex(text):
    return bytes.fromhex("".join(line for line in text.splitlines() if line[:1] != ";"))


def from_dot(text):
    """The instructions of a graph's boxes in the order of their numbers."""
    found = {}
    for label in re.findall(r'p0_\d+ \[label="((?:[^"\\]|\\.)*)"\]', text):
        for line in label.replace("\\\\", "\0").split("\\l"):
            line = line.replace('\\"', '"').replace("\0", "\\")
            if place := re.match(r"(.*)  ; (\d+)", line):
                found[int(place[2])] = place[1]
    return assemble("\n".join(found[slot] for slot in sorted(found)))


def check(object, shown):
    expected = encode(shown.code)
    assert assemble(render(object, [shown], "asm")) == expected
    assert from_hex(render(object, [shown], "hex")) == expected
    assert from_dot(render(object, [shown], "dot")) == expected


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name.removesuffix(".bpf.c"))
def test_round_trip(path):
    object = open_object(compile_object(path))
    with Nic("golden", map_bytes=1 << 22) as nic:
        for program in object.programs.values():
            check(object, Shown(program, program.instructions))
            loaded = nic.load(object, program.name).loaded if program.name not in nic.programs else (
                nic.programs[program.name].loaded)  # fmt: skip
            check(object, Shown(loaded.whole, loaded.image, loaded.entry))
            assert encode(loaded.image) == in_store(nic.device, loaded)


def in_store(device, loaded):
    """What lies where a program was loaded, by the device's registers."""
    transport, data = device._transport, BY_NAME["PROGRAM_DATA"].address()
    transport.write(BY_NAME["PROGRAM_ADDRESS"].address(), loaded.entry * 2)
    return b"".join(transport.read(data).to_bytes(4, "little") for _ in range(2 * len(loaded.image)))


CALLS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
volatile int tally;
static __noinline int add(int count) { tally += count; return tally; }
SEC("xdp") int program(struct xdp_md *ctx)
{
	if (ctx->rx_queue_index > 3)
		return 1;
	return add(2) + "\\\"quoted\\l"[tally & 7];
}
char _license[] SEC("license") = "GPL";
__u32 _version SEC("version") = 0x60c00;
"""


def test_what_is_shown_besides(build, bpfnic):
    object = build(CALLS)
    program = object.program()
    check(object, Shown(program, program.instructions))
    status, text, _ = bpfnic("dump", object.path)
    assert status == 0 and assemble(text) == encode(program.instructions)
    assert text.startswith("; program program: section 'xdp', XDP, license \"GPL\", version 0x60c00, ")
    for shown in ("; function add\n", ": .bss + 0\n", ": add\n", "bpf.c:8: if (ctx->rx_queue_index > 3)"):
        assert shown in text


def test_a_graph_of_blocks(build):
    program = build(CALLS).program()
    shown = Shown(program, program.instructions)
    found = blocks(shown)
    assert [slot for slots in found.values() for slot in slots] == list(shown.slots())
    text = render(None, [shown], "dot")
    add = next(slot for slot, name in program.functions.items() if name == "add")
    jump = next(slot for slot in shown.slots() if shown.text(slot).startswith("if "))
    assert f"p0_0 -> p0_{shown.target(jump)} [label=\"taken\"];" in text
    assert f"p0_0 -> p0_{jump + 1};" in text and f" -> p0_{add} [style=dashed];" in text
    assert not re.search(rf" -> p0_{add};", text)  # nothing runs into a function


def test_several_programs_and_one_of_them(build, bpfnic):
    path = build('#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("xdp") int a(void *c) { return 1; } '
                 'SEC("xdp") int b(void *c) { return 2; }').path  # fmt: skip
    _, text, _ = bpfnic("dump", path, "--format", "hex")
    assert text == "; program a\nb4 00 00 00 01 00 00 00\n95 00 00 00 00 00 00 00\n" \
                   "; program b\nb4 00 00 00 02 00 00 00\n95 00 00 00 00 00 00 00\n"  # fmt: skip
    _, text, _ = bpfnic("dump", path, "--format", "hex", "--program", "b")
    assert text == "b4 00 00 00 02 00 00 00\n95 00 00 00 00 00 00 00\n"
    _, text, _ = bpfnic("dump", path, "--format", "dot")
    assert text.startswith("digraph programs {") and text.count("subgraph cluster_") == 2


@pytest.mark.linux
def test_the_kernel_shows_its_own(build, bpfnic):
    status, out, err = bpfnic("dump", build(CALLS).path, "--backend", "linux")
    assert (status, out) == (2, "") and "use `bpftool prog dump xlated`" in err


def test_what_can_not_be_written_is_named(build):
    object = build(CALLS)
    program = object.program()
    code = [replace(program.instructions[0], opcode=0xFF), *program.instructions[1:]]
    with pytest.raises(BpfnicError, match="^program 'program', instruction 0: "):
        render(object, [Shown(program, code)], "asm")
