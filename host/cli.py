"""The command line. Exit status: 0, 1 where a comparison finds a difference, 2 for anything that can't be used.

What takes long to import is imported by the command that needs it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bpfnic.host import sections
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from bpfnic.host.device import Progress

DIFFERENCE, UNUSABLE, INTERRUPTED = 1, 2, 130


def main() -> None:
    """The executable `bpfnic`."""
    execute(commands, "bpfnic")


def execute(command: click.Command, name: str) -> NoReturn:
    """Run a command as the executable `name` and end the process with what it returns, or with what is wrong."""
    try:
        sys.exit(command(standalone_mode=False, prog_name=name))
    except BpfnicError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(UNUSABLE)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        click.echo(f"{context.command_path if context else name}: {' '.join(error.format_message().split())}", err=True)
        sys.exit(UNUSABLE)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        sys.exit(INTERRUPTED)


class Commands(click.Group):
    """Commands of this module, and those that other rooms list under the entry point group "bpfnic.command", each a
    click.Command that is imported when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *_elsewhere().names})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        found = super().get_command(context, name)
        if found or name not in _elsewhere().names:
            return found
        return _elsewhere()[name].load()


def _elsewhere() -> "EntryPoints":
    from importlib.metadata import entry_points

    return entry_points(group="bpfnic.command")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bpfnic", message="%(prog)s %(version)s")
def commands() -> None:
    """A NIC that runs BPF programs."""


def _pairs(kind: str) -> Callable[..., dict[str, str]]:
    """Reads repeated NAME=VALUE into a dictionary."""

    def read(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
        result = {}
        for value in values:
            name, equals, content = value.partition("=")
            if not (name and equals and content):
                raise click.BadParameter(f"{value!r} is not {kind}")
            result[name] = content
        return result

    return read


_PATH = click.Path(path_type=Path)


def _program_type(context: click.Context, parameter: click.Parameter, value: str | None) -> ProgramType | None:
    if value is not None and value not in sections.NAMES:
        raise click.BadParameter(f"{value!r} is none of {', '.join(sections.NAMES)}")
    return sections.NAMES[value] if value else None


_TYPE = click.option("--type", metavar="xdp|tc|socket", callback=_program_type,
                     help="Type of the programs, whatever their sections say.")  # fmt: skip
_KCONFIG = click.option("--kconfig", metavar="NAME=VALUE|FILE", multiple=True,
                        help="What programs ask of a kernel's configuration (extern … __kconfig).")  # fmt: skip

_TYPES = "Types to which CO-RE relocations fit the programs: the NIC's, the running kernel's, or a file's."


def _source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that takes programs (source.Source)."""
    for option in (
        click.option("-D", "define", metavar="NAME[=V]", multiple=True, help="C macro."),
        click.option("-I", "include", type=_PATH, multiple=True, help="Folder of C headers, searched first."),
        click.option("--mcpu", "cpu", default="v3", show_default=True, help="Instruction set version to compile for."),
        _KCONFIG,
        click.option("--btf", "types", default="nic", show_default=True, metavar="nic|kernel|FILE", help=_TYPES),
        _TYPE,
        click.option("--global", "variables", metavar="NAME=VALUE", multiple=True, callback=_pairs("NAME=VALUE"),
                     help="Set a global variable of the program."),
    ):  # fmt: skip
        command = option(command)
    return command


@commands.command()
@click.argument("program", type=_PATH)
@click.option("--pcap", "capture", type=_PATH, help="Packets that come in by ports: pcap or pcapng.")
@click.option("--host-pcap", "host_capture", type=_PATH, help="Packets that the host sends: pcap or pcapng.")
@click.option("--attach", "attach", metavar="portN:HOOK=PROGRAM", multiple=True,
              help="Where programs stand: xdp, tcx/ingress, tcx/egress, socket; of several at one hook the first comes "
              "first. PROGRAM is a name, or FILE:NAME. Otherwise the program stands at every port.")  # fmt: skip
@click.option("--out", type=_PATH, help="Write the packets that leave, with their verdicts: pcapng.")
@click.option("--backend", default="rtl", show_default=True, help="What runs it: see `bpfnic backends`.")
@click.option("--unsafe", is_flag=True, help="Load what nobody verified: for experiments on simulated NICs.")
@click.option("--check", is_flag=True, help="Compare packets, counters and maps with the golden model.")
@click.option("--lockstep", is_flag=True,
              help="Compare each instruction with the golden model, and stop at the first that differs.")  # fmt: skip
@click.option("--program", "name", metavar="NAME", help="Which program, where there are several.")
@click.option("--map", "rules", type=_PATH, multiple=True, help="Map contents before the run: JSON, by map name.")
@click.option("--global", "variables", metavar="NAME=VALUE", multiple=True, callback=_pairs("NAME=VALUE"),
              help="Set a global variable of the program.")  # fmt: skip
@click.option("--entries", metavar="MAP=N", multiple=True, callback=_pairs("MAP=N"),
              help="Entries of a map, in place of the object's max_entries.")  # fmt: skip
@click.option("--timing", default="back-to-back", show_default=True, metavar="back-to-back|pcap|pps=N",
              help="When packets arrive. But for back-to-back, the NIC drops what it can't take.")  # fmt: skip
@click.option("--order", type=click.Choice(["any", "flow"]), default="any", show_default=True,
              help="flow: packets between the same two IP addresses never run at the same time.")  # fmt: skip
@click.option("--port", type=int, help="The port at which all packets arrive; otherwise the capture's interface.")
@click.option("--host-port", type=int, help="The port by which the host's packets leave; otherwise the interface.")
@click.option("--ifindex", "ifindexes", metavar="portN=INDEX", multiple=True, callback=_pairs("portN=INDEX"),
              help="What programs know a port by; port N is N+1 otherwise.")  # fmt: skip
@click.option("--network", metavar="FILE|netns:NAME",
              help="Links, routes and neighbours for bpf_fib_lookup and its kin: see `bpfnic network`.")  # fmt: skip
@click.option("--cores", type=int, help="Cores of the NIC.")
@click.option("--threads", type=int, help="Hardware threads of a core.")
@click.option("--map-bytes", type=int, help="Bytes of map memory.")
@click.option("--map-types", metavar="TYPE,…", help="Types of maps that the NIC has, where it shall not have all.")
@click.option("--buffer-bytes", type=int, help="Bytes of a packet buffer, 576 of them head- and tailroom.")
@click.option("--budget", type=int, help="Instructions that one packet may take; the rest of its program is not run.")
@click.option("--waves", type=_PATH, help="Write a trace of all signals: .fst (rtl only).")
@_TYPE
@click.option("--btf", "types", default="", metavar="nic|kernel|FILE",
              help=f"{_TYPES} Otherwise those of the backend.")  # fmt: skip
@_KCONFIG
@click.option("--mcpu", "cpu", default="v3", show_default=True, help="Instruction set version to compile for.")
@click.option("-I", "include", type=_PATH, multiple=True, help="Folder of C headers, searched first.")
@click.option("-D", "define", metavar="NAME[=V]", multiple=True, help="C macro.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def run(as_json: bool, ifindexes: dict[str, str], backend: str, **given: Any) -> int:
    """Run PROGRAM (a .bpf.c file or an ELF object) on the packets of a capture and show what came of it."""
    from bpfnic.host import run as job

    sizes = {size: given.pop(size) for size in ("cores", "threads", "map_bytes", "map_types", "buffer_bytes", "budget",
                                                 "waves")}  # fmt: skip
    asked = {size: value for size, value in sizes.items() if value is not None}
    options = job.options_for(backend, asked, _say)
    with _ProgressBar() as bar:
        result = job.run(
            job.Job(backend=backend, options=options, ifindexes=job.ports_of(ifindexes, options), **given), bar.show
        )
    if as_json:
        import json

        click.echo(json.dumps(result, indent=2))
    else:
        for line in result["trace"] or ():
            click.echo(line, err=True)
        _print(result, backend)
    return DIFFERENCE if result["check"] and not result["check"]["equal"] else 0


@commands.command()
@click.argument("source", default="netns")
def network(source: str) -> None:
    """Print the network of a namespace (netns:NAME, by default one's own) as a file for `bpfnic run --network`."""
    import json

    from bpfnic.host import iproute

    content = iproute.raw(source)
    iproute.parse(content, source)
    click.echo(json.dumps(content, indent=1))


@commands.command()
@click.argument("program", type=_PATH)
@click.option("--program", "name", metavar="NAME", help="Which program; otherwise all of the object.")
@click.option("--log", "level", type=click.IntRange(0, 2), default=0, show_default=True,
              help="1: the path that leads to the error; 2: all paths that are walked.")  # fmt: skip
@click.option("--backend", default="golden", show_default=True, metavar="NAME|none",
              help="Whose limits the program must keep, besides.")  # fmt: skip
@click.option("--html", "page", type=_PATH, help="Write a page: program, source, registers, and the failing path.")
@_source
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, an object for each program.")
def verify(as_json: bool, backend: str, **given: Any) -> int:
    """Verify the programs in PROGRAM (a .bpf.c file or an ELF object), as Linux would, without running them."""
    from bpfnic.host.verifier import command

    results = command.run(command.Job(backend="" if backend == "none" else backend, **given))
    if as_json:
        import json

        click.echo(json.dumps(command.as_json(results), indent=2))
    else:
        click.echo(command.as_text(results, given["level"]))
    return 0 if all(result.good for result in results) else DIFFERENCE


@commands.group()
def btf() -> None:
    """Types of an object or a kernel."""


@btf.command("dump")
@click.argument("words", nargs=-1, metavar="SOURCE [format raw|c] [unsorted] [root_id N]…")
@click.option("-B", "--base-btf", "base", type=_PATH, help="The BTF that the types build upon.")
@click.option("-j", "--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("-p", "--pretty", is_flag=True, help="As JSON with a line for each member.")
def btf_dump(words: tuple[str, ...], base: Path | None, as_json: bool, pretty: bool) -> None:
    """Print types as bpftool does: a line each, or as C declarations. SOURCE: file FILE, or of the running kernel id N,
    prog PROG, map MAP [key|value|kv|all]; PROG, MAP: id N, name NAME, tag TAG, pinned FILE."""
    from bpfnic.host.btf import command

    for text in command.dump(command.parse(words), base, as_json, pretty):
        click.echo(text, nl=False)


@btf.command("check")
@click.argument("words", nargs=-1, metavar="file FILE")
def btf_check(words: tuple[str, ...]) -> int:
    """Say whether Linux would take the types of a file."""
    from bpfnic.host.btf import command

    try:
        click.echo(command.checked(command.file_of(words)))
    except command.Refused as error:
        click.echo(error)
        return DIFFERENCE
    return 0


@commands.command()
@click.argument("program", type=_PATH)
@click.option("--program", "name", metavar="NAME", help="Which program; otherwise all of the object.")
@click.option("--format", type=click.Choice(["asm", "hex", "dot"]), default="asm", show_default=True,
              help="Text for the assembler with lines of C, bytes, or a graph of its blocks for Graphviz.")  # fmt: skip
@click.option("--backend", default="", metavar="NAME", help="As it lies in the program store of a NIC of this kind.")
@_source
def dump(**given: Any) -> None:
    """Print the programs in PROGRAM (a .bpf.c file or an ELF object), each with the functions that it calls."""
    from bpfnic.host import dump as job

    click.echo(job.run(job.Job(**given)))


@commands.group()
def gen() -> None:
    """Make files of objects."""


@gen.command("object")
@click.argument("out", type=_PATH)
@click.argument("inputs", type=_PATH, nargs=-1, required=True, metavar="IN…")
def gen_object(out: Path, inputs: tuple[Path, ...]) -> None:
    """Link objects into one, OUT: sections and types merged, names resolved."""
    from bpfnic.host import staticlink

    content = staticlink.link(inputs)
    try:
        out.write_bytes(content)
    except OSError as error:
        raise BpfnicError(f"{out}: {error.strerror}") from None


@commands.command("backends")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_backends(as_json: bool) -> None:
    """List the backends: what each executes, or why it can't be used here."""
    from bpfnic.host import backends

    found = backends.inspect(_say)
    if as_json:
        import json

        click.echo(json.dumps(found))
        return
    from rich.console import Console

    backends.print_backends(found, Console())


def _say(step: str) -> None:
    click.echo(f"bpfnic: {step}", err=True)


def _print(result: dict[str, Any], backend: str) -> None:
    from rich.console import Console

    from bpfnic.host.report import print_tables

    check, seconds = result["check"], result["seconds"]
    if result["packets"]:  # otherwise --lockstep stopped the device
        print_tables(result, Console())
        click.echo(f"run: {seconds['run']:.2f} s, with compiling and checking {seconds['total']:.2f} s")
    if check and check["equal"]:
        compared = f", in each of {check['instructions']:,} instructions" if "instructions" in check else ""
        unverified = "" if result["program"]["verified"] else " (unverified program)"
        click.echo(f"{backend} = {check['reference']}{compared}{unverified}")
    elif check:
        click.echo(f"{backend} differs from {check['reference']}: {check['difference']}")
        for line in check["trace"]:
            click.echo(f"  {line}")


class _ProgressBar:
    """A bar on standard error for a run that takes longer than a moment; nothing where that is no terminal."""

    MOMENT = 0.5  # s

    def __init__(self) -> None:
        self._bar: Any = None
        self._since: float | None = None

    def __enter__(self) -> "_ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def show(self) -> "Callable[[Progress], None] | None":
        return self._show if sys.stderr.isatty() else None

    def _show(self, progress: "Progress") -> None:
        import time

        now = time.monotonic()
        self._since = self._since or now
        if self._bar is None and now - self._since > self.MOMENT:
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("packets", total=progress.total)
            self._bar.start()
        if self._bar:
            self._bar.update(self._task, completed=progress.done, description=f"{progress.clocks:,} clocks")
