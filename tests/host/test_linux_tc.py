"""tc programs in the running kernel: what tests/sim/test_tc.py doesn't ask of every backend."""

import pytest

import bpfnic
from bpfnic.spec.errors import BpfnicError
from tests.sim.test_tc import HEAD, frame

pytestmark = pytest.mark.linux


@pytest.fixture
def nic():
    with bpfnic.Nic("linux") as nic:
        yield nic


def test_a_redirect_to_an_ingress_ends_the_run(nic, build):
    program = nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { return bpf_redirect(2, 1); }'))
    with pytest.raises(BpfnicError, match="BPF_F_INGRESS: a NIC has no second way in"):
        program.test_run(frame())


def test_what_the_verifier_refuses_is_named_by_its_own_instruction(nic, build):
    with pytest.raises(BpfnicError, match=r"program program, instruction 1 .*: the kernel's verifier refuses it"):
        nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { skb->ifindex = 1; return 0; }'))
