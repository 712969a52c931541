"""What the tests of the shipped programs share: a NIC of each backend."""

import pytest

from bpfnic.host.nic import Nic


@pytest.fixture(params=["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)])
def nic(request):
    """A NIC: the reference, the simulated hardware (the first one compiles it), the running kernel."""
    with Nic(request.param) as nic:
        yield nic
