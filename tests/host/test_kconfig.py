"""Values of a kernel's configuration that programs ask for."""

import gzip

import pytest

from bpfnic import Nic
from bpfnic.host import kconfig
from bpfnic.spec.errors import BpfnicError

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
extern unsigned int LINUX_KERNEL_VERSION __kconfig;
extern unsigned long CONFIG_HZ __kconfig;
extern _Bool CONFIG_BOOL __kconfig __weak;
extern enum libbpf_tristate CONFIG_TRISTATE __kconfig __weak;
extern char CONFIG_CHAR __kconfig __weak;
extern char CONFIG_TEXT[4] __kconfig __weak;
extern int CONFIG_NUMBER __kconfig;
SEC("xdp") int number(struct xdp_md *ctx) { return CONFIG_NUMBER + (CONFIG_TEXT[1] << 8) + (CONFIG_BOOL << 16); }
SEC("xdp") int version(struct xdp_md *ctx) { return LINUX_KERNEL_VERSION; }
SEC("xdp") int hertz(struct xdp_md *ctx) { return CONFIG_HZ; }
SEC("xdp") int absent(struct xdp_md *ctx) { return CONFIG_TRISTATE + CONFIG_CHAR; }
"""


@pytest.fixture
def object(build):
    return build(PROGRAM)


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_programs_read_them(object, backend):
    object.kconfig.update({"CONFIG_NUMBER": "0x21", "CONFIG_TEXT": '"ab"', "CONFIG_BOOL": "y"})
    with Nic(backend) as nic:
        assert nic.load(object, "number").test_run(bytes(64)).retval == 0x10000 + 0x6200 + 0x21
        assert nic.load(object, "version").test_run(bytes(64)).retval == 0x061200
        assert nic.load(object, "hertz").test_run(bytes(64)).retval == 250
        assert nic.load(object, "absent").test_run(bytes(64)).retval == 0
        assert nic.maps[".kconfig"]["CONFIG_TEXT"] == "ab"


def test_what_has_no_value_is_asked_for_by_name(object):
    with Nic("golden") as nic:
        with pytest.raises(BpfnicError, match="section 'xdp', offset 0x0: 'CONFIG_NUMBER' .* --kconfig CONFIG_NUMBER="):
            nic.load(object, "number")
        nic.load(object, "version")  # which doesn't ask for it
        object.kconfig["CONFIG_NUMBER"] = 1
        nic.load(object, "number")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [("BOOL", "y", True), ("BOOL", "n", False), ("TRISTATE", "m", "TRI_MODULE"), ("TRISTATE", "n", "TRI_NO"),
     ("CHAR", "y", ord("y")), ("CHAR", "7", 7), ("NUMBER", "-5", -5), ("TEXT", '"a\\"b"', 'a"b'),
     ("TEXT", '"abcdef"', "abc")],
)  # fmt: skip
def test_values_fit_their_types(object, name, given, value):
    object.kconfig[f"CONFIG_{name}"] = given
    assert object.kconfig[f"CONFIG_{name}"] == value


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [("BOOL", "m", "CONFIG_BOOL: m is no "), ("NUMBER", "y", "CONFIG_NUMBER: y is no int"),
     ("NUMBER", '"5"', 'CONFIG_NUMBER: "5" is no int'), ("TRISTATE", "1", "'1' is none of y, n, m"),
     ("NUMBER", "1 << 40", "is not a number"), ("NUMBER", "4294967296", "does not fit 32 bits"),
     ("OTHER", "y", ".kconfig has no variable 'CONFIG_OTHER'")],
)  # fmt: skip
def test_values_that_do_not_fit(object, name, given, message):
    with pytest.raises(BpfnicError, match=message):
        object.kconfig[f"CONFIG_{name}"] = given


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_gives_what_is_asked_for(object, tmp_path, packed):
    text = b'# comment\nCONFIG_NUMBER=9\n# CONFIG_BOOL is not set\nCONFIG_TEXT="x"\nCONFIG_UNKNOWN=y\n'
    (tmp_path / "config").write_bytes(gzip.compress(text) if packed else text)
    kconfig.give(object.kconfig, [str(tmp_path / "config"), "CONFIG_TEXT=\"y\""])
    assert (object.kconfig["CONFIG_NUMBER"], object.kconfig["CONFIG_TEXT"]) == (9, "y")


@pytest.mark.parametrize("given", ["CONFIG_NUMBER=", "nowhere/config", "CONFIG_OTHER=1"])
def test_the_command_line_says_what_it_can_not_take(build, bpfnic, given):
    status, out, err = bpfnic("verify", build(PROGRAM).path, "--kconfig", given)
    assert (status, out, err.count("\n")) == (2, "", 1) and given.rstrip("=1") in err


def test_the_command_line_gives_values_and_types(build, bpfnic):
    status, out, _ = bpfnic("verify", build(PROGRAM).path, "--kconfig", "CONFIG_NUMBER=3", "--type", "tc", "--json")
    assert status == 0 and out.count('"type": "SCHED_CLS"') == 4
    status, _, err = bpfnic("verify", build(PROGRAM).path, "--type", "kprobe")
    assert status == 2 and "'kprobe' is none of xdp" in err
