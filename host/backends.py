"""What each backend executes, by what its device says of itself: `bpfnic backends`."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bpfnic.host import nic
from bpfnic.host.device import Capabilities, DeviceOptions
from bpfnic.spec import helpers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import EXTENSIONS, Group
from bpfnic.spec.metadata import Metadata

if TYPE_CHECKING:
    from rich.console import Console


def inspect(say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """By name: `usable`, `why_not` (None or a line), and of a usable one `groups`, those of RFC 9669, and `extensions`
    ("complete" or "no" each), `map_types` and `helpers` by name. `say` as in DeviceOptions."""
    return {name: _inspect(name, say) for name in nic.backends()}


def _inspect(name: str, say: Callable[[str], None]) -> dict[str, Any]:
    try:
        device = nic.open_device(name, DeviceOptions(say=say))
    except BpfnicError as error:
        return {"usable": False, "why_not": str(error)}
    capabilities = device.capabilities
    device.close()
    return {
        "usable": True,
        "why_not": None,
        "groups": _extents(capabilities, (group for group in Group if group not in EXTENSIONS)),
        "extensions": _extents(capabilities, EXTENSIONS),
        "map_types": [map_type.name for map_type in sorted(capabilities.map_types)],
        "helpers": [_helper_name(number) for number in sorted(capabilities.helpers)],
    }


def _helper_name(number: int) -> str:
    own = {each.value: each.name.lower() for each in Metadata}
    return own.get(number) or helpers.BY_NUMBER[number].name


def _extents(capabilities: Capabilities, groups: Iterable[Group]) -> dict[str, str]:
    """Whether each group, by name, is there."""
    return {group.value: "complete" if group in capabilities.groups else "no" for group in groups}


def print_backends(found: Mapping[str, Mapping[str, Any]], console: "Console") -> None:
    """A table with a column for each backend that can be used, then why the others can't."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    usable = {name: backend for name, backend in found.items() if backend["usable"]}
    table = Table("", *usable, box=SIMPLE_HEAD, show_edge=False)
    for title, member in (("RFC 9669", "groups"), ("extension", "extensions")):
        names = next(iter(usable.values()))[member] if usable else ()
        for name in names:
            table.add_row(f"{title}: {name}", *(backend[member][name] for backend in usable.values()))
    for title, member in (("map types", "map_types"), ("helpers", "helpers")):
        table.add_row(title, *(str(len(backend[member])) for backend in usable.values()))
    if usable:
        console.print(table)
    for name, backend in found.items():
        if not backend["usable"]:
            console.print(f"{name}: {backend['why_not']}", highlight=False, markup=False, soft_wrap=True)
