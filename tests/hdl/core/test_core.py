"""The core alone, with models around it, against the golden interpreter."""

from bpfnic.spec.assembly import assemble
from tests.hdl.core.bench import Scenario

FRAME = bytes(range(64))


def test_thin_path(core):
    code = assemble("r0 = 2\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 3))
    assert [run.verdict for run in result.runs] == [2, 2, 2]
