"""tc programs in the running kernel: what tests/sim/test_tc.py doesn't ask of every backend."""

import pytest

import bpfnic
from bpfnic.spec.errors import BpfnicError
from tests.sim.test_tc import HEAD

pytestmark = pytest.mark.linux


@pytest.fixture
def nic():
    with bpfnic.Nic("linux") as nic:
        yield nic


def test_what_the_verifier_refuses_is_named_by_its_own_instruction(nic, build):
    with pytest.raises(BpfnicError, match=r"program program, instruction 1 .*: the kernel's verifier refuses it"):
        nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { skb->ifindex = 1; return 0; }'))
