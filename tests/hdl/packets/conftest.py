"""The packet path's bench as a fixture."""

import pytest

from bpfnic.hdl.packets import PacketPath
from tests.hdl.packets.bench import Bench
from tests.hdl.simulated import Library, Simulated


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A function config -> Library. Each configuration is compiled once a session (10 s or more)."""
    libraries = {}

    def library(config):
        if config not in libraries:
            libraries[config] = Library(PacketPath(config), tmp_path_factory.mktemp("packets"))
        return libraries[config]

    return library


@pytest.fixture
def new_bench(compiled):
    """A function (config, seed) -> Bench."""
    return lambda config, seed=0: Bench(config, Simulated(compiled(config)), seed)
