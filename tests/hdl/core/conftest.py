"""The core, compiled once for all of its tests."""

from pathlib import Path

import pytest

from bpfnic.hdl.config import NicConfig
from tests.hdl.core import bench

CONFIG = NicConfig(program_slots=2048, map_bytes=4096, maps=16, trace=True)
SMALL = NicConfig(threads=8, program_slots=1024, buffer_bytes=4096, map_bytes=1 << 20, maps=2, slice_places=1,
                  trace=True)  # fmt: skip


class Device:
    """The compiled core with what stands around it."""

    def __init__(self, config: NicConfig, simulation: Path):
        self.config, self.simulation = config, simulation

    def run(self, scenario: bench.Scenario) -> bench.Result:
        """Run a scenario of which the golden interpreter knows nothing."""
        return bench.run(self.simulation, scenario)

    def check(self, scenario: bench.Scenario) -> bench.Result:
        """Run a scenario, and compare with the golden interpreter."""
        result = bench.run(self.simulation, scenario)
        bench.check(self.config, scenario, result)
        return result


@pytest.fixture(scope="session")
def core(tmp_path_factory) -> Device:
    return Device(CONFIG, bench.build(CONFIG, tmp_path_factory.mktemp("core")))


@pytest.fixture(scope="session")
def small_core(tmp_path_factory) -> Device:
    """Eight threads, and everything else of another size too."""
    return Device(SMALL, bench.build(SMALL, tmp_path_factory.mktemp("small_core")))
