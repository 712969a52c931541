"""What all tests share: cases that run in the running kernel, the line that says how many did, and `--thorough`.

A case marked `linux` needs bpf(2). Where that isn't permitted it is skipped with the reason; where it is, and the
environment has CI set, a skipped one fails the run: nobody would notice that the oracle is gone.

With --thorough (make test-thorough) random tests go on for longer, and cases marked `thorough` run too: more points of
a product than the few that show each of its rows and columns.
"""

import functools
import hashlib
import os
from pathlib import Path

import hypothesis
import pytest

from bpfnic.host import pcap
from bpfnic.host.compile import compile_object
from bpfnic.host.device import Arrival
from bpfnic.host.linux.permission import unavailable
from bpfnic.host.object import open_object

REPOSITORY = Path(__file__).parent.parent

# No test is about seconds: what a loaded machine takes for an example says nothing of it.
hypothesis.settings.register_profile("any machine", deadline=None,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])  # fmt: skip
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """build(C text, options of compile_object): a freshly opened object. The same text is compiled once."""
    folder = tmp_path_factory.mktemp("programs")
    compiled = {}

    def build_text(text, **options):
        key = text, repr(options)
        if key not in compiled:
            source = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.bpf.c"
            source.write_text(text)
            compiled[key] = compile_object(source, **options)
        return open_object(compiled[key])

    return build_text


@pytest.fixture(scope="session")
def firmware():
    """firmware(NAME): firmware/programs/NAME.bpf.c, freshly opened."""
    compiled = functools.cache(compile_object)
    return lambda name: open_object(compiled(REPOSITORY / "firmware" / "programs" / f"{name}.bpf.c"))


@pytest.fixture(scope="session")
def samples():
    """The folder of the sample capture and the rules for it."""
    return REPOSITORY / "firmware" / "samples"


@pytest.fixture(scope="session")
def arrivals(samples):
    """The packets of the sample capture at their interfaces and times."""
    packets = pcap.read(samples / "mixed.pcapng").packets
    return [Arrival(packet.interface, packet.data, packet.timestamp - packets[0].timestamp) for packet in packets]


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="random tests go on for longer; every case of a product")


@pytest.fixture(scope="session")
def thorough(request) -> bool:
    """Whether a random test should go on for longer."""
    return request.config.getoption("thorough")


def pytest_runtest_setup(item):
    if item.get_closest_marker("thorough") and not item.config.getoption("thorough"):
        pytest.skip("make test-thorough runs it")
    if item.get_closest_marker("linux"):
        item.user_properties.append(("linux", True))  # travels with the report, from a worker of xdist too
        if reason := unavailable():
            pytest.skip(f"the running kernel is no device here: {reason}")


class LinuxCases:
    """Counts the cases marked `linux`, in the process that reports (with xdist, the one that starts the workers)."""

    def __init__(self):
        self.ran = self.skipped = 0

    def pytest_runtest_logreport(self, report):
        if ("linux", True) in report.user_properties:
            self.ran += report.when == "call" and not report.skipped
            self.skipped += report.skipped

    def pytest_sessionfinish(self, session):
        if self.lost:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def lost(self) -> bool:
        """Cases were skipped in CI although the kernel would have run them."""
        return bool(self.skipped and os.environ.get("CI") and unavailable() is None)

    def pytest_unconfigure(self):
        if self.ran or self.skipped:
            verdict = " (an error, for bpf(2) works here)" if self.lost else ""
            print(f"linux cases: {self.ran} ran in the running kernel, {self.skipped} were skipped{verdict}")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LinuxCases(), "linux-cases")
