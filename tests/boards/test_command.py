"""`bpfnic board`: what it says of boards and builds, and one line for each thing that can't be."""

import json

import pytest
from click.testing import CliRunner

from bpfnic.boards import build, report, tools
from bpfnic.boards.catalogue import BOARDS, find
from bpfnic.boards.command import command
from bpfnic.boards.phases import of_nextpnr, of_yosys
from bpfnic.spec.errors import BpfnicError


def run(*arguments: str):
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_list():
    done = run("list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:]][:1] == ["colorlight-5a-75b"]
    assert all(name in done.output for name in BOARDS)


@pytest.mark.parametrize("arguments, error", [
    (["build", "nosuch"], "no board 'nosuch': there are colorlight-5a-75b, "),
    (["build", "versa-ecp5", "--threads", "7"], "threads must be 8 or 16, not 7"),
    (["build", "versa-ecp5", "--map-types", "hash,tree"], "no map type tree: there are "),
    (["build", "versa-ecp5", "--megahertz", "1"], "no PLL makes 125 MHz and up to 1 MHz of 100 MHz"),
    (["build", "versa-ecp5", "--baud", "100000000"], "clocks_per_bit must be at least 4, not 0"),
])  # fmt: skip
def test_refused(arguments, error, tmp_path):
    done = run(*arguments, *(["--output", str(tmp_path)]))
    assert error in str(done.exception)


def test_a_key_that_is_none(tmp_path):
    key = tmp_path / "key"
    key.write_text("12 34")
    done = run("build", "versa-ecp5", "--key", str(key))
    assert str(done.exception) == f"{key}: a key is 32 hexadecimal digits"


@pytest.mark.parametrize("tool", [tools.YOSYS, tools.NEXTPNR, tools.ECPPACK], ids=lambda tool: tool.name)
def test_a_missing_tool(monkeypatch, tool):
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BpfnicError, match=f"^{tool.name} is missing: pip install 'bpfnic\\[boards\\]' brings it"):
        tool.command()


def test_a_tool_on_path_goes_first(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/opt/{name}")
    assert tools.NEXTPNR.command() == ["/opt/nextpnr-ecp5"]


def test_a_tool_that_fails(monkeypatch, tmp_path):
    """Its first error, and where all of it is."""
    script = tmp_path / "yosys"
    script.write_text("#!/bin/sh\necho reading\necho 'ERROR: no such module'\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools.shutil, "which", lambda name: str(script))
    with pytest.raises(BpfnicError) as error:
        tools.YOSYS.run([], tmp_path)
    assert str(error.value) == f"yosys failed: ERROR: no such module (all that it said: {tmp_path}/yosys.log)"
    assert (tmp_path / "yosys.log").read_text() == "reading\nERROR: no such module\n"


def _segment(start: str, end: str) -> dict:
    return {"from": {"cell": start}, "to": {"cell": end}}


NEXTPNR_REPORT = {
    "utilization": {
        name: {"used": used, "available": 100}
        for name, used in (("TRELLIS_COMB", 90), ("TRELLIS_FF", 40), ("DP16KD", 5), ("MULT18X18D", 6))
    },
    "fmax": {
        "$glbnet$fabric.card.nic.clk": {"achieved": 120.04, "constraint": 125.0},
        "$glbnet$receive0_clk": {"achieved": 140.0, "constraint": 125.0},
    },
    "critical_paths": [
        {
            "from": "posedge $glbnet$fabric.card.nic.clk",
            "to": "posedge $glbnet$fabric.card.nic.clk",
            "path": [
                _segment("fabric.card.nic.core0.stage_TRELLIS_FF_Q_1", "fabric.card.nic.core0.sum_CCU2C_S0"),
                _segment("fabric.card.nic.core0.sum_CCU2C_S0", "fabric.card.nic.core0.sum_LUT4_A_Z"),
                _segment("fabric.card.nic.core0.sum_LUT4_A_Z", "$auto$7"),
            ],
        },
        {"from": "async", "to": "posedge $glbnet$receive0_clk", "path": []},
    ],
}  # fmt: skip


def test_report():
    """Clocks by what they are for, a path by the signals that it goes through."""
    found = report.of_nextpnr(NEXTPNR_REPORT, {"mac0": 4}, 1)
    core, receive = found.clocks
    assert (core.achieved, core.asked, core.path) == (120.04, 125.0, ("card.nic.core0.stage", "card.nic.core0.sum"))
    assert receive.name == "Ethernet receive 0"
    assert found.used["LUTs"] == (90, 100)
    assert found.missed == [f"{core.name} reaches 120.0 of 125 MHz"]


@pytest.mark.parametrize("allowed", [False, True])
def test_missed_timing_is_an_error_unless_it_is_allowed(monkeypatch, tmp_path, allowed):
    """The manifest is there either way: what was made, of what."""
    monkeypatch.setattr(build, "_write", lambda *_: None)
    monkeypatch.setattr(build, "_ecp5", lambda *_: report.of_nextpnr(NEXTPNR_REPORT, {}, 1))
    monkeypatch.setattr(tools.Tool, "version", lambda tool: "1")
    request = build.Request(find("versa-ecp5"), {}, bytes(16), 1_000_000, 125)
    (tmp_path / "nic.bit").write_bytes(b"bits")
    if allowed:
        assert build.build(request, tmp_path, lambda _: None, allow_timing_fail=True).missed
    else:
        with pytest.raises(BpfnicError, match=r"timing is missed: .* 120\.0 of 125 MHz \(--allow-timing-fail"):
            build.build(request, tmp_path, lambda _: None)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["build_id"] == build.build_id(build.inputs(request)).hex()
    assert list(manifest["sha256"]) == ["nic.bit"]
    assert manifest["parameters"]["ports"] == 2


def test_what_goes_in_decides_the_build_id(monkeypatch):
    monkeypatch.setattr(tools.Tool, "version", lambda tool: "1")

    def identity(board="versa-ecp5", key=bytes(16), **nic) -> bytes:
        return build.build_id(build.inputs(build.Request(find(board), nic, key, 1_000_000, 125)))

    assert identity() == identity() == identity(key=bytes(range(16)))  # it tells nobody about the key
    assert len({identity(), identity("genesys2"), identity(threads=8), identity(map_bytes=4096)}) == 4


def test_ports_are_the_boards():
    request = build.Request(find("versa-ecp5"), {"ports": 3}, bytes(16), 1_000_000, 125)
    with pytest.raises(BpfnicError, match="versa-ecp5 has 2 ports, not 3"):
        request.config()


def test_phases():
    """Each is said once, whatever the log has between."""
    heard = []
    yosys, nextpnr = of_yosys(heard.append), of_nextpnr(heard.append)
    for line in ("2. Executing SYNTH_ECP5 pass.", "2.1. Executing PROC pass", "2.40. Executing ABC pass",
                 "2.41. Executing ABC pass", "3. Executing SYNTH_ECP5 pass."):  # fmt: skip
        yosys(line)
    for line in ("Info: Packing IOs..", "Info: Routing..", "Info: Routing globals"):
        nextpnr(line)
    assert heard == ["reading", "synthesizing: logic into LUTs", "placing: packing cells", "routing"]
