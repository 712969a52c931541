"""bpfnic: a NIC that runs BPF programs.

Open a program (C is compiled on the spot), set its variables, load it into a NIC, run packets:

    >>> import bpfnic
    >>> from importlib import resources
    >>> counter = bpfnic.open(resources.files("bpfnic.firmware") / "programs" / "counter.bpf.c")
    >>> nic = bpfnic.Nic("golden", threads=8)  # "rtl" is the simulated hardware, "linux" the running kernel
    >>> program = nic.load(counter)

One packet, whatever is attached to the port:

    >>> ethernet = bytes.fromhex("020000000002 020000000001 0800")
    >>> ping = ethernet + bytes.fromhex("4500001c 00000000 40010000 0a000001 0a000002 0800f7ff 00000000")
    >>> result = program.test_run(ping)
    >>> result.action.name, result.retval, result.egress, result.data == ping
    ('XDP_PASS', 2, 'host', True)

Maps are dictionaries, with keys and values by their BTF types; that of a per-CPU map has a value for each CPU:

    >>> nic.maps["by_protocol"][1]
    {'packets': 1, 'bytes': 42}
    >>> nic.maps["by_protocol"][1] = {"packets": 0, "bytes": 0}
    >>> sum(value["packets"] for value in nic.maps["total"][0])
    1
    >>> nic.maps["by_protocol"][256]
    Traceback (most recent call last):
    KeyError: 256

A map of programs holds programs, for tail calls; those that the object puts there are loaded along:

    >>> chain = bpfnic.open(resources.files("bpfnic.firmware") / "programs" / "tailchain.bpf.c")
    >>> with bpfnic.Nic("golden") as other:
    ...     ethernet = other.load(chain, "ethernet")
    ...     other.maps["policy"][5] = "XDP_TX"  # what becomes of echoes
    ...     before = ethernet.test_run(ping).action
    ...     other.maps["stages"][5] = other.programs["udp"]  # reads ICMP as UDP
    ...     before.name, ethernet.test_run(ping).action.name
    ('XDP_TX', 'XDP_PASS')

Addresses and prefixes are text, in keys and in values:

    >>> acl = bpfnic.open(resources.files("bpfnic.firmware") / "programs" / "acl.bpf.c")
    >>> with bpfnic.Nic("golden") as other:
    ...     filter = other.load(acl)
    ...     other.maps["sources"]["10.0.0.0/8"] = {"rule": 1, "action": "XDP_DROP"}
    ...     filter.test_run(ping).action.name, list(other.maps["sources"])
    ('XDP_DROP', ['10.0.0.0/8'])

Traffic, with the program attached to every port:

    >>> program.attach()
    >>> traffic = nic.run([bpfnic.Arrival(port, ping) for port in (0, 1, 0)])
    >>> [packet.action.name for packet in traffic.packets]
    ['XDP_PASS', 'XDP_PASS', 'XDP_PASS']
    >>> nic.maps["by_protocol"][1]["packets"]
    3

What can't be used raises BpfnicError, one line that names the thing:

    >>> nic.maps["by_protocol"][1] = {"frames": 1}
    Traceback (most recent call last):
    bpfnic.spec.errors.BpfnicError: map 'by_protocol': value: struct traffic has no member 'frames'
    >>> bpfnic.open("missing.o")
    Traceback (most recent call last):
    bpfnic.spec.errors.BpfnicError: missing.o: No such file or directory
    >>> nic.close()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpfnic.host.device import Arrival, DeviceOptions, Pacing
    from bpfnic.host.nic import Nic, NicProgram, NicProgramArray, TestRun, backends, open
    from bpfnic.host.nicmaps import NicMap, NicMapOfMaps, NicQueue, NicVariables
    from bpfnic.spec.errors import BpfnicError
    from bpfnic.spec.programs import XdpAction

_MODULES = (
    "bpfnic.host.device",
    "bpfnic.host.nic",
    "bpfnic.host.nicmaps",
    "bpfnic.spec.errors",
    "bpfnic.spec.programs",
)
"""Where the public names come from."""

__all__ = [
    "Arrival",
    "BpfnicError",
    "DeviceOptions",
    "Nic",
    "NicMap",
    "NicMapOfMaps",
    "NicProgram",
    "NicProgramArray",
    "NicQueue",
    "NicVariables",
    "Pacing",
    "TestRun",
    "XdpAction",
    "backends",
    "open",
]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and nothing before: `bpfnic --version` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'bpfnic' has no attribute {name!r}")
    modules = (import_module(module) for module in _MODULES)
    return next(getattr(module, name) for module in modules if hasattr(module, name))
