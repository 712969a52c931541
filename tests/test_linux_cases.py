"""The line that ends every test run, and the rule that CI never loses its oracle: pytest runs a small suite that has
this suite's conftest.py."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_elsewhere():
    pass

@pytest.mark.linux
def test_that_runs():
    pass

@pytest.mark.linux
@pytest.mark.parametrize("n", range(3))
def test_that_is_skipped(n):
    if {skips}:
        pytest.skip("for a reason of its own")
"""


def run_suite(folder, *options, skips, ci, preexec=None):
    """Exit status and last line of a run of SUITE."""
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = linux\n")
    (folder / "test_suite.py").write_text(SUITE.format(skips=skips))
    environment = {name: value for name, value in os.environ.items() if name != "CI" and "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "test_suite.py"]
    if ci:
        environment["CI"] = "true"
    run = subprocess.run(command, cwd=folder, env=environment, preexec_fn=preexec, capture_output=True, text=True)
    return run.returncode, run.stdout.splitlines()[-1]


@pytest.mark.linux
@pytest.mark.parametrize(
    ("options", "skips", "ci", "status", "ran", "skipped"),
    [
        ((), False, True, 0, 4, "0 were skipped"),
        ((), True, False, 0, 1, "3 were skipped"),
        (("-n", "2"), True, True, 1, 1, "3 were skipped (an error, for bpf(2) works here)"),
    ],
)
def test_run_where_the_kernel_is_a_device(tmp_path, options, skips, ci, status, ran, skipped):
    line = f"linux cases: {ran} ran in the running kernel, {skipped}"
    assert run_suite(tmp_path, *options, skips=skips, ci=ci) == (status, line)


def drop_capabilities():
    """Before exec: root keeps its files and loses what the kernel lets it do beyond them (prctl PR_CAPBSET_DROP)."""
    libc = ctypes.CDLL(None)
    for capability in range(64):
        libc.prctl(24, capability)


@pytest.mark.parametrize("ci", [False, True])
def test_run_where_it_is_none(tmp_path, ci):
    line = "linux cases: 0 ran in the running kernel, 4 were skipped"
    assert run_suite(tmp_path, skips=False, ci=ci, preexec=drop_capabilities) == (0, line)
