"""bpf_trace_printk and bpf_trace_vprintk: what they return is what the kernel's return; the text that the host makes is
the kernel's, which bpf_snprintf shows there."""

import random
from errno import EINVAL, ENOSPC

import pytest

import bpfnic
from tests.sim.library import Library

FLAGS = ["", "", "", "0", "-", "+", " ", "05", "-7", "12", "+4", " 3", "020", "-+9"]
NUMBERS = ["d", "i", "u", "x", "X", "ld", "lu", "lx", "lld", "llu", "llX", "li"]
POINTED = ["s", "pI4", "pi4", "pI6", "pi6", "pks", "pus"]
WRONG = ["f", "hd", "n", "", "lllx", "pq", "pI5", "sx", "pk", "*d", ".3d", "#x", "lc", "p9", "\x01", "\x80", "%%%"]
VALUES = [0, 1, 9, 10, 99, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1, 12345678901]


def a_format(chance):
    """A format of three conversions at most, the first of which takes a pointer; now and then a wrong one."""
    parts = ["a: ", "%" + chance.choice(FLAGS) + chance.choice(POINTED)]
    parts += ["%" + chance.choice(FLAGS) + chance.choice(NUMBERS + ["c"]) for _ in range(chance.randrange(3))]
    if chance.random() < 0.3:
        parts.insert(chance.randrange(1, len(parts) + 1), "%" + chance.choice(WRONG))
    return chance.choice((" ", ",", "", "z", "%% ", "\t")).join(parts).encode("latin-1")[:63]


@pytest.mark.linux
def test_it_returns_what_the_kernels_does(build):
    chance = random.Random(5)
    call = "bpf_trace_printk(question->text, (a & 63) + 1, question->text + 64, b, c)"
    results = []
    with Library(build, "golden", call) as ours, Library(build, "linux", call) as theirs:
        for _ in range(400):
            text = a_format(chance)
            size = chance.choice((len(text), len(text), len(text), len(text) - 1, chance.randrange(64)))
            string = bytes(chance.choices(b"abc\xff\0 7", k=chance.randrange(32)))
            question = (size, chance.choice(VALUES), chance.choice(VALUES))
            frame = text.ljust(64, b"\0") + string
            got, wanted = ours.ask(*question, text=frame), theirs.ask(*question, text=frame)
            assert got == wanted, (text, string, question)
            results.append(got.result)
    assert -EINVAL in results and 100 < sum(result > 0 for result in results)


@pytest.mark.linux
@pytest.mark.parametrize(
    "text", ["a@", "%@", "%d@", "%c@", "%l@", "%s@z", "%p@", "%pI@", "%pK@z", "%px@", "%pks@", "%pI4@z"]
)
def test_each_byte_of_a_format(build, text):
    """What isn't ASCII is text, and behind a conversion what the kernel's ctype.h says of it in Latin-1."""
    call = "bpf_trace_printk(question->text, (a & 63) + 1, b, b, c)"
    with Library(build, "golden", call) as ours, Library(build, "linux", call) as theirs:
        for byte in range(1, 256):
            frame = text.replace("@", chr(byte)).encode("latin-1").ljust(64, b"\0")
            got, wanted = ours.ask(63, 0, 0, text=frame), theirs.ask(63, 0, 0, text=frame)
            assert got.result == wanted.result, byte


FORMATS = [
    *["%d %i %u", "%x|%X|%lx", "%5d|%-5d|%05d", "%+d|% d|%+5i", "%08x|%-8x|%8lX", "%ld %lld %lu", "100%% %d", "plain"],
    *["%c%c%c", "%3c|%-3c|%c", "%px %px %px", "%10u|%-20lu|%020lld", "%-05d|", "%lluabc%d", "% d|% ld", "\t%d\n"],
]
STRINGS = ["%s|%10s|%-10s", "%pI4 %pi4 %s", "%pI6|%pi6|%s", "%3s|%s", "%pI4abc%pi4", "%pks|%s", "%s.%%%s", "%pI4%%"]


@pytest.mark.linux
@pytest.mark.parametrize("text", FORMATS + STRINGS)
def test_the_text_is_the_kernels(build, text):
    chance = random.Random(text)
    escaped = text.replace("\t", "\\t").replace("\n", "\\n")
    declarations = f'const char text[] SEC(".rodata") = "{escaped}";'
    words = ["(long)question->text"] * 3 if text in STRINGS else ["a", "b", "c"]
    count = text.replace("%%", "").count("%")
    data = f"__u64 words[] = {{ {', '.join(words)} }};"
    printed = f"({{ {data} bpf_trace_vprintk(text, sizeof(text), words, {8 * count}); }})"
    shown = f"({{ {data} bpf_snprintf(answer->room, 96, text, words, {8 * count}); }})"
    ours, theirs = Library(build, "golden", printed, declarations), Library(build, "linux", shown, declarations)
    with ours, theirs:
        for _ in range(6):
            question = [chance.choice((*VALUES, chance.getrandbits(64))) for _ in range(3)]
            if "c" in text:
                question = [chance.randrange(1, 128) for _ in range(3)]
            string = bytes(chance.choices(range(1, 128), k=chance.randrange(1, 20)))
            got, wanted = ours.ask(*question, text=string), theirs.ask(*question, text=string)
            lines = ours.nic.trace
            if wanted.result < 0:
                assert got.result == wanted.result and lines == []
                continue
            assert got.result == wanted.result - 1  # bpf_snprintf counts the 0
            assert [line.text.encode() for line in lines] == [wanted.room[: wanted.result - 1]]


def test_long_strings_and_many_arguments(build):
    """More than the kernel's buffer for arguments: ENOSPC; the last string of what fits is cut."""
    declarations = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, char[1024]); }
	longs SEC(".maps");
const char text[] SEC(".rodata") = "%s%s%d";
const char many[] SEC(".rodata") = "%d%d%d%d%d%d%d%d%d%d%d%d";
static __noinline long run(__u64 a)
{
	__u32 key = 0;
	char *value = bpf_map_lookup_elem(&longs, &key);
	__u64 words[12] = { (long)value, (long)value + a, 7 };
	return a == 1024 ? bpf_trace_vprintk(many, sizeof(many), words, 96)
		: a > 1024 ? bpf_trace_vprintk(many, sizeof(many), words, a & 127)
		: bpf_trace_vprintk(text, sizeof(text), words, 24);
}
"""
    with Library(build, "golden", "run(a)", declarations, unsafe=True) as card:  # sizes that no verifier takes
        long = card.nic.maps["longs"].device_map
        long.update(bytes(4), [b"x" * 300 + bytes(724)])
        assert card.ask(100).result == 300 + 200 + 1
        assert card.ask(0).result == -ENOSPC  # 301 bytes, then 211 of 301, and no room for a number
        long.update(bytes(4), [b"x" * 600 + bytes(424)])
        assert card.ask(0).result == -ENOSPC
        (line,) = card.nic.trace
        assert line.text == "x" * 500 + "7"
        assert card.ask(1024).result == 9 + 9 + 1 + 9  # two addresses below 2**30, 7, and nine zeros
        assert [card.ask(1024 + wrong).result for wrong in (4, 104)] == [-EINVAL, -EINVAL]
        assert card.ask(1024 + 88).result == -EINVAL  # one argument too few


PRINTS = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
SEC("xdp") int prints(struct xdp_md *ctx)
{
	bpf_printk("port %d: %u bytes", ctx->ingress_ifindex, (__u32)(ctx->data_end - ctx->data));
	return XDP_PASS;
}
"""


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_lines_come_in_order_with_their_cpu(build, backend):
    with bpfnic.Nic(backend) as nic:
        program = nic.load(build(PRINTS))
        assert nic.trace == []
        for size in (14, 60):
            program.test_run(bytes(size))
        lines = nic.trace
        assert [line.text for line in lines] == ["port 1: 14 bytes", "port 1: 60 bytes"]
        assert 0 < lines[0].time_ns <= lines[1].time_ns and str(lines[0]).startswith(f"[{lines[0].cpu:03}] 0.")
        assert nic.trace == [] and list(nic.maps) == [".rodata"]


def test_lines_are_utf8(build):
    call = 'bpf_trace_printk(question->text, (a & 63) + 1, b, b, c)'
    with Library(build, "golden", call) as card:
        for text in ("für %d €".encode(), b"\xff%c", "%pxé".encode()):
            card.ask(63, 0xFC, 0, text=text.ljust(64, b"\0"))
        lines = [line.text for line in card.nic.trace]
    assert lines == ["für 252 €", "\\xff\\xfc", "00000000000000fc\\xa9"]  # é is C3 A9, of which C3 is a letter
