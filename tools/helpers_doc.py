"""Writes docs/helpers.md from spec/ and from what bench/helpers.py measured. Run it after changing either:
`python -m tools.helpers_doc`."""

import json
from pathlib import Path
from typing import Any

from bpfnic.spec import helpers, kfuncs
from bpfnic.spec.helpernotes import ERRORS, NOTES, STACK
from bpfnic.spec.helpers import HELPERS, Helper
from bpfnic.spec.programs import ProgramType

DOCS = Path(__file__).parent.parent / "docs"
COSTS, TARGET = DOCS / "helpers.json", DOCS / "helpers.md"

_HEAD = """\
# Helpers

<!-- Generated from spec/helpers.py, spec/helpernotes.py and docs/helpers.json by tools/helpers_doc.py. -->

Every helper of Linux 6.18 that XDP, tc or socket filter programs may call, and where it is: in *hardware*; in firmware,
as a *library* function that the loader links into the programs that call it, or as a *privileged* routine in the
firmware's own frame; or not there, and why. A program pays for what it calls alone: routines take slots of the program
store only with programs that call them. A helper of firmware needs the NIC to have the helpers and instructions that it
uses, and nothing else: see [architecture.md](architecture.md) for how one is added.

A program that calls a helper that isn't there, or that its type may not call, is refused when it is loaded, with the
helper's name and number, the instruction and the line of C.

Library functions are called as the program's own functions are: they take one of the 8 frames, and bytes of the 512 of
stack only where the last column of their table says so.

**Costs** are measured on the rtl, 16 threads on one core, by `python -m bench.helpers`. *alone*: clocks that the call
takes of a thread alone, where an instruction takes 10. *core*: clocks that it takes of the core where all threads make
such calls at once: issue slots, unless a unit that all of them wait for is slower (the lock that all want, the serial
unit of the map engine). *of them its own*: instructions of the routine, its exit included; what is left is the call,
and a slot more for each call of a callback: callx takes two, one to find out whether its register holds a function or a
helper's number, one to do it. So bpf_loop with 8 callbacks takes 9 more than its instructions. Arguments are in
registers already.
"""
_ERRORS = """\
Errors are the kernel's, negative in r0; in brackets what is returned instead. A privileged routine answers EFAULT, too,
where it is given a pointer below packets that leads elsewhere than into the program's stack: a verifier lets none
through."""
_FUNCTIONS = """\
What programs call by BTF id (`extern … __ksym`): helpers by their names, and as library functions those of which
`bpf_for` and `bpf_repeat` are made, and for XDP programs what the NIC knows of a packet as it came in, whatever the
program has made of it since:

%s

| prototype | errors | here |
| --- | --- | --- |
| `int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp)` |  | When its last beat came, in \
nanoseconds of the clock that bpf_ktime_get_ns reads. |
| `int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, enum xdp_rss_hash_type *rss_type)` | \
ENODATA: neither IPv4 nor IPv6, or addresses that aren't all there | Toeplitz's hash, with a key of 40 bytes \
(`nic.device.set_rss_key`; until then Microsoft's), over the addresses and, of TCP, UDP and SCTP, the ports. VLAN \
tags and IPv4's options are passed over. Without ports: fragments, IPv6 with headers in between, and what lies not in \
the frame's first 128 bytes. |
| `int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, __u16 *vlan_tci)` | ENODATA: no tag \
| The outer tag (0x8100, 0x88A8), which stays in the frame: on Linux, drivers tell of tags that they took out of it. |

The host's own packets have them too. A NIC that was built without (`receive_metadata`) answers EOPNOTSUPP to all \
three. Others aren't there:"""
_COSTS = "call | core | of them its own | alone |"
_TYPES = {ProgramType.XDP: "XDP", ProgramType.SCHED_CLS: "tc", ProgramType.SOCKET_FILTER: "socket filter"}


def text() -> str:
    """The document."""
    costs = json.loads(COSTS.read_text())
    here = [helper for helper in HELPERS if helper.programs and helper.number not in helpers.REFUSED]
    parts = [_HEAD, "\n## What there is\n\n"]
    parts.append(f"| helper | for | where | {_COSTS}\n" + 7 * "| --- " + "|\n")
    for helper in here:
        parts += _rows(helper, costs)
    parts.append(f"\n## Prototypes, errors, differences\n\n{_ERRORS}\n\n| prototype | errors | here |\n"
                 "| --- | --- | --- |\n")  # fmt: skip
    parts += [_details(helper) for helper in here]
    parts.append("\n## What there isn't\n\n| helper | for | why |\n| --- | --- | --- |\n")
    for helper in HELPERS:
        if helper.programs and helper.number in helpers.REFUSED:
            why = helpers.REFUSED[helper.number]
            parts.append(f"| {helper.name} ({helper.number}) | {_programs(helper.programs)} | {why} |\n")
    callable = sorted(kfuncs.NUMBERS) + list(kfuncs.METADATA)
    functions = f"| function | {_COSTS}\n{5 * '| --- '}|\n"
    functions += "\n".join(f"| {name} | {' | '.join(_cost(costs[name], routine=True))} |" for name in callable)
    parts.append(f"\n## Functions of the kernel\n\n{_FUNCTIONS % functions}\n\n| function | why |\n| --- | --- |\n")
    parts += [f"| {name} | {why} |\n" for name, why in kfuncs.REFUSED.items()]
    return "".join(parts)


def _programs(programs: frozenset[ProgramType]) -> str:
    return ", ".join(name for kind, name in _TYPES.items() if kind in programs)


def _where(helper: Helper) -> str:
    if helper.number in helpers.HARDWARE:
        return "hardware"
    return "library" if helper.number in helpers.LIBRARY else "privileged"


def _rows(helper: Helper, costs: dict[str, Any]) -> list[str]:
    """A row for each kind of call that is measured, those of tc programs apart where they are other ones."""
    in_tc = frozenset({ProgramType.SCHED_CLS})
    found = [(name, cost) for name, cost in costs.items() if name.partition(", ")[0] == helper.name]
    if helper.number not in helpers.OTHER_IN_TC:
        return [_row(helper, cost, helper.programs, _where(helper)) for _, cost in found or [("", None)]]
    places = {False: (helper.programs - in_tc, _where(helper)), True: (in_tc, "privileged")}
    return [_row(helper, cost, *places[name.endswith(", tc")]) for name, cost in found]


def _row(helper: Helper, cost: dict[str, Any] | None, programs: frozenset[ProgramType], where: str) -> str:
    cells = [f"{helper.name} ({helper.number})", _programs(programs), where]
    cells += _cost(cost, where != "hardware") if cost else [""] * 4
    return f"| {' | '.join(cells)} |\n"


def _cost(cost: dict[str, Any], routine: bool) -> list[str]:
    own = str(cost["instructions"]) if routine else ""
    return [cost["says"], f"{cost['core']:g}", own, str(cost["alone"])]


def _details(helper: Helper) -> str:
    errors = "; ".join(f"{name}: {when.replace(';', ',')}" for name, when in ERRORS.get(helper.name, {}).items())
    stack = f"{STACK[helper.name]} bytes of stack. " if helper.name in STACK else ""
    return f"| `{helper.prototype}` | {errors} | {stack}{NOTES.get(helper.name, '')} |\n"


if __name__ == "__main__":
    TARGET.write_text(text())
