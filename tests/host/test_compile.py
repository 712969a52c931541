import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bpfnic.host import compile as compiling
from bpfnic.host.compile import compile_object
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import HELPERS

REPOSITORY = Path(__file__).parents[2]

DROP = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiling.find_compiler.cache_clear()
    yield
    compiling.find_compiler.cache_clear()


def write(folder: Path, text: str, name: str = "program.bpf.c") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def section(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        return ELFFile(file).get_section_by_name(name).data()


def test_an_object_for_bpf_comes_out(tmp_path):
    path = compile_object(write(tmp_path, DROP))
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == "EM_BPF" and elf.little_endian
        assert elf.get_section_by_name(".BTF") and elf.get_section_by_name(".BTF.ext")
    assert section(path, "xdp") == bytes.fromhex("b400000001000000 9500000000000000")  # w0 = 1; exit


USUAL = """\
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_vlan.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/mpls.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <asm/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <endian.h>
#include <inttypes.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include "bpf_helpers.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __type(key, __u32); __type(value, __u32); __uint(max_entries, 2);
} jumps SEC(".maps");
struct kernel { struct kernel *next; unsigned int bits : 5; int value; } __attribute__((preserve_access_index));

SEC("xdp")
int usual(struct xdp_md *ctx)
{
	uint8_t *data = (void *)(long)ctx->data;
	struct kernel *kernel = (void *)bpf_ktime_get_ns();
	int i, sum = BPF_CORE_READ(kernel, next, next, value) + BPF_CORE_READ_BITFIELD_PROBED(kernel, bits);

	if (data + 12 > (uint8_t *)(long)ctx->data_end)
		return XDP_ABORTED;
	memcpy(data, data + 6, 6);
	bpf_for(i, 0, 4)
		sum += bpf_core_field_exists(kernel->next);
	bpf_printk("%d", sum);
	bpf_printk("%d %d %d %d %d", 1, 2, 3, sum, bpf_ntohs(0x800));
	bpf_tail_call_static(ctx, &jumps, 1);
	return ctx->rx_queue_index == htons(1) ? XDP_PASS : XDP_DROP;
}
SEC("fentry/somewhere") int BPF_PROG(traced, int first, struct kernel *second) { return second->value + first; }
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize("cpu", compiling.CPUS)
def test_what_xdp_sources_include_resolves(tmp_path, cpu, capfd):
    path = compile_object(write(tmp_path, USUAL), cpu=cpu)
    assert capfd.readouterr().err == ""
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        undefined = {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"}
    assert undefined == {"", "bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"}  # and no memcpy


def test_every_helper_can_be_called(tmp_path):
    """The numbers and the argument counts in the header, as the compiler sees them."""
    calls = []
    for helper in HELPERS:
        inside = helper.prototype.split("(", 1)[1].rstrip(")")
        arguments = ", ".join("0" for part in inside.split(",") if part.strip() not in ("void", "..."))
        calls.append(f"bpf_{helper.name}({arguments});")
    text = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    path = compile_object(write(tmp_path, text + 'SEC("xdp") int all(void *c) {' + "\n".join(calls) + "return 0; }\n"))
    code = section(path, "xdp")
    called = [int.from_bytes(code[i + 4 : i + 8], "little") for i in range(0, len(code), 8) if code[i] == 0x85]
    assert called == [helper.number for helper in HELPERS]


def test_the_committed_header_is_what_the_table_says():
    text = "import runpy, sys; sys.stdout.write(runpy.run_path('tools/helper_defs.py')['header']())"
    made = subprocess.run([sys.executable, "-c", text], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (REPOSITORY / "firmware/include/bpf/bpf_helper_defs.h").read_text() == made.stdout


def test_definitions_and_folders_reach_the_compiler(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "verdict.h").write_text("#define VERDICT XDP_TX\n")
    source = write(tmp_path, '#include "verdict.h"\n' + DROP.replace("XDP_DROP", "VERDICT + MORE"))
    path = compile_object(source, include=[folder], define=["MORE=1"])
    assert section(path, "xdp")[4] == 4


def test_the_cache_follows_the_content(tmp_path):
    source = write(tmp_path, '#include "verdict.h"\n' + DROP.replace("XDP_DROP", "VERDICT"))
    header = tmp_path / "verdict.h"
    header.write_text("#define VERDICT 1\n")
    first = compile_object(source)
    stamp = first.stat().st_mtime_ns
    assert compile_object(source) == first and first.stat().st_mtime_ns == stamp
    header.write_text("#define VERDICT 2\n")
    second = compile_object(source)
    assert second != first and section(second, "xdp")[4] == 2
    assert compile_object(source, cpu="v1") != second
    assert not [path for path in first.parent.iterdir() if path.is_dir()]  # nothing half made stays behind


def test_errors_are_the_compilers_own_lines(tmp_path):
    source = write(tmp_path, DROP.replace("XDP_DROP", "NOWHERE"))
    with pytest.raises(BpfnicError) as caught:
        compile_object(source)
    assert f"{source}:3:" in str(caught.value)
    assert "use of undeclared identifier 'NOWHERE'" in str(caught.value)
    assert str(caught.value).splitlines()[-1] == f"{source}: not compiled"


def test_a_missing_include_is_named(tmp_path):
    with pytest.raises(BpfnicError, match="'vmlinux.h' file not found"):
        compile_object(write(tmp_path, '#include "vmlinux.h"\n'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BpfnicError, match="nothing.bpf.c: no such file"):
        compile_object(tmp_path / "nothing.bpf.c")


def test_an_unknown_cpu_is_refused(tmp_path):
    with pytest.raises(BpfnicError, match="--mcpu v5: must be one of v1, v2, v3, v4"):
        compile_object(write(tmp_path, DROP), cpu="v5")


def test_without_a_compiler_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiling, "_wheel_folder", lambda: None)
    with pytest.raises(BpfnicError, match="^no C compiler for BPF: install clang 18 or newer, or `pip"):
        compile_object(write(tmp_path, DROP))


def stand_in(folder: Path, version: str) -> None:
    """A `clang` on PATH: the wheel's clang driver, calling itself another version."""
    wheel = compiling._wheel_folder()
    folder.mkdir()
    clang = folder / "clang"
    clang.write_text(f"""#!/bin/sh
case "$1" in
--version) echo "clang version {version}";;
--print-targets) echo "    bpfel - BPF (little endian)";;
*) echo used >> {folder}/used; exec {wheel}/zig clang -isystem {wheel}/lib/include "$@";;
esac
""")
    clang.chmod(0o755)


@pytest.mark.parametrize(("version", "used"), [("19.1.7", True), ("17.0.6", False)])
def test_clang_from_path_comes_first_where_it_is_new_enough(tmp_path, monkeypatch, version, used):
    stand_in(tmp_path / "bin", version)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    path = compile_object(write(tmp_path, USUAL))
    assert (tmp_path / "bin" / "used").exists() == used
    assert section(path, "xdp")


def test_a_cache_that_cant_be_written_is_named(tmp_path, monkeypatch):
    write(tmp_path, "", "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BpfnicError, match="set XDG_CACHE_HOME"):
        compile_object(write(tmp_path, DROP))
