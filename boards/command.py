"""`bpfnic board`: which boards there are, and a bitstream for one."""

from pathlib import Path

import click

from bpfnic.boards.messages import parse_address
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import DEFAULT_ADDRESS


class _MapTypes(click.ParamType):
    """Names of map types, with commas between."""

    name = "TYPE,…"

    def convert(self, value, param, ctx):
        from bpfnic.spec.engine import MAP_TYPES

        known = {each.name.lower(): each for each in MAP_TYPES}
        unknown = [name for name in value.split(",") if name.strip().lower() not in known]
        if unknown:
            self.fail(f"no map type {', '.join(unknown)}: there are {', '.join(sorted(known))}", param, ctx)
        return frozenset(known[name.strip().lower()] for name in value.split(","))


@click.group(name="board")
def command() -> None:
    """FPGA boards: what there is, and bitstreams for them."""


@command.command("list")
def list_boards() -> None:
    """The boards that a NIC can be built for."""
    from rich.console import Console
    from rich.table import Table

    from bpfnic.boards.catalogue import BOARDS

    table = Table("name", "board", "part", "ports", "management", "tools", box=None, pad_edge=False)
    for board in BOARDS.values():
        tools = "open" if board.part.family == "ecp5" else "Vivado"
        ports = f"{len(board.ports)} × {board.kind.upper()}"
        table.add_row(board.name, board.title, board.part.name, ports, "UART" if board.uart else "Ethernet", tools)
    Console(soft_wrap=True).print(table)


@command.command("build")
@click.argument("board")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where to; build/BOARD by default.")
@click.option("--ports", type=int, help="Ethernet ports, up to the board's.")
@click.option("--cores", type=int, help="Barrel cores.")
@click.option("--threads", type=int, help="Hardware threads of a core: 8 or 16.")
@click.option("--program-slots", type=int, help="Instructions that its programs may have together.")
@click.option("--packet-buffers", type=int, help="Packet buffers of a core.")
@click.option("--map-bytes", type=int, help="Bytes of map memory.")
@click.option("--map-banks", type=int, help="Banks of map memory.")
@click.option("--maps", type=int, help="Maps.")
@click.option("--map-types", type=_MapTypes(), help="Types of maps, as hash,array: those that it has.")
@click.option("--receive-metadata/--no-receive-metadata", default=None,
              help="What programs may ask of frames as they came.")
@click.option("--slice-places", type=int, help="Places of a register slice: 2, or 1 for fewer LUTs and a slower clock.")
@click.option("--megahertz", type=float, help="Of the core's clock, or the next lower that the PLL makes.")
@click.option("--placements", type=click.IntRange(1), default=3, show_default=True,
              help="Place and route from other seeds while a clock is too slow: so often at most.")
@click.option("--baud", type=int, default=1_000_000, show_default=True, help="Of the UART.")
@click.option("--management", type=int, metavar="PORT",
              help="The port whose frames of EtherType 0x88B5 reach the card besides its UART; 0 where there is none.")
@click.option("--mac", default=DEFAULT_ADDRESS.hex(":"), show_default=True, help="The card's address at that port.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="File with the card's key, 32 hexadecimal digits. Without one everybody knows it.")
@click.option("--allow-timing-fail", is_flag=True, help="A bitstream even if a clock is too slow.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Add the measures to this file.")
def build_board(board: str, output: Path | None, megahertz: float | None, placements: int, baud: int,
                key: Path | None, management: int | None, mac: str, allow_timing_fail: bool, record: Path | None,
                **nic: object) -> None:  # fmt: skip
    """Make a bitstream for BOARD with Yosys and nextpnr, or a Vivado project."""
    from bpfnic.boards import build
    from bpfnic.boards.catalogue import find

    found = find(board)
    chosen = {name: value for name, value in nic.items() if value is not None}
    request = build.Request(found, chosen, _key(key), baud, megahertz or found.megahertz,
                            0 if management is None and not found.uart else management, parse_address(mac),
                            placements)  # fmt: skip
    folder = output or Path("build") / found.name
    with _progress() as say:
        report = build.build(request, folder, say, allow_timing_fail=allow_timing_fail)
    _show(report)
    if record:
        build.settle(record, found.name, report.measures())
    if found.part.family == "ecp5":
        click.echo(f"{folder}/nic.bit; onto the board: {found.program}")
    else:
        click.echo(f"{folder}: there {build.VIVADO} makes the bitstream")


def _key(path: Path | None) -> bytes:
    """The card's. Raises BpfnicError where the file has none."""
    from bpfnic.spec.wire import DEFAULT_KEY, KEY_BYTES

    if path is None:
        return DEFAULT_KEY
    try:
        key = bytes.fromhex(path.read_text())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BpfnicError(f"{path}: a key is {2 * KEY_BYTES} hexadecimal digits")
    return key


class _progress:
    """What is being done, and for how long: one line on a terminal, else a line for each."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bar = None
        if not console.is_terminal:
            return lambda text: click.echo(f"# {text}", err=True)
        self._bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
                             transient=True)  # fmt: skip
        task = self._bar.add_task("", total=None)
        self._bar.start()
        return lambda text: self._bar.update(task, description=text)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()


def _show(report) -> None:
    """Resources, blocks of RAM, clocks and what holds them back."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    table = Table("resource", "used", "of", "%", box=None, pad_edge=False)
    for name, (used, available) in report.used.items():
        table.add_row(name, f"{used:,}", f"{available:,}", f"{100 * used / available:.0f}")
    console.print(table)
    if report.blocks:
        table = Table("blocks of RAM of", "", box=None, pad_edge=False)
        for name, count in report.blocks.items():
            table.add_row(name, str(count))
        console.print(table)
    if report.clocks:
        table = Table("clock", "MHz", "asked for", "longest path", box=None, pad_edge=False)
        for clock in report.clocks:
            table.add_row(clock.name, f"{clock.achieved:.1f}", f"{clock.asked:g}", " → ".join(clock.path))
        console.print(table)
