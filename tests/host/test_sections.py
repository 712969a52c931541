"""What the names of sections say of their programs."""

import pytest

from bpfnic import Nic
from bpfnic.host import sections
from bpfnic.host.object import open_object
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType

HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
XDP, TC, SOCKET = ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER


@pytest.mark.parametrize(
    ("names", "type"),
    [("xdp xdp_firewall xdp1 xdp.frags xdp/devmap xdp.frags/cpumap xdp/entry ?xdp", XDP),
     ("tc tc/ingress tc/egress tc/tail tc_mark tcx/ingress tcx/egress netkit/primary classifier classifier/a "
      "classifier_b action action/c ?tc", TC),
     ("socket socket/3 socket1 socket_filter", SOCKET),
     ("prog ingress from-netdev 2/7 tcp_filter sock .text", None)],
)  # fmt: skip
def test_types(names, type):
    assert {name: sections.read(name).type for name in names.split()} == dict.fromkeys(names.split(), type)


@pytest.mark.parametrize(
    ("name", "type"),
    [("kprobe/sys_read", "KPROBE"), ("kprobe.multi/x", "KPROBE"), ("tp_btf/xdp_exception", "TRACING"),
     ("sockops", "SOCK_OPS"), ("sk_lookup", "SK_LOOKUP"), ("cgroup/connect4", r"CGROUP_\*"),
     ("tracepoint/xdp/xdp_redirect", "TRACEPOINT"), ("fentry.s/x", "TRACING")],
)  # fmt: skip
def test_types_of_elsewhere_are_refused_by_name(build, name, type):
    assert sections.read(name).type is None
    object = build(HEAD + f'SEC("{name}") int program(void *ctx) {{ return 0; }}')
    with Nic("golden") as nic, pytest.raises(
        BpfnicError, match=rf"program is of type {type} \(section '{name}'\), which doesn't run on a NIC"
    ):
        nic.load(object)


def test_a_type_that_is_not_known_is_asked_for_and_one_given_is_taken(build):
    path = build(HEAD + 'SEC("filter") int program(void *ctx) { return 0; }').path
    with Nic("golden") as nic:
        with pytest.raises(BpfnicError, match=r"of no known type \(section 'filter'\): give it with --type"):
            nic.load(open_object(path))
        assert nic.load(open_object(path, TC)).loaded.program.type is TC
    assert open_object(build(HEAD + 'SEC("xdp") int program(void *ctx) { return 0; }').path, TC).program().type is TC


@pytest.mark.parametrize("kind", ["devmap", "cpumap"])
def test_programs_of_entries_are_attached_nowhere(build, kind):
    object = build(HEAD + f'SEC("xdp/{kind}") int program(struct xdp_md *ctx) {{ return XDP_PASS; }}')
    with Nic("golden") as nic, pytest.raises(BpfnicError, match=rf"'xdp/{kind}'\) is for entries of a {kind.upper()}"):
        nic.load(object).attach(0)


def test_numbers():
    assert [sections.numbered(name) for name in ("2/7", "0x10/3", "socket/4", "xdp/1", "2/x", "kprobe/1")] == [
        (2, 7), (16, 3), (None, 4), None, None, None]  # fmt: skip
