"""What a call of each helper costs, and of the kernel's functions that are here, on the rtl: `python -m bench.helpers
[NAME…]` measures (those, or all) and writes docs/helpers.json, and docs/helpers.md from it (tools/helpers_doc.py)."""

import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.speed import FRAME, THREADS
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.network import IPV4, Link, Neighbour, Network, NextHop, Route
from bpfnic.host.nic import Nic, open
from bpfnic.spec import helpers
from bpfnic.spec.programs import XdpAction
from tools import helpers_doc

PROGRAM = Path("bench/helper.bpf.c")
CALLS = 8, 24
FEWER, MORE = 10 * THREADS, 20 * THREADS


@dataclass(frozen=True)
class Case:
    """A call that is measured. arguments: in C, with what the program has. call: in assembly, where it is more than
    one instruction. says: the call for people. of: the helper that {number} in `call` is, where that isn't the case's
    own. packets: of two runs, whose difference is one packet's share of the core."""

    arguments: tuple[str, ...]
    says: str
    call: str = ""
    define: tuple[str, ...] = ()
    of: str = ""
    packets: tuple[int, int] = (FEWER, MORE)


def _of_tc(arguments: tuple[str, ...], says: str, call: str = "") -> Case:
    """A call that tc programs make."""
    return Case(arguments, says, call, ("TC",))


def _of_function(name: str, arguments: tuple[str, ...], says: str) -> Case:
    """A call of a function by its name."""
    return Case(arguments, says, f"call {name}\\n", ("FUNCTIONS",))


_DISCARD, _SUBMIT, _UNLOCK, _POP = (
    helpers.BY_NAME[name].number for name in ("ringbuf_discard", "ringbuf_submit", "spin_unlock", "skb_vlan_pop")
)
_GIVES_BACK = "call {number}\\n if r0 == 0 goto +3\\n r1 = r0\\n r2 = 0\\n call %d\\n"

CASES = {
    "map_lookup_elem": Case(("&array", "&zero"), "ARRAY"),
    "map_update_elem": Case(("&hash", "room", "room", "0"), "HASH, 16-byte key and 8-byte value, replaced"),
    "map_delete_elem": Case(("&hash", "room + 2"), "HASH, 16-byte key, none found"),
    "map_push_elem": Case(("&queue", "room", "BPF_EXIST"), "QUEUE, 8 bytes"),
    "map_pop_elem": Case(("&queue", "room"), "QUEUE, 8 bytes"),
    "map_peek_elem": Case(("&queue", "room"), "QUEUE, 8 bytes"),
    "spin_lock": Case(("lock",), "with bpf_spin_unlock, free", f"call {{number}}\\n r1 = %[a]\\n call {_UNLOCK}\\n",
                      ("LOCK",)),  # fmt: skip
    "ktime_get_ns": Case((), ""),
    "ktime_get_boot_ns": Case((), ""),
    "ktime_get_coarse_ns": Case((), ""),
    "get_prandom_u32": Case((), ""),
    "get_smp_processor_id": Case((), ""),
    "tail_call": Case(("ctx", "&programs", "0"), "no program there"),
    "redirect": Case(("2", "0"), ""),
    "redirect_map": Case(("&ports", "0", "0"), "DEVMAP"),
    "csum_diff": Case(("0", "0", "room", "40", "0"), "40 bytes"),
    "xdp_adjust_head": Case(("ctx", "0"), "by 0"),
    "xdp_adjust_tail": Case(("ctx", "0"), "by 0"),
    "xdp_adjust_meta": Case(("ctx", "0"), "by 0"),
    "perf_event_output": Case(("ctx", "&events", "(__u64)BPF_F_CURRENT_CPU", "room", "16"), "16 bytes"),
    "ringbuf_output": Case(("&ring", "room", "16", "0"), "16 bytes"),
    "ringbuf_reserve": Case(("&ring", "16", "0"), "with bpf_ringbuf_discard, 16 bytes", _GIVES_BACK % _DISCARD),
    "ringbuf_submit": Case(("&ring", "16", "0"), "with bpf_ringbuf_reserve, 16 bytes", _GIVES_BACK % _SUBMIT,
                           of="ringbuf_reserve"),
    "ringbuf_query": Case(("&ring", "0"), ""),
    "xdp_get_buff_len": Case(("ctx",), ""),
    "xdp_load_bytes": Case(("ctx", "14", "room", "20"), "20 bytes to the stack"),
    "xdp_store_bytes": Case(("ctx", "14", "room", "20"), "20 bytes from the stack"),
    "strncmp": Case(("(char *)room + 1", "8", "(char *)room + 1"), "8 equal characters"),
    "strtol": Case(("(char *)room + 1", "3", "0", "room + 4"), '"21 "'),
    "strtoul": Case(("(char *)room + 1", "3", "0", "room + 4"), '"21 "'),
    "loop": Case(("8", "callback", "0", "0"), "8 times a callback of 2 instructions"),
    "for_each_map_elem": Case(("&array", "callback", "0", "0"), "ARRAY of 1, a callback of 2 instructions"),
    "for_each_map_elem, hash": Case(("&hash", "callback", "0", "0"), "HASH of 64, one there, the same callback"),
    "map_lookup_percpu_elem": Case(("&percpu", "&zero", "0"), "PERCPU_ARRAY"),
    "jiffies64": Case((), ""),
    "ktime_get_tai_ns": Case((), ""),
    "get_numa_node_id": Case((), ""),
    "trace_printk": Case(('"%d bytes"', "9", "60"), '"%d bytes"'),
    "trace_vprintk": Case(('"%d bytes"', "9", "room", "8"), '"%d bytes"'),
    "fib_lookup": Case(("ctx", "room", "64", "0"), "IPv4, found, with its neighbour", define=("FAMILY=2",)),
    "check_mtu": Case(("ctx", "1", "&zero", "0", "0"), "of a port"),
    "skb_load_bytes": _of_tc(("ctx", "14", "room", "20"), "20 bytes to the stack"),
    "skb_load_bytes_relative": _of_tc(("ctx", "0", "room", "20", "1"), "20 bytes to the stack"),
    "skb_store_bytes": _of_tc(("ctx", "14", "room", "20", "0"), "20 bytes from the stack"),
    "l3_csum_replace": _of_tc(("ctx", "24", "1", "2", "4"), "a word of 4 bytes"),
    "l4_csum_replace": _of_tc(("ctx", "40", "1", "2", "4"), "a word of 4 bytes"),
    "skb_pull_data": _of_tc(("ctx", "0"), ""),
    "skb_change_tail": _of_tc(("ctx", "60", "0"), "to the length that it has"),
    "skb_change_head": _of_tc(("ctx", "0", "0"), "by 0"),
    "skb_change_proto": _of_tc(("ctx", "0", "0"), "to none"),
    "skb_change_type": _of_tc(("ctx", "0"), ""),
    "skb_adjust_room": _of_tc(("ctx", "0", "1", "0"), "by 0"),
    "skb_vlan_push": _of_tc(("ctx", "0x81", "5"), "with bpf_skb_vlan_pop", f"call {{number}}\\n call {_POP}\\n"),
    "set_hash": _of_tc(("ctx", "5"), ""),
    "set_hash_invalid": _of_tc(("ctx",), ""),
    "get_hash_recalc": _of_tc(("ctx",), "known"),
    "csum_update": _of_tc(("ctx", "5"), ""),
    "csum_level": _of_tc(("ctx", "0"), "asked for"),
    "skb_ecn_set_ce": _of_tc(("ctx",), ""),
    "skb_get_tunnel_key": _of_tc(("ctx", "room", "44", "0"), "none"),
    "skb_set_tunnel_key": _of_tc(("ctx", "room + 1", "44", "0"), ""),
    "skb_set_tstamp": _of_tc(("ctx", "5", "0"), ""),
    "redirect_neigh": _of_tc(("2", "0", "0", "0"), "by the packet's IPv4 header, its neighbour known"),
    "redirect, tc": _of_tc(("2", "0"), ""),
    "clone_redirect, tc": Case(("ctx", "2", "0"), "64 bytes, out of a port, a buffer free", define=("TC",),
                               packets=(0, THREADS)),  # others that wait would have the buffers
    "bpf_xdp_metadata_rx_timestamp": _of_function("bpf_xdp_metadata_rx_timestamp", ("ctx", "room"), ""),
    "bpf_xdp_metadata_rx_hash": _of_function("bpf_xdp_metadata_rx_hash", ("ctx", "room", "room + 1"), "IPv4, UDP"),
    "bpf_xdp_metadata_rx_vlan_tag": _of_function("bpf_xdp_metadata_rx_vlan_tag", ("ctx", "room", "room + 1"), "none"),
    "bpf_iter_num_new": _of_function("bpf_iter_num_new", ("room", "0", "8"), ""),
    "bpf_iter_num_next": _of_function("bpf_iter_num_next", ("room",), "not behind the last"),
    "bpf_iter_num_destroy": _of_function("bpf_iter_num_destroy", ("room",), ""),
}
"""By name: a helper's (behind a comma what kind of call, `tc` of tc programs) or a function's."""


CONTENT = {
    "hash": ((0x3433323120313200).to_bytes(8, "little") + b"a".ljust(8, b"\0"), bytes(8)),
    "locked": (bytes(4), bytes(8)),
    "queue": (b"", bytes(8)),
}
"""A key and value of the program's maps."""
_GATEWAY = bytes([192, 0, 2, 1])
NETWORK = Network(
    tuple(Link(ifindex, f"port{ifindex - 1}") for ifindex in (1, 2)),
    (Route(IPV4, bytes(4), 0, (NextHop(2, _GATEWAY),)),),
    (Neighbour(2, _GATEWAY, bytes(6)),),
)


@dataclass(frozen=True)
class Cost:
    """Of one call as `says` has it. core: clocks that it takes of the core where all threads make such calls, which are
    issue slots where no unit is slower. instructions: of a routine. alone: clocks for a thread alone."""

    says: str
    core: float
    instructions: int
    alone: int


def _number(name: str) -> int | None:
    """None of a function of the kernel."""
    helper = helpers.BY_NAME.get(CASES[name].of or name.partition(", ")[0])
    return helper.number if helper else None


def _is_routine(name: str) -> bool:
    """Whether it is one of firmware."""
    return _number(name) not in helpers.HARDWARE - (helpers.OTHER_IN_TC if name.endswith(", tc") else frozenset())


def _run(name: str, case: Case, calls: int, alone: bool) -> tuple[float, float, float]:
    """For a packet whose program makes so many calls, or with `alone` all but the calls: clocks for a thread alone,
    clocks and instructions that it takes of the core where all threads have such."""
    call = (case.call or "call {number}\\n").format(number=_number(name))
    arguments = [*case.arguments, *["0"] * 5][:5]
    define = [f"{letter}={argument}" for letter, argument in zip("ABCDE", arguments, strict=True)]
    define += [f'{letter}_IN="{"i" if argument[0].isdigit() or argument.isupper() else "r"}"'
               for letter, argument in zip("ABCDE", arguments, strict=True)]  # fmt: skip
    define += [f'CALL="{call}"', f"CALLS={calls}", *case.define, *["ALONE"] * alone]
    with Nic("rtl", DeviceOptions(threads=THREADS)) as nic:
        nic.network = NETWORK
        program = nic.load(open(PROGRAM, define=define), unsafe=True)  # calls by assembly alone
        for key, value in CONTENT.items():
            if key in nic.maps:
                nic.maps[key].device_map.update(value[0], [value[1]])
        program.attach()
        (packet,) = nic.run([Arrival(0, FRAME)]).packets
        counts = []
        for packets in case.packets:
            traffic = nic.run([Arrival(number % nic.ports, FRAME) for number in range(packets)])
            assert {each.action for each in [packet, *traffic.packets]} == {XdpAction.XDP_DROP}, name
            counts.append((traffic.clocks, traffic.instructions))
        assert not any(nic.device.counters()["REFUSED_FULL"]), name
    (few, few_instructions), (many, many_instructions) = counts
    each = case.packets[1] - case.packets[0]
    return packet.finished - packet.started, (many - few) / each, (many_instructions - few_instructions) / each


def measure(name: str) -> Cost:
    """The difference between a program that makes many calls and one that makes few, less what their arguments take."""
    case = CASES[name]
    made, left_out = (
        [(many - few) / (CALLS[1] - CALLS[0]) for few, many in
         zip(*(_run(name, case, calls, alone) for calls in CALLS), strict=True)]
        for alone in (False, True)
    )  # fmt: skip
    instructions = round(made[2] - left_out[2]) - 1 if _is_routine(name) else 0
    return Cost(case.says, round(made[1] - left_out[2], 1), instructions, round(made[0] - left_out[0]))


def main() -> None:
    random.seed(0)
    costs = json.loads(helpers_doc.COSTS.read_text())
    for name in sys.argv[1:] or CASES:
        costs[name] = asdict(measure(name))
        print(f"{name}: {costs[name]}", file=sys.stderr, flush=True)
    costs = {name: costs[name] for name in CASES}
    helpers_doc.COSTS.write_text(json.dumps(costs, indent=1) + "\n")
    helpers_doc.TARGET.write_text(helpers_doc.text())


if __name__ == "__main__":
    main()
