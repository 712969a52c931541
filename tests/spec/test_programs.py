"""Contexts and verdicts, judged by the kernel's headers and by the running kernel's verifier."""

import os

import pytest

from bpfnic.host import compile
from bpfnic.host.linux import bpf
from bpfnic.spec import programs
from bpfnic.spec.assembly import assemble
from bpfnic.spec.programs import SK_BUFF, SK_BUFF_BYTES, XDP_MD, ProgramType, TcAction, XdpAction


def test_layouts_and_verdicts_are_the_kernels(tmp_path):
    """A compiler says so: it sees the kernel's headers."""
    claims = [f"sizeof(struct __sk_buff) == {SK_BUFF_BYTES}"]
    for structure, fields in (("__sk_buff", SK_BUFF), ("xdp_md", XDP_MD)):
        for field in fields:
            claims.append(f"__builtin_offsetof(struct {structure}, {field.name}) == {field.offset}")
            claims.append(f"sizeof(((struct {structure} *)0)->{field.name}) == {field.size}")
    claims += [f"(unsigned int)TC_ACT_{action.name} == {action.value}u" for action in TcAction]
    claims += [f"{action.name} == {action.value}" for action in XdpAction]
    source = tmp_path / "claims.bpf.c"
    asserts = "".join(f'_Static_assert({claim}, "");\n' for claim in claims)
    source.write_text(f"#include <linux/bpf.h>\n#include <linux/pkt_cls.h>\n{asserts}")
    compile.compile_object(source)


@pytest.mark.linux
@pytest.mark.parametrize("field", SK_BUFF, ids=lambda field: field.name)
def test_what_a_program_may_do_with_a_field_is_what_the_kernel_lets_it(field):
    size = field.size if field.size in (1, 8) else programs.WORD_BYTES
    width = 8 * size
    for offset in range(field.offset, field.offset + field.size, size):
        assert _loads(f"r0 = *(u{width} *)(r1 + {offset})\nr0 = 0\nexit") is field.readable
        assert _loads(f"r0 = 0\n*(u{width} *)(r1 + {offset}) = r0\nexit") is (field.writable > 0)


def _loads(text):
    try:
        fd, _ = bpf.prog_load(ProgramType.SCHED_CLS, assemble(text))
    except bpf.Refused:
        return False
    os.close(fd)
    return True


def test_words_of_the_context():
    """Each live field is one that no program writes; halves are written."""
    assert not programs.SK_BUFF_LIVE & programs.SK_BUFF_WRITABLE
    assert programs.SK_BUFF_HALVES < programs.SK_BUFF_WRITABLE < programs.SK_BUFF_READABLE
    assert {word * programs.WORD_BYTES for word in programs.SK_BUFF_LIVE} == {0, 36, 40, 76, 80, 140}
