"""The engine beside map memory, compiled, and its bench."""

import random

import pytest

from bpfnic.hdl.maps import finder
from tests.hdl.simulated import Library
from tests.hdl.tables.bench import CONFIG, Bench, EngineAndMemory


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Library:
    """A search gives up earlier than a NIC's, so that a test sees it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "_AGE_CLOCKS", 12)
        return Library(EngineAndMemory(CONFIG), tmp_path_factory.mktemp("engine"))


@pytest.fixture
def bench(library, request) -> Bench:
    return Bench(library, random.Random(request.node.name))
