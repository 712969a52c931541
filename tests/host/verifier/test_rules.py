"""The rules of docs/verifier.md, each with programs that keep it and programs that break it. Every program is judged by
the kernel too: it must agree, and refuse for the same reason, word for word but for numbers of its own."""

import re

import pytest

from bpfnic.host.linux.verdict import judge
from bpfnic.host.verifier.verdict import verify
from bpfnic.spec.programs import ProgramType
from tests.host.verifier.subjects import subject

XDP, TC, SOCKET = ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER
PACKET = "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\n"
"""r2: data, r3: data_end."""
KEY = "r6 = r1\n*(u32 *)(r10 - 4) = 9\nr2 = r10\nr2 += -4\n"
LOOKUP = KEY + "r1 = map_by_fd(0) ll\ncall 1\n"
VALUE = LOOKUP + "if r0 == 0 goto out\n"
"""r0: a value of 16 bytes."""
USES = "r1 = r10\nr1 += -8\n*(u64 *)(r10 - 8) = 0\nr1 += r0\nr0 = *(u8 *)(r1 + 0)\nr0 = 2\nexit\n"
"""Takes r0 for an index."""
TAIL = "f:\nr2 = map_by_fd(2) ll\nr3 = 0\ncall 12\n"
SIGN = "r1 = *(u32 *)(r1 + 16)\nw1 s>>= 31\n"
INDEX = VALUE + "r1 = *(u32 *)(r0 + 0)\n"
LOADS_AT, THERE = "\nr0 += ", "\nr0 = *(u32 *)(r0 + 0)\nout:\nr0 = 2\nexit\n"
EACH = "r1 = map_by_fd(0) ll\nr2 = code_addr(f) ll\nr3 = 0\nr4 = 0\ncall 164\n"
OUT = "\nout:\nr0 = 2\nexit\n"
LIMIT = 20_000
"""Instructions that are walked here; Linux's million takes a minute."""
RULES = {}


def rule(name, *programs):
    """Programs of a rule: (text, error or None, type)."""
    RULES[name] = [(*program, XDP)[:3] for program in programs]


rule("registers are written before they are read",
     ("r0 = 2\nexit", None),
     ("exit", "R0 !read_ok"),
     ("r0 = r5\nexit", "R5 !read_ok"),
     ("call 5\nr0 = r1\nexit", "R1 !read_ok"))
rule("every instruction is reached",
     ("r0 = 2\ngoto end\nr0 = 3\nend:\nexit", "unreachable insn 2"))
rule("the context is loaded as its members are",
     ("r0 = *(u32 *)(r1 + 16)\nexit", None),
     ("r0 = *(u16 *)(r1 + 16)\nexit", "invalid bpf_context access off=16 size=2"),
     ("r0 = *(u64 *)(r1 + 0)\nexit", "invalid bpf_context access off=0 size=8"),
     ("r0 = *(u32 *)(r1 + 24)\nexit", "invalid bpf_context access off=24 size=4"),
     ("r0 = *(u32 *)(r1 + 20)\nexit", "invalid bpf_context access off=20 size=4"),
     ("r0 = 2\n*(u32 *)(r1 + 16) = r0\nexit", "invalid bpf_context access off=16 size=4"),
     ("r1 += 4\nr0 = *(u32 *)(r1 + 0)\nexit", "dereference of modified ctx ptr R1 off=4 disallowed"),
     ("r0 = *(u8 *)(r1 + 17)\nexit", None, TC),
     ("r0 = *(u32 *)(r1 + 48)\nr0 = *(u64 *)(r1 + 48)\n*(u8 *)(r1 + 51) = 1\nexit", None, TC),
     ("r0 = 1\n*(u32 *)(r1 + 8) = r0\nexit", None, TC),
     ("r0 = 1\n*(u16 *)(r1 + 8) = r0\nexit", "invalid bpf_context access off=8 size=2", TC),
     ("r0 = 1\n*(u32 *)(r1 + 8) = r0\nexit", "invalid bpf_context access off=8 size=4", SOCKET),
     ("r0 = *(u32 *)(r1 + 76)\nexit", "invalid bpf_context access off=76 size=4", SOCKET),
     ("r0 = *(u32 *)(r1 + 0)\nexit", None, SOCKET))
rule("packets are accessed within what was compared with data_end",
     (PACKET + "r4 = r2\nr4 += 14\nif r4 > r3 goto out\nr0 = *(u8 *)(r2 + 13)" + OUT, None),
     (PACKET + "r4 = r2\nr4 += 14\nif r3 < r4 goto out\nr0 = *(u8 *)(r2 + 13)" + OUT, None),
     (PACKET + "r4 = r2\nr4 += 14\nif r4 > r3 goto out\nr0 = *(u8 *)(r2 + 14)" + OUT,
      "R2 offset is outside of the packet"),
     (PACKET + "r4 = r2\nr4 += 14\nif r4 >= r3 goto out\nr0 = *(u8 *)(r2 + 14)" + OUT, None),
     (PACKET + "r4 = r2\nr4 += 14\nif r4 <= r3 goto in\ngoto out\nin:\nr0 = *(u16 *)(r4 - 2)" + OUT, None),
     (PACKET + "r0 = *(u8 *)(r2 + 0)\nexit", "R2 offset is outside of the packet"),
     (PACKET + "r4 = r2\nr4 += 14\nif r4 > r3 goto out\nr0 = *(u32 *)(r2 + 1)" + OUT, None),
     (PACKET + "r0 = *(u8 *)(r3 + 0)\nexit", "R3 invalid mem access 'pkt_end'"),
     ("r2 = *(u32 *)(r1 + 8)\nr3 = *(u32 *)(r1 + 0)\nr4 = r2\nr4 += 4\nif r4 > r3 goto out\n"
      "r0 = *(u32 *)(r2 + 0)" + OUT, None))
rule("variable offsets in packets are bounded, and have a range of their own",
     (PACKET + "r4 = *(u32 *)(r1 + 16)\nr4 &= 63\nr2 += r4\nr5 = r2\nr5 += 4\nif r5 > r3 goto out\n"
      "r0 = *(u32 *)(r2 + 0)" + OUT, None),
     (PACKET + "r4 = *(u32 *)(r1 + 16)\nr5 = r2\nr5 += 64\nif r5 > r3 goto out\nr4 &= 15\nr2 += r4\n"
      "r0 = *(u8 *)(r2 + 0)" + OUT, "R2 offset is outside of the packet"),
     (PACKET + "r4 = *(u32 *)(r1 + 16)\nr2 += r4\nr5 = r2\nr5 += 4\nif r5 > r3 goto out\nr0 = *(u32 *)(r2 + 0)" + OUT,
      "value .* makes pkt pointer be out of bounds|R2 offset is outside of the packet"),
     (PACKET + "r4 = *(u32 *)(r1 + 16)\nr4 &= 65535\nr2 += r4\nr5 = r2\nr5 += 4\nif r5 > r3 goto out\n"
      "r0 = *(u32 *)(r2 + 0)" + OUT, "R2 offset is outside of the packet"))
rule("helpers that change the packet end what is known of it",
     (PACKET + "r6 = r2\nr4 = r2\nr4 += 14\nif r4 > r3 goto out\nr2 = 0\ncall 44\nr0 = *(u8 *)(r6 + 0)" + OUT,
      "R6 invalid mem access 'scalar'"))
rule("the stack is 512 bytes, aligned",
     ("r0 = 1\n*(u64 *)(r10 - 512) = r0\nexit", None),
     ("r0 = 1\n*(u64 *)(r10 - 520) = r0\nexit", "invalid write to stack R10 off=-520 size=8"),
     ("r0 = 1\n*(u64 *)(r10 + 0) = r0\nexit", "invalid write to stack R10 off=0 size=8"),
     ("r0 = 1\n*(u32 *)(r10 - 6) = r0\nexit", "misaligned stack access off .* size 4"),
     ("r0 = *(u64 *)(r10 - 8)\nexit", None),
     ("r2 = r10\nr2 -= 8\n*(u64 *)(r2 + 0) = 1\nr0 = 0\nexit", "R2 subtraction from stack pointer prohibited"))
rule("spilled registers keep their state",
     (PACKET + "*(u64 *)(r10 - 8) = r2\nr4 = r2\nr4 += 4\nif r4 > r3 goto out\nr5 = *(u64 *)(r10 - 8)\n"
      "r0 = *(u32 *)(r5 + 0)" + OUT, None),
     ("*(u32 *)(r10 - 8) = r1\nr0 = 0\nexit", "invalid size of register spill"),
     ("*(u64 *)(r10 - 8) = r1\nr0 = *(u32 *)(r10 - 8)\nexit", "invalid size of register fill"),
     ("*(u64 *)(r10 - 8) = r1\n*(u8 *)(r10 - 8) = 0\nr1 = *(u64 *)(r10 - 8)\nr0 = *(u32 *)(r1 + 0)\nexit",
      "R1 invalid mem access 'scalar'"),
     ("*(u32 *)(r10 - 8) = 0\nr1 = *(u16 *)(r10 - 6)\nif r1 == 0 goto out\nr0 = r9" + OUT, None),
     ("*(u32 *)(r10 - 8) = 1\nr1 = *(u16 *)(r10 - 6)\nif r1 == 0 goto out\nr0 = r9" + OUT, "R9 !read_ok"),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\n*(u32 *)(r10 - 8) = r1\nif r1 > 12 goto out\nr2 = *(u32 *)(r10 - 8)\n"
      "r0 += r2\nr0 = *(u32 *)(r0 + 0)" + OUT, None),
     # Bytes of zeros beside a spilled number: another path that has a number there isn't covered.
     (VALUE + "r6 = r0\nr7 = *(u32 *)(r6 + 0)\nr8 = *(u32 *)(r6 + 4)\nif r8 == 0 goto other\n*(u32 *)(r10 - 4) = 0\n"
      "join:\n*(u32 *)(r10 - 8) = r7\n" + "r1 = 3\n" * 6 + "if r8 == 5 goto on\nr1 = 4\nif r8 == 6 goto on\n"
      + "r1 = 5\n" * 4 + "on:\nr1 = *(u32 *)(r10 - 4)\nr6 += r1\nr0 = *(u8 *)(r6 + 0)\ngoto out\nother:\n"
      "*(u32 *)(r10 - 4) = r7\ngoto join" + OUT, "R6 unbounded memory access"))
rule("map values are accessed within their size",
     (VALUE + "r0 = *(u64 *)(r0 + 8)" + OUT, None),
     (VALUE + "r0 = *(u32 *)(r0 + 13)" + OUT, "R0 max value is outside of the allowed memory range|R0 min value is "
      "outside of the allowed memory range"),
     (VALUE + "r0 = *(u8 *)(r0 - 1)" + OUT, "R0 min value is outside of the allowed memory range"),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nif r1 > 15 goto out\nr0 += r1\nr0 = *(u8 *)(r0 + 0)" + OUT, None),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nif r1 > 16 goto out\nr0 += r1\nr0 = *(u8 *)(r0 + 0)" + OUT,
      "R0 max value is outside of the allowed memory range"),
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nif r1 s> 15 goto out\nr0 += r1\nr0 = *(u8 *)(r0 + 0)" + OUT,
      "R0 unbounded memory access|math between map_value pointer and register with unbounded min value"),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nr0 += r1\nr0 = *(u8 *)(r0 + 0)" + OUT, "R0 unbounded memory access"))
rule("pointers that may be null are compared first",
     (LOOKUP + "r1 = *(u8 *)(r0 + 0)\nr0 = 2\nexit", "R0 invalid mem access 'map_value_or_null'"),
     (LOOKUP + "r0 += 4\nr0 = 2\nexit", "R0 pointer arithmetic on map_value_or_null prohibited"),
     (LOOKUP + "r7 = r0\nif r0 == 0 goto out\nr0 = *(u8 *)(r7 + 0)" + OUT, None),
     (LOOKUP + "*(u64 *)(r10 - 16) = r0\nif r0 != 0 goto in\ngoto out\nin:\nr1 = *(u64 *)(r10 - 16)\n"
      "r0 = *(u8 *)(r1 + 0)" + OUT, None))
rule("a constant index within an array needs no comparison",
     ("*(u32 *)(r10 - 8) = 3\nr2 = r10\nr2 += -8\nr1 = map_by_fd(0) ll\ncall 1\nr0 = *(u8 *)(r0 + 0)\nexit", None),
     ("*(u32 *)(r10 - 8) = 4\nr2 = r10\nr2 += -8\nr1 = map_by_fd(0) ll\ncall 1\nr0 = *(u8 *)(r0 + 0)\nexit",
      "R0 invalid mem access 'map_value_or_null'"),
     ("*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -4\nr1 = map_by_fd(0) ll\ncall 1\nr0 = *(u8 *)(r0 + 0)\nexit", None),
     ("*(u64 *)(r10 - 8) = 0\nr2 = r10\nr2 += -8\nr1 = map_by_fd(0) ll\ncall 1\nr0 = *(u8 *)(r0 + 0)\nexit",
      "R0 invalid mem access 'map_value_or_null'"))
rule("a condition on a number holds for its copies",
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nr2 = r1\nif r2 > 12 goto out\nr0 += r1\nr0 = *(u32 *)(r0 + 0)" + OUT, None),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nw2 = w1\nif w2 > 12 goto out\nr0 += r1\nr0 = *(u32 *)(r0 + 0)" + OUT, None),
     (VALUE + "r1 = *(u32 *)(r0 + 0)\nr2 = r1\nr2 += 4\nif r2 > 16 goto out\nr0 += r1\nr0 = *(u32 *)(r0 + 0)" + OUT,
      None),
     (INDEX + "r2 = r1\nr2 -= 4\nif r2 > 8 goto out" + LOADS_AT + "r1" + THERE, None),
     (INDEX + "r2 = r1\nr3 = 4\nr2 += r3\nif r2 > 16 goto out" + LOADS_AT + "r1" + THERE, None),
     (INDEX + "r2 = r1\nr2 += 4\nr2 += 2\nif r2 > 16 goto out" + LOADS_AT + "r1" + THERE, "R0 unbounded memory access"),
     (INDEX + "w2 = w1\nw2 += 4\nif w1 > 8 goto out" + LOADS_AT + "r2" + THERE, None),
     (INDEX + "w2 = w1\nw2 += 4\nif w2 > 16 goto out" + LOADS_AT + "r1" + THERE, "R0 unbounded memory access"),
     (INDEX + "w1 &= 255\nw2 = w1\nw2 += 4\nif w2 > 16 goto out" + LOADS_AT + "r1" + THERE, None),
     (INDEX + "w1 &= 255\nw2 = w1\nw2 -= 4\nif w2 > 8 goto out" + LOADS_AT + "r1" + THERE, None),
     (INDEX + "w1 &= 255\nw2 = w1\nw2 += 4\nr3 = r1\nr3 += 2\nif r3 > 8 goto out" + LOADS_AT + "r2" + THERE,
      "R0 max value is outside of the allowed memory range"),
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nr2 = r1\nw2 += 4\nif r1 > 8 goto out" + LOADS_AT + "r2" + THERE,
      "R0 unbounded memory access"))
rule("numbers are known by bits and by four ranges",
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nr1 &= 12\nr0 += r1\nr0 = *(u32 *)(r0 + 0)" + OUT, None),
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nif r1 s< 0 goto out\nif r1 s> 8 goto out\nr0 += r1\nr0 = *(u64 *)(r0 + 0)" + OUT,
      None),
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nw1 >>= 29\nr0 += r1\nr0 = *(u64 *)(r0 + 0)" + OUT, None),
     (VALUE + "r1 = *(u64 *)(r0 + 0)\nif w1 > 8 goto out\nr0 += r1\nr0 = *(u64 *)(r0 + 0)" + OUT,
      "R0 unbounded memory access|math between map_value pointer and register with unbounded min value is not allowed"))
rule("arithmetic on pointers is addition and subtraction",
     ("r1 *= 2\nr0 = 0\nexit", r"R1 pointer arithmetic with \*= operator prohibited"),
     ("r1 &= 7\nr0 = 0\nexit", "R1 bitwise operator &= on pointer prohibited"),
     ("r1 += r10\nr0 = 0\nexit", r"R1 pointer \+= pointer prohibited"),
     (PACKET + "r3 -= r2\nr0 = r3\nexit", None),
     ("r2 = 5\nr2 -= r1\nr0 = 0\nexit", "R2 tried to subtract pointer from scalar"),
     ("w1 += 1\nr0 = 0\nexit", "R1 32-bit pointer arithmetic prohibited"),
     (PACKET + "r3 += 1\nr0 = 0\nexit", "R3 pointer arithmetic on pkt_end prohibited"))
rule("shifts and divisors that are constants are legal",
     ("r0 = 1\nr0 <<= 64\nexit", "invalid shift 64"),
     ("r0 = 1\nr0 /= 0\nexit", "div by zero"),
     ("r0 = 1\nr1 = 0\nr0 /= r1\nexit", None))
rule("atomics are for the stack and map values, aligned",
     (VALUE + "r1 = 1\nlock *(u64 *)(r0 + 8) += r1" + OUT, None),
     (VALUE + "r1 = 1\nlock *(u64 *)(r0 + 4) += r1" + OUT, "misaligned value access off .* size 8"),
     (PACKET + "r4 = r2\nr4 += 8\nif r4 > r3 goto out\nr1 = 1\nlock *(u32 *)(r2 + 0) += w1" + OUT,
      "BPF_ATOMIC stores into R2 pkt is not allowed"))
rule("helpers get what they take",
     (KEY + "r1 = 5\ncall 1\nr0 = 2\nexit", "R1 type=scalar expected=map_ptr"),
     ("r6 = r1\nr1 = map_by_fd(0) ll\nr2 = r6\ncall 1\nr0 = 2\nexit", "R2 type=ctx expected="),
     (KEY + "r1 = map_by_fd(2) ll\ncall 1\nr0 = 2\nexit", "cannot pass map_type 3 into func bpf_map_lookup_elem#1"),
     ("r2 = 0\nr1 = r10\ncall 44\nr0 = 2\nexit", "R1 type=fp expected=ctx"),
     (KEY + "r2 += 2\nr1 = map_by_fd(0) ll\ncall 1\nr0 = 2\nexit", "invalid read from stack R2 off=-2 size=4"),
     ("r1 = 0\ncall 300\nr0 = 2\nexit", "invalid func unknown#300"),
     ("r2 = 0\ncall 44\nr0 = 2\nexit", "program of this type cannot use helper bpf_xdp_adjust_head#44", TC))
rule("sizes that helpers get are bounded",
     ("r6 = r1\nr1 = r10\nr1 += -16\nr2 = 16\nr3 = 0\nr4 = 0\nr5 = 0\ncall 28\nr0 = 2\nexit", None),
     ("r6 = r1\nr1 = r10\nr1 += -16\nr2 = 20\nr3 = 0\nr4 = 0\nr5 = 0\ncall 28\nr0 = 2\nexit",
      "invalid read from stack R1 off=-16 size=20"),
     ("r2 = *(u32 *)(r1 + 16)\nr1 = r10\nr1 += -16\nr3 = 0\nr4 = 0\nr5 = 0\ncall 28\nr0 = 2\nexit",
      "R2 unbounded memory access, use 'var &= const' or 'if \\(var < const\\)'"),
     ("r2 = *(u32 *)(r1 + 16)\nr2 &= 15\nr1 = r10\nr1 += -16\nr3 = 0\nr4 = 0\nr5 = 0\ncall 28\nr0 = 2\nexit", None),
     ("r2 = *(u32 *)(r1 + 16)\nif r2 s< 0 goto out\nr2 <<= 32\nr2 s>>= 32\nr1 = r10\nr1 += -16\nr3 = 0\nr4 = 0\n"
      "r5 = 0\ncall 28" + OUT, "R2 min value is negative, either use unsigned or 'var &= const'"),
     ("r3 = r10\nr3 += -8\nr2 = 0\nr4 = 0\ncall 26\nr0 = 2\nexit", "R4 invalid zero-sized read", TC))
rule("helpers take pointers into the packet where they say so",
     (PACKET + "r4 = r2\nr4 += 8\nif r4 > r3 goto out\nr1 = map_by_fd(1) ll\ncall 1" + OUT, None),
     (PACKET + "r4 = r2\nr4 += 8\nif r4 > r3 goto out\nr3 = r2\nr2 = 0\nr4 = 8\ncall 189" + OUT,
      "helper access to the packet is not allowed"))
rule("maps that are read only are only read",
     ("r1 = map_val(map_by_fd(3)) + 0 ll\nr0 = *(u32 *)(r1 + 0)\nexit", None),
     ("r1 = map_val(map_by_fd(3)) + 0 ll\n*(u32 *)(r1 + 0) = 1\nr0 = 0\nexit",
      "write into map forbidden, value_size=16 off=0 size=4"),
     (KEY + "r3 = r10\nr3 += -24\nr4 = 0\nr1 = map_by_fd(7) ll\ncall 2\nr0 = 2\nexit", "write into map forbidden"),
     (KEY + "r1 = map_by_fd(8) ll\ncall 1\nif r0 == 0 goto out\nr0 = *(u8 *)(r0 + 0)" + OUT,
      "read from map forbidden"))
rule("constants of the program decide its branches",
     ("r1 = map_val(map_by_fd(3)) + 0 ll\nr0 = *(u32 *)(r1 + 0)\nif r0 == 7 goto out\nr0 = r9" + OUT, None))
rule("loops end",
     ("r0 = 0\nloop:\nr0 += 1\nif r0 != 100 goto loop\nexit", None),
     ("r0 = 0\nloop:\nif r0 == 0 goto loop\nexit", "infinite loop detected at insn 1"),
     ("r0 = *(u32 *)(r1 + 16)\nr2 = 0\nloop:\nr2 += 1\nif r2 < r0 goto loop\nr0 = 0\nexit",
      "BPF program is too large. Processed \\d+ insn"))
rule("functions of the program",
     ("r1 = 3\ncall f\nexit\nf:\nr0 = r1\nexit", None),
     ("r6 = 3\ncall f\nexit\nf:\nr0 = r6\nexit", "R6 !read_ok"),
     ("r1 = r10\nr1 += -8\ncall f\nr0 = *(u64 *)(r10 - 8)\nexit\nf:\n*(u64 *)(r1 + 0) = 5\nr0 = 0\nexit", None),
     ("call f\nr0 = 0\nexit\nf:\nr0 = r10\nexit", "cannot return stack pointer to the caller"),
     ("r1 = r10\nr1 += -8\ncall f\nr1 = *(u64 *)(r10 - 8)\nr0 = *(u64 *)(r1 - 8)\nexit\nf:\n*(u64 *)(r1 + 0) = r10\n"
      "r0 = 0\nexit", "cannot spill pointers to stack into stack frame of the caller"),
     ("r1 = r10\nr1 += -8\ncall f\nexit\nf:\n*(u64 *)(r1 + 0) = r1\nr0 = 0\nexit",
      "cannot spill pointers to stack into stack frame of the caller"),
     ("call f\nr0 = 0\nexit\nf:\n*(u64 *)(r10 - 264) = 0\ncall g\nexit\ng:\n*(u64 *)(r10 - 264) = 0\nr0 = 0\nexit",
      "combined stack size of 3 calls is"),
     ("call f\nexit\nf:\ncall f\nexit", "recursive call|the call stack of 9 frames is too deep"),
     ("call f\nexit\nf:\n*(u64 *)(r10 - 512) = 0\ncall g\nexit\ng:\nr0 = 0\nexit", None),
     ("*(u64 *)(r10 - 8) = 0\ncall f\nexit\nf:\n*(u64 *)(r10 - 504) = 0\nr0 = 0\nexit",
      "combined stack size of 2 calls is 528. Too large"),
     ("r0 = 0\nif r0 == 0 goto out\ncall f\nout:\nr0 = 0\nexit\nf:\ncall g\nexit\ng:\ncall f\nexit",
      "the call stack of 8 frames is too deep"))
rule("tail calls",
     ("r2 = map_by_fd(2) ll\nr3 = 0\ncall 12\nr0 = 2\nexit", None),
     ("r2 = map_by_fd(2) ll\nr3 = 0\ncall 12\nexit", "R0 !read_ok"),
     ("*(u64 *)(r10 - 240) = 0\ncall f\nexit\nf:\nr2 = map_by_fd(2) ll\nr3 = 0\ncall 12\nr0 = 2\nexit", None),
     ("*(u64 *)(r10 - 248) = 0\ncall f\nexit\nf:\nr2 = map_by_fd(2) ll\nr3 = 0\ncall 12\nr0 = 2\nexit",
      "tail_calls are not allowed when call stack of previous frames is 256 bytes. Too large"),
     ("r2 = map_by_fd(0) ll\nr3 = 0\ncall 12\nr0 = 2\nexit", "expected prog array map for tail call"),
     # What the tail call's program returns, its function's caller gets: anything, and another packet.
     ("call f\n" + USES + TAIL + "r0 = 2\nexit", "math between fp pointer and register with unbounded min value"),
     ("call f\nr0 &= 7\n" + USES + TAIL + "r0 = 2\nexit", None),
     (PACKET + "r6 = r2\nr2 += 14\nif r2 > r3 goto out\ncall f\nr0 = *(u8 *)(r6 + 0)" + OUT + TAIL + "r0 = 2\nexit",
      "R6 invalid mem access 'scalar'"),
     (PACKET + "r6 = r2\nr2 += 14\nif r2 > r3 goto out\nr2 = map_by_fd(2) ll\nr3 = 0\ncall 12\n"
      "r0 = *(u8 *)(r6 + 0)" + OUT, None),
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = 0\nr4 = 0\nr6 = r1\ncall 181\nr0 = 2\nexit\n" + TAIL.replace(
         "r2", "r1 = 0\nr2", 1) + "r0 = 0\nexit", "R1 type=scalar expected=ctx"))
rule("numbers that are -1 or 0 are walked apart before a mask",
     (SIGN + "w1 &= 12\nif w1 == 0 goto +2\nif w1 == 12 goto +1\nr0 = *(u64 *)(r1 + 0)\nr0 = 2\nexit", None),
     (SIGN + "w1 |= 12\nif w1 == 12 goto +2\nif w1 == -1 goto +1\nr0 = *(u64 *)(r1 + 0)\nr0 = 2\nexit", None),
     (SIGN + "w1 &= 12\nif w1 == 12 goto +1\nr0 = *(u64 *)(r1 + 0)\nr0 = 2\nexit", "R1 invalid mem access 'scalar'"),
     ("r1 = *(u32 *)(r1 + 16)\nr1 <<= 32\nr1 s>>= 63\nr2 = 6\nr1 &= r2\nif r1 == 0 goto +2\nif r1 == 6 goto +1\n"
      "r0 = *(u64 *)(r1 + 0)\nr0 = 2\nexit", None))
rule("maps in maps",
     (KEY + "r1 = map_by_fd(5) ll\ncall 1\nif r0 == 0 goto out\n*(u32 *)(r10 - 8) = 1\nr2 = r10\nr2 += -8\nr1 = r0\n"
      "call 1\nif r0 == 0 goto out\nr0 = *(u32 *)(r0 + 12)" + OUT, None),
     (KEY + "r1 = map_by_fd(5) ll\ncall 1\nr1 = r0\nr2 = r10\nr2 += -4\ncall 1\nr0 = 2\nexit",
      "R1 type=map_value_or_null expected=map_ptr|R1 type=map_ptr_or_null expected=map_ptr"))
rule("records are given back",
     ("r1 = map_by_fd(4) ll\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto out\n*(u64 *)(r0 + 0) = 1\nr1 = r0\nr2 = 0\n"
      "call 132" + OUT, None),
     ("r1 = map_by_fd(4) ll\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto out\n*(u64 *)(r0 + 0) = 1" + OUT,
      "BPF_EXIT instruction in main prog would lead to reference leak"),
     ("r1 = map_by_fd(4) ll\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto out\nr6 = r0\nr1 = r0\nr2 = 0\n"
      "call 132\n*(u64 *)(r6 + 0) = 1" + OUT, "R6 invalid mem access 'scalar'"),
     ("r1 = map_by_fd(4) ll\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto out\n*(u64 *)(r0 + 8) = 1" + OUT,
      "R0 min value is outside of the allowed memory range"))
rule("callbacks",
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = r10\nr3 += -8\nr4 = 0\n*(u64 *)(r10 - 8) = 0\ncall 181\nr0 = 2\nexit\n"
      "f:\nr0 = *(u64 *)(r2 + 0)\nr0 = 0\nexit", None),
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = 0\nr4 = 0\ncall 181\nr0 = 2\nexit\nf:\nr0 = 7\nexit",
      "should have been in \\[0, 1\\]"),
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = 0\nr4 = 0\ncall 181\nr0 = 2\nexit\nf:\nr0 = *(u64 *)(r2 + 0)\nr0 = 0\nexit",
      "R2 invalid mem access 'scalar'"),
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = 0\nr4 = 0\ncall 181\nr0 = 2\nexit\nf:\nr1 = 4\nr2 = code_addr(g) ll\n"
      "r3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit\ng:\nr0 = 0\nexit", None),
     ("r1 = 10\nr2 = code_addr(f) ll\nr3 = r10\nr3 += -16\nr4 = 0\n*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\n"
      "call 181\nr0 = 2\nexit\nf:\nr2 += r1\nr0 = *(u8 *)(r2 + 0)\nr0 = 0\nexit",
      "math between fp pointer and register with unbounded min value is not allowed"),
     (EACH + "r0 = 2\nexit\nf:\nr0 = *(u32 *)(r3 + 0)\nr0 = *(u32 *)(r2 + 0)\nr0 = 0\nexit", None),
     (EACH + "r0 = 2\nexit\nf:\n*(u32 *)(r2 + 0) = 1\nr0 = 0\nexit", "write to change key R2 not allowed"),
     ("*(u64 *)(r10 - 8) = 0\n" + EACH.replace("r3 = 0", "r3 = r10\nr3 += -8") + "r0 = *(u64 *)(r10 - 8)\nexit\n"
      "f:\nr1 = *(u64 *)(r4 + 0)\nr1 += 1\n*(u64 *)(r4 + 0) = r1\nr0 = 0\nexit", None),
     ("r2 = code_addr(f) ll\nr0 = *(u64 *)(r2 + 0)\nexit\nf:\nr0 = 0\nexit", "R2 invalid mem access 'func'"),
     ("r1 = r10\nr1 += -16\nr2 = code_addr(f) ll\ncall 170\nr0 = 2\nexit\nf:\nr0 = 0\nexit",
      "not followed|R1 type=fp expected=map_value"))
rule("loads by offset in the packet",
     ("r6 = r1\nr0 = *(u16 *)skb[12]\nexit", None, SOCKET),
     ("r0 = *(u16 *)skb[12]\nexit", "R6 !read_ok", SOCKET),
     ("r6 = r1\nr0 = *(u16 *)skb[12]\nexit", None, TC),
     ("r6 = r1\nr0 = *(u16 *)skb[12]\nexit", "BPF_LD_\\[ABS\\|IND\\] instructions not allowed for this program type"),
     ("r6 = r1\nr2 = 5\nr0 = *(u16 *)skb[12]\nr0 = r2\nexit", "R2 !read_ok", SOCKET),
     ("r6 = r1\nr7 = 5\nr0 = *(u16 *)skb[r7 + 12]\nr0 = r7\nexit", None, SOCKET),
     ("r6 = r1\nr0 = *(u16 *)skb[r7 + 12]\nexit", "R7 !read_ok", SOCKET),
     ("r6 = r10\nr0 = *(u16 *)skb[12]\nexit", "at the time of BPF_LD_ABS\\|IND R6 != pointer to skb", SOCKET),
     ("r6 = r1\nr6 += 4\nr0 = *(u16 *)skb[12]\nexit", "dereference of modified ctx ptr R6 off=4 disallowed", SOCKET),
     ("r6 = r1\nr1 = map_by_fd(4) ll\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto out\nr7 = r0\nr0 = *(u8 *)skb[12]\n"
      "r1 = r7\nr2 = 0\ncall 132" + OUT, "BPF_LD_\\[ABS\\|IND\\] would lead to reference leak", SOCKET),
     ("call f\nexit\nf:\nr6 = r1\nr0 = *(u16 *)skb[12]\nexit", None, SOCKET),
     # Outside the packet it ends its function, with 0.
     ("call f\nif r0 == 1 goto +1\nr0 = *(u64 *)(r0 + 0)\nr0 = 2\nexit\nf:\nr6 = r1\nr0 = *(u16 *)skb[12]\nr0 = 1\n"
      "exit", "R0 invalid mem access 'scalar'", SOCKET),
     ("call f\nif r0 == 1 goto +2\nif r0 == 0 goto +1\nr0 = *(u64 *)(r0 + 0)\nr0 = 2\nexit\nf:\nr6 = r1\n"
      "r0 = *(u16 *)skb[12]\nr0 = 1\nexit", None, SOCKET))
rule("the license",
     ("r1 = r10\nr1 += -8\nr2 = 8\n*(u64 *)(r10 - 8) = 0\ncall 6\nr0 = 2\nexit", None))

CASES = [(name, number, *program) for name, programs in RULES.items() for number, program in enumerate(programs)]


def ids(case):
    return f"{case[0]}-{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_rule(case):
    _name, _number, text, error, type = case
    verdict = verify(subject(text, type), limit=LIMIT)
    assert (verdict.error and verdict.error.message) == error or re.search(error, verdict.error.message)


@pytest.mark.linux
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_rule_in_the_kernel(case):
    _name, _number, text, error, type = case
    verdict = judge(subject(text, type))
    assert verdict.accepted == (error is None), verdict.log[-600:]
    if error is not None:
        assert re.search(error, verdict.log), verdict.log[-600:]
