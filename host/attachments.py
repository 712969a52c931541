"""`--attach WHERE=PROGRAM`: which programs stand at which hooks of a NIC's ports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bpfnic.host.nic import Nic, interface_name
from bpfnic.host.object import Object, Program
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import Hook

_NAMES = {hook.value: hook for hook in Hook} | {"tc-ingress": Hook.TCX_INGRESS, "tc-egress": Hook.TCX_EGRESS}


@dataclass(frozen=True)
class Attachment:
    """A program of an object at a hook of a port. Of several at one hook the first comes first."""

    port: int
    hook: Hook
    obj: Object
    name: str


def parse(texts: Sequence[str], obj: Object, ports: int, open: Callable[[Path], Object]) -> list[Attachment]:
    """From `portN:HOOK=PROGRAM`: a hook is called as by bpftool, or tc-ingress and tc-egress; PROGRAM is one of the
    object's
    by name, or FILE or FILE:NAME of another object, which `open` opens. Raises BpfnicError naming what isn't there."""
    opened: dict[Path, Object] = {}
    found: list[Attachment] = []
    for text in texts:
        where, equals, what = text.partition("=")
        port, colon, hook = where.partition(":")
        if not (equals and colon and what):
            raise BpfnicError(f"--attach {text}: must be portN:HOOK=PROGRAM")
        names = [interface_name(number, ports) for number in range(ports)]
        if port not in names:
            raise BpfnicError(f"--attach {text}: there is no {port!r}; the NIC has {', '.join(names)}")
        if hook not in _NAMES:
            raise BpfnicError(f"--attach {text}: there is no hook {hook!r}; there are {', '.join(_NAMES)}")
        source, name = obj, what
        if what not in obj.programs:
            path, program = _file(text, what, obj)
            if path not in opened:
                opened[path] = open(path)
            source = opened[path]
            name = source.program(program).name
        kind = source.programs[name].type
        if kind is not _NAMES[hook].type:
            is_a = kind.name if kind else "of no known type"
            runs = _NAMES[hook].type.name
            raise BpfnicError(f"--attach {text}: program {name} is {is_a}; at {hook} run {runs} programs")
        place = names.index(port), _NAMES[hook]
        if not _NAMES[hook].chains and any((each.port, each.hook) == place for each in found):
            raise BpfnicError(f"--attach {text}: another program stands at {port}:{hook}; one runs there")
        found.append(Attachment(*place, source, name))
    return found


def _file(text: str, what: str, obj: Object) -> tuple[Path, str | None]:
    """What is no name of the object's: a file, or a file and a program's name."""
    if Path(what).exists():
        return Path(what), None
    path, colon, name = what.rpartition(":")
    if colon and name and Path(path).exists():
        return Path(path), name
    programs = ", ".join(obj.programs)
    raise BpfnicError(f"--attach {text}: there is no program and no file {what!r}; programs are {programs}")


def attach(card: Nic, attachments: Sequence[Attachment], unsafe: bool = False) -> None:
    """Loads the programs (`unsafe`: as Nic.load has it) and attaches them. Raises BpfnicError where two objects have
    programs of one name."""
    objects: dict[str, Program] = {}
    for each in attachments:
        source = each.obj.programs[each.name]
        if objects.setdefault(each.name, source) is not source:
            raise BpfnicError(f"--attach: two files have a program {each.name}")
        if each.name not in card.programs:
            card.load(each.obj, each.name, unsafe=unsafe)
    for place in dict.fromkeys((each.port, each.hook) for each in attachments):
        names = [each.name for each in attachments if (each.port, each.hook) == place]
        card.attach_at(*place, [card.programs[name] for name in names])
