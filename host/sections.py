"""What the names of sections say of their programs: as libbpf reads them, before 1.0 and since, and as iproute2 and the
kernel's old samples do."""

import re
from dataclasses import dataclass

from bpfnic.spec.programs import ProgramType

# By the word in front of the first "/" or ".". libbpf before 1.0 took what only begins so (`xdp1`, `socket_filter`,
# `classifier_ingress`), but for the names that stand alone.
_BEGINNINGS = {
    "xdp": ProgramType.XDP,
    "classifier": ProgramType.SCHED_CLS,
    "action": ProgramType.SCHED_CLS,
    "socket": ProgramType.SOCKET_FILTER,
}
_WORDS = {"tc": ProgramType.SCHED_CLS, "tcx": ProgramType.SCHED_CLS, "netkit": ProgramType.SCHED_CLS}
NAMES = {**_BEGINNINGS, **_WORDS, "sched_cls": ProgramType.SCHED_CLS, "socket_filter": ProgramType.SOCKET_FILTER}
"""What people call the types: as libbpf's sections, and as the kernel."""
_FRAGMENTS = "xdp.frags"

# Types that don't run on a NIC, by the same words (libbpf: section_defs).
_ELSEWHERE = {
    "kprobe": "KPROBE", "kretprobe": "KPROBE", "uprobe": "KPROBE", "uretprobe": "KPROBE", "ksyscall": "KPROBE",
    "kretsyscall": "KPROBE", "usdt": "KPROBE", "tracepoint": "TRACEPOINT", "tp": "TRACEPOINT",
    "raw_tracepoint": "RAW_TRACEPOINT", "raw_tp": "RAW_TRACEPOINT", "tp_btf": "TRACING", "fentry": "TRACING",
    "fexit": "TRACING", "fmod_ret": "TRACING", "iter": "TRACING", "freplace": "EXT", "lsm": "LSM", "lsm_cgroup": "LSM",
    "perf_event": "PERF_EVENT", "lwt_in": "LWT_IN", "lwt_out": "LWT_OUT", "lwt_xmit": "LWT_XMIT",
    "lwt_seg6local": "LWT_SEG6LOCAL", "sockops": "SOCK_OPS", "sk_skb": "SK_SKB", "sk_msg": "SK_MSG",
    "sk_lookup": "SK_LOOKUP", "sk_reuseport": "SK_REUSEPORT", "flow_dissector": "FLOW_DISSECTOR",
    "lirc_mode2": "LIRC_MODE2", "cgroup": "CGROUP_*", "cgroup_skb": "CGROUP_SKB", "struct_ops": "STRUCT_OPS",
    "syscall": "SYSCALL", "netfilter": "NETFILTER",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """`type`: None where the name tells none that runs on a NIC; `elsewhere`: the kernel's name of another type, "" for
    none. `attach`: what a name with a type says behind the first "/" ("ingress", "devmap", …). `frags`: programs take
    packets of several buffers. `autoload`: false for a name that begins with "?"."""

    type: ProgramType | None
    elsewhere: str
    attach: str
    frags: bool
    autoload: bool


def read(section: str) -> Place:
    """What a section's name says."""
    name = section.removeprefix("?")
    first, _, rest = name.partition("/")
    word = first.split(".")[0]
    type = _WORDS.get(word.split("_")[0])
    elsewhere = "" if type else _ELSEWHERE.get(word, "")
    if not type and not elsewhere:
        type = next((found for beginning, found in _BEGINNINGS.items() if word.startswith(beginning)), None)
    return Place(type, elsewhere, rest if type else "", first == _FRAGMENTS, not section.startswith("?"))


def of_type(section: str) -> str:
    """For a refusal: why there is no type for a program of that section."""
    if elsewhere := read(section).elsewhere:
        return f"of type {elsewhere} (section {section!r}), which doesn't run on a NIC"
    return f"of no known type (section {section!r}): give it with --type"


def numbered(section: str) -> tuple[int | None, int] | None:
    """Where programs put themselves into a map of programs: iproute2's `ID/INDEX` names a legacy map's id,
    `socket/INDEX` of the kernel's old samples the object's only one (None). None for any other name."""
    found = re.fullmatch(r"(socket|0x[0-9a-fA-F]+|\d+)/(\d+)", section)
    if not found:
        return None
    return None if found[1] == "socket" else int(found[1], 16 if "x" in found[1] else 10), int(found[2])
