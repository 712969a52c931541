"""What the tests of the host share: the command line in this process, C files, and NICs."""

import sys
from importlib import resources

import pytest

from bpfnic import Nic
from bpfnic.host import cli

FIRMWARE = resources.files("bpfnic.firmware")
HEADER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def bpfnic(monkeypatch, capsys):
    """Runs the command in this process: (exit status, standard output, standard error)."""

    def bpfnic(*arguments):
        monkeypatch.setattr(sys, "argv", ["bpfnic", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return bpfnic


@pytest.fixture
def run(bpfnic):
    """Runs `bpfnic run` on the golden backend."""

    def run(program, *more, pcap=FIRMWARE / "samples" / "mixed.pcapng"):
        return bpfnic("run", program, "--pcap", pcap, "--backend", "golden", *more)

    return run


@pytest.fixture
def source(tmp_path):
    """Writes a file; C gets the includes and the license that every program has."""

    def source(text, name="program.bpf.c"):
        (tmp_path / name).write_text(HEADER + text if name.endswith(".c") else text)
        return tmp_path / name

    return source


@pytest.fixture
def refused(run):
    """Runs what must be refused: exit status 2, nothing on standard output, and one line, which it returns."""

    def refused(*arguments, **more):
        status, out, err = run(*arguments, **more)
        assert (status, out) == (2, "")
        assert err.startswith("bpfnic: ") and err.count("\n") == 1, err
        return err.removeprefix("bpfnic: ").rstrip()

    return refused


@pytest.fixture(params=["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)])
def card(request):
    """A NIC of each kind. The tests' timeout has to allow for compiling one."""
    with Nic(request.param) as card:
        yield card


@pytest.fixture
def says():
    """A function (operation, arguments) -> what the operation gives, or its error number."""

    def says(operation, *arguments):
        try:
            return operation(*arguments)
        except OSError as error:
            return error.errno

    return says
