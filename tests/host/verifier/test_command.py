"""`bpfnic verify`: what it says of good and bad programs, and of bad input."""

import json
import random
from dataclasses import replace

import pytest

from bpfnic.host.compile import compile_object
from bpfnic.host.object import open_object
from bpfnic.host.verifier import command, limits
from bpfnic.host.verifier.verdict import Subject, verify
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import decode
from bpfnic.spec.programs import ProgramType
from tests.conftest import REPOSITORY
from tests.host.verifier.subjects import subject

GOOD = REPOSITORY / "firmware" / "programs" / "counter.bpf.c"
BAD = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); }
  counts SEC(".maps");
SEC("xdp") int unchecked(struct xdp_md *ctx)
{
    __u8 *data = (void *)(long)ctx->data;
    return data[13];
}
SEC("xdp") int maybe_null(struct xdp_md *ctx)
{
    __u32 key = ctx->rx_queue_index;
    __u64 *value = bpf_map_lookup_elem(&counts, &key);
    *value += 1;
    return XDP_PASS;
}
SEC("xdp") int sockets(struct xdp_md *ctx)
{
    return bpf_get_smp_processor_id() + bpf_ktime_get_boot_ns() + bpf_get_socket_cookie(ctx);
}
"""


def test_a_good_program_is_accepted(bpfnic):
    status, out, err = bpfnic("verify", GOOD)
    assert (status, err) == (0, "")
    assert out.startswith("program 'counter' is accepted: ")


def test_a_bad_program_is_explained(bpfnic, source):
    status, out, _ = bpfnic("verify", source(BAD), "--program", "unchecked")
    assert status == 1
    assert "program 'unchecked' is refused at instruction 1 (program.bpf.c:" in out
    assert "return data[13];" in out and "nothing was compared with data_end" in out
    assert "How r1 came to hold it:" in out and "__u8 *data = (void *)(long)ctx->data;" in out
    assert "What would help: compare pkt + 14 with data_end before this access." in out
    assert "R1 offset is outside of the packet\nprocessed 2 insns (limit 1000000)" in out


def test_the_log_has_the_kernels_format(bpfnic, source):
    _, out, _ = bpfnic("verify", source(BAD), "--program", "maybe_null", "--log", "1")
    assert "; __u32 key = ctx->rx_queue_index; @ program.bpf.c:" in out
    loaded = "R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"
    assert f"0: (61) r1 = *(u32 *)(r1 +16)         ; {loaded}" in out
    assert "R0=map_value_or_null(id=1,map=counts,ks=4,vs=8)" in out
    _, short, _ = bpfnic("verify", GOOD, "--log", "1")
    _, long, _ = bpfnic("verify", GOOD, "--log", "2")
    assert "\nfrom " in long and " safe\n" in long and len(short.splitlines()) < 4


def test_json_says_the_same(bpfnic, source):
    status, out, _ = bpfnic("verify", source(BAD), "--json")
    unchecked, null, sockets = json.loads(out)
    assert status == 1
    assert unchecked["error"]["instruction"] == 1 and unchecked["error"]["register"] == 1
    assert unchecked["error"]["path"] == [0, 1] and unchecked["error"]["source"] == "return data[13];"
    assert null["error"]["why"] == "r0 may be NULL here."
    assert not sockets["accepted"]


def test_what_the_device_lacks_is_named(bpfnic, source):
    text = 'SEC("tc") int f(struct __sk_buff *skb)\n{\n    bpf_get_route_realm(skb);\n    return 0;\n}\n'
    status, out, _ = bpfnic("verify", source(text))
    assert status == 1 and "is accepted" in out
    assert "helper bpf_get_route_realm (24) at instruction 0 (program.bpf.c:" in out
    assert "is not on this device: routes have no realms here" in out
    assert bpfnic("verify", source(text), "--backend", "none")[0] == 0


LARGE = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); __uint(max_entries, 10000); }
  first SEC(".maps"), second SEC(".maps");
SEC("xdp") int both(struct xdp_md *ctx)
{
    __u32 key = 1;
    __u64 *a = bpf_map_lookup_elem(&first, &key), *b = bpf_map_lookup_elem(&second, &key);
    return a && b && *a == *b ? XDP_PASS : XDP_DROP;
}
"""


def test_map_memory_is_counted_together(bpfnic, source):
    """Each map fits the device's 131,072 bytes alone, the two don't."""
    status, out, _ = bpfnic("verify", source(LARGE))
    assert status == 1 and "is accepted" in out
    assert "its maps take 160000 bytes of map memory together, of this device's 131072: " in out
    assert "first (ARRAY, max_entries 10000) 80000, second (ARRAY, max_entries 10000) 80000" in out
    assert bpfnic("verify", source(LARGE.replace("10000", "8192")))[0] == 0


def test_map_descriptors_are_counted(source):
    (name,) = open_object(compile_object(source(LARGE))).programs
    object = open_object(compile_object(source(LARGE)))
    subject = Subject.of(object, object.program(name))
    device = command._capabilities("golden")
    assert limits.memory_lacking(subject, replace(device, map_bytes=1 << 20, maps=2)) == []
    assert limits.memory_lacking(subject, replace(device, map_bytes=1 << 20, maps=1)) == [
        "its 2 maps take a descriptor each, of this device's 1"]  # fmt: skip


def test_the_page_shows_program_source_and_path(bpfnic, source, tmp_path):
    status, _, err = bpfnic("verify", source(BAD), "--program", "unchecked", "--html", tmp_path / "page.html")
    assert (status, err) == (1, "")
    page = (tmp_path / "page.html").read_text()
    assert 'id="i1" class="code path bad"' in page and "r0 = *(u8 *)(r1 +13)" in page
    assert "return data[13];" in page and "R1=pkt(r=0)" in page
    assert json.loads(page.split('id="path">')[1].split("</script>")[0])[1][0] == 1


def test_bad_input_is_one_line(bpfnic, source, tmp_path):
    (tmp_path / "text.o").write_text("no object")
    for arguments, said in (
        ((tmp_path / "none.o",), "No such file"),
        ((tmp_path / "text.o",), "not an ELF file"),
        ((GOOD, "--program", "other"), "has no program 'other'"),
        ((source(BAD), "--html", tmp_path / "x.html"), "--html: "),
        ((GOOD, "--html", tmp_path / "none" / "x.html"), "No such file or directory"),
        ((GOOD, "--backend", "other"), "other"),
        ((GOOD, "--log", "3"), "--log"),
    ):
        status, out, err = bpfnic("verify", *arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1 and said in err, err


@pytest.mark.parametrize("type", ProgramType)
def test_random_bytes_get_a_verdict(type):
    chance = random.Random(type)
    for _ in range(300):
        try:
            decode(code := chance.randbytes(8 * chance.randrange(1, 20)))
        except BpfnicError:
            continue
        assert verify(subject("", type, code=code), limit=3_000).error
