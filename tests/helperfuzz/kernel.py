"""Calls of helpers as verifiers let them through, with random arguments: the running kernel's BPF_PROG_TEST_RUN, golden
and rtl are to come to the same. What a call returned, what it left in its program's memory, the packet and all maps are
compared; those of the kernel with golden, one packet after the other, those of rtl with golden in lockstep."""

import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival
from bpfnic.host.nic import open
from bpfnic.host.object import Object
from bpfnic.spec.helpers import BY_NAME
from bpfnic.spec.programs import ProgramType
from tests.helperfuzz.fuzz import EDGES, HEADER_BYTES, HEADERS, LETTERS, LIKELY, PREPARED, SMALL, error_name

PROGRAM = Path(__file__).parent / "kernel.bpf.c"
MOST = 256
"""Calls in one run: as many as the program has results for."""
IFINDEXES = {0: 2, 1: 3}
"""Of the ports: in the kernel 1 is the loopback's."""
CONTENT = {"ports": [(at.to_bytes(4, "little"), [number.to_bytes(4, "little")], 0) for at, number in IFINDEXES.items()]}
_CALL = struct.Struct("<5Q64s64s2Q2I")
_RESULT = struct.Struct("<q")

Words = Mapping[int, tuple[int, ...]]
"""What a word of the call is chosen from, by its number; any number otherwise."""


@dataclass(frozen=True)
class Call:
    """A call in C, with what kernel.bpf.c has. words: as in Words. maps: it is made with each of them, which is GIVEN
    there. is_verdict: what it returns may be the program's verdict."""

    text: str
    words: Words = field(default_factory=dict)
    maps: tuple[str, ...] = ("",)
    is_verdict: bool = False


_KEYED = ("array", "percpu_array", "hash", "percpu_hash", "lpm")
_QUEUES = ("queue", "stack")
_FIRST_CPU = (0, 0, 0) if 0 in os.sched_getaffinity(0) else ()  # which one the linux backend runs on
_LIMITED = (0, 1, 4, 13, 14, 15, 20, 60, 100, 1 << 31, 0xFFFFFFFF, 0x1_0000_0000, 1 << 40)
_FLAGS = (0, 0, 0, 1, 2, 3, 4, 8, 1 << 32)

CALLS: dict[str, Call] = {
    "map_lookup_elem": Call("(words[0] & 1 ? bpf_map_update_elem(&GIVEN, room, more, 0) : 0, "
                            "first_of(bpf_map_lookup_elem(&GIVEN, room)))", maps=_KEYED),
    "map_update_elem": Call("bpf_map_update_elem(&GIVEN, room, more, words[3])", {3: (0, 1, 2, 3, 4, 1 << 32)}, _KEYED),
    "map_delete_elem": Call("(words[0] & 1 ? bpf_map_update_elem(&GIVEN, room, more, 0) : 0, "
                            "bpf_map_delete_elem(&GIVEN, room))", maps=_KEYED),
    "map_lookup_percpu_elem": Call("(bpf_map_update_elem(&GIVEN, room, more, 0), "
                                   "first_of(bpf_map_lookup_percpu_elem(&GIVEN, room, words[2])))",
                                   {2: (*_FIRST_CPU, 1000, 0xFFFFFFFF, 1 << 40 | 1000)},
                                   ("percpu_array", "percpu_hash")),
    "map_push_elem": Call("bpf_map_push_elem(&GIVEN, room, words[2])", {2: (0, 0, 1, 2, 3, 1 << 32)}, _QUEUES),
    "map_pop_elem": Call("(words[0] & 1 ? bpf_map_push_elem(&GIVEN, more, 0) : 0, bpf_map_pop_elem(&GIVEN, room))",
                         maps=_QUEUES),
    "map_peek_elem": Call("(words[0] & 1 ? bpf_map_push_elem(&GIVEN, more, 0) : bpf_map_pop_elem(&GIVEN, more), "
                          "bpf_map_peek_elem(&GIVEN, room))", maps=_QUEUES),
    "for_each_map_elem": Call("(sum->stop = 0, bpf_map_update_elem(&GIVEN, room, room + 1, 0), "  # no stop: any order
                              "bpf_for_each_map_elem(&GIVEN, add, sum, words[3]))", {3: (0, 0, 0, 1, 1 << 32)},
                              ("array", "percpu_array", "hash", "percpu_hash")),
    "loop": Call("bpf_loop(words[0], count, sum, words[3])",
                 {0: (0, 1, 2, 7, 30, (1 << 23) + 1, 1 << 32, 0xFFFFFFFF), 3: (0, 0, 0, 1, 1 << 32)}),
    "csum_diff": Call("bpf_csum_diff((void *)room, SIZE_OR_ZERO(1), (void *)more, SIZE_OR_ZERO(3), words[4])"),
    "strtol": Call("bpf_strtol((char *)room, SIZE(1), words[2], (long *)more)", {2: (0, 8, 10, 16, 16, 2, 1 << 32)}),
    "strtoul": Call("bpf_strtoul((char *)room, SIZE(1), words[2], (unsigned long *)more)",
                    {2: (0, 8, 10, 16, 16, 2, 1 << 32)}),
    "strncmp": Call("bpf_strncmp((char *)room, SIZE(1), word)"),
    "xdp_get_buff_len": Call("bpf_xdp_get_buff_len(ctx)"),
    "xdp_load_bytes": Call("bpf_xdp_load_bytes(ctx, words[1], room, SIZE(3))"),
    "xdp_store_bytes": Call("bpf_xdp_store_bytes(ctx, words[1], room, SIZE(3))"),
    "xdp_adjust_head": Call("bpf_xdp_adjust_head(ctx, words[1])"),
    "xdp_adjust_tail": Call("bpf_xdp_adjust_tail(ctx, words[1])"),
    "xdp_adjust_meta": Call("bpf_xdp_adjust_meta(ctx, words[1])"),
    "redirect": Call("bpf_redirect(words[0], words[1])", {0: (0, 2, 3, 4, 1 << 32 | 2), 1: _FLAGS}, is_verdict=True),
    "redirect_map": Call("bpf_redirect_map(&GIVEN, words[1], words[2])",
                         {1: (0, 1, 2, 3, 4, 1 << 32), 2: (0, 1, 2, 3, 4, 7, 1 << 32)}, ("ports", "queues"),
                         is_verdict=True),
    "ringbuf_output": Call("bpf_ringbuf_output(&ring, room, SIZE_OR_ZERO(2), words[3])", {3: _FLAGS}),
    "ringbuf_submit": Call("reserve_and(bpf_ringbuf_submit, words[2], words[1], room)", {2: _FLAGS, 1: (0, 1, 2, 4)}),
    "ringbuf_discard": Call("reserve_and(bpf_ringbuf_discard, words[2], words[1], room)", {2: _FLAGS, 1: (0, 1, 2, 4)}),
    "trace_printk": Call("bpf_trace_printk((char *)room, SIZE(1), words[2], words[3], words[4])"),
    "trace_vprintk": Call("bpf_trace_vprintk((char *)room, SIZE(1), more, SIZE_OR_ZERO(3))",
                          {3: (0, 8, 16, 24, 32, 40, 63)}),
    "check_mtu": Call("bpf_check_mtu(ctx, words[0], (__u32 *)room, words[2], words[3])",
                      {0: (0, 2, 3, 4, 1 << 32), 2: (0, 0, 20, -20, 2000), 3: (0, 0, 0, 1, 2, 1 << 32)}),
    "ringbuf_query": Call("bpf_ringbuf_query(&ring, words[1])", {1: (0, 1, 4, 5, 1 << 32)}),
    "perf_event_output": Call("bpf_perf_event_output(ctx, &events, words[2], room, SIZE_OR_ZERO(4))"),
    "skb_load_bytes": Call("bpf_skb_load_bytes(ctx, words[1], room, SIZE(3))"),
    "skb_load_bytes_relative": Call("bpf_skb_load_bytes_relative(ctx, words[1], room, SIZE(3), words[4])",
                                    {4: (0, 1, 2, 3, 1 << 32)}),
    "skb_store_bytes": Call("bpf_skb_store_bytes(ctx, words[1], room, SIZE(3), words[4])", {4: _FLAGS}),
    "l3_csum_replace": Call("bpf_l3_csum_replace(ctx, words[1], words[2], words[3], words[4])",
                            {1: (24, 24, 28, 50, 51, 500, 0x10000), 4: (0, 1, 2, 2, 4, 4, 8, 16, 1 << 32)}),
    "l4_csum_replace": Call("bpf_l4_csum_replace(ctx, words[1], words[2], words[3], words[4])",
                            {1: (40, 40, 50, 51, 500, 0x10000), 4: (0, 1, 2, 4, 16, 18, 20, 32, 36, 64, 128, 1 << 32)}),
    "skb_pull_data": Call("bpf_skb_pull_data(ctx, words[1])"),
    "skb_change_tail": Call("bpf_skb_change_tail(ctx, words[1], words[2])", {1: (*_LIMITED, 200, 600), 2: _FLAGS}),
    "skb_change_head": Call("bpf_skb_change_head(ctx, words[1], words[2])",
                            {1: (0, 1, 4, 14, 20, 100, 1 << 31, 0xFFFFFFFF), 2: _FLAGS}),
    "skb_change_proto": Call("bpf_skb_change_proto(ctx, words[1], words[2])", {1: (8, 0xDD86, 0x81, 0), 2: _FLAGS}),
    "skb_change_type": Call("bpf_skb_change_type(ctx, words[1])", {1: (0, 1, 2, 3, 4, 7, 0xFFFFFFFF, 1 << 32)}),
    "skb_adjust_room": Call("bpf_skb_adjust_room(ctx, words[1], words[2], words[3])",
                            {1: (0, 4, 8, 14, 20, 40, 100, -4, -14, -20, -40, -100, 4096, -4096),
                             2: (0, 0, 1, 1, 2),
                             3: (0, 0, 1, 2, 4, 6, 10, 12, 18, 20, 32, 66, 128, 256, 257, 384, 1 << 40, 13 << 56)}),
    "skb_vlan_push": Call("bpf_skb_vlan_push(ctx, words[1], words[2])", {1: (0x0081, 0xA888, 8, 0)}),
    "skb_vlan_pop": Call("bpf_skb_vlan_pop(ctx)"),
    "set_hash": Call("(bpf_set_hash(ctx, words[1]), bpf_get_hash_recalc(ctx))"),
    "set_hash_invalid": Call("(bpf_set_hash_invalid(ctx), 0)"),
    "csum_update": Call("bpf_csum_update(ctx, words[1])"),
    "csum_level": Call("bpf_csum_level(ctx, words[1])", {1: (0, 1, 2, 3, 4, 1 << 32)}),
    "skb_ecn_set_ce": Call("bpf_skb_ecn_set_ce(ctx)"),
    "skb_get_tunnel_key": Call("bpf_skb_get_tunnel_key(ctx, (void *)room, SIZE(2), words[3])",
                               {2: (43, 43, 27, 23, 21, 7, 63), 3: (0, 0, 1, 16, 17, 2, 1 << 32)}),
    "skb_set_tunnel_key": Call("bpf_skb_set_tunnel_key(ctx, (void *)room, SIZE(2), words[3])",
                               {2: (43, 43, 27, 23, 21, 7, 63), 3: (0, 1, 2, 4, 8, 16, 15, 32, 1 << 32)}),
    "skb_set_tstamp": Call("bpf_skb_set_tstamp(ctx, words[1], words[2])",
                           {1: (0, 0, 5, 1 << 40), 2: (0, 1, 2, 3, 4, 1 << 32)}),
}  # fmt: skip


NOT_CALLED = {
    "ktime_get_ns ktime_get_boot_ns ktime_get_coarse_ns ktime_get_tai_ns jiffies64 get_prandom_u32 "
    "get_smp_processor_id get_numa_node_id": "a clock, chance, or where a program runs",
    "get_hash_recalc": "a hash by the kernel's secret",
    "ringbuf_reserve": "in the calls of ringbuf_submit and ringbuf_discard",
    "tail_call": "changes what runs: tests/sim/test_tail_calls.py",
    "spin_lock spin_unlock": "return nothing: tests/sim/test_spin_locks.py",
    "clone_redirect": "sends: tests/sim/test_clone_redirect.py, on links of the kernel",
    "redirect_neigh": "sends: tests/host/test_redirect_neigh.py, on links of the kernel",
    "fib_lookup": "in random networks: tests/sim/test_fib_lookup.py",
}
"""Helpers that aren't judged here, and why not, or where they are."""


@dataclass
class Judged:
    """What came of the calls of one helper."""

    name: str
    of: ProgramType
    calls: int = 0
    results: Counter[str] = field(default_factory=Counter)
    difference: str = ""


def callable_by(of: ProgramType) -> list[str]:
    """The helpers that are judged in programs of a type."""
    return [name for name in CALLS if of in BY_NAME[name].programs]


def judge(name: str, of: ProgramType, calls: int, seed: int, say: Callable[[str], None] = lambda text: None,
          backends: tuple[str, ...] = ("linux", "rtl")) -> Judged:  # fmt: skip
    """Random calls of a helper by programs of a type, on each backend and on golden. They end with the first
    difference. Raises BpfnicError where a backend can't be used."""
    call, judged = CALLS[name], Judged(name, of)
    of_tc = of is ProgramType.SCHED_CLS
    for each_map in call.maps:
        chance = random.Random(f"{seed} {of.name} {name} {each_map}")
        define = [f"CALL={call.text}", f"GIVEN={each_map}", *["TC"] * of_tc]
        obj, left = open(PROGRAM, define=define), -(-calls // len(call.maps))
        while left and not judged.difference:
            count = min(MOST, left)
            frames = [_packet(chance, name, call, number, of_tc) for number in range(count)]
            for backend in backends:
                judged.difference = judged.difference or _compare(backend, obj, frames, judged)
            left -= count
            judged.calls += count
    say(f"{of.name} {name}: {judged.calls} calls, {dict(judged.results)}")
    return judged


def _compare(backend: str, obj: Object, frames: list[bytes], judged: Judged) -> str:
    arrivals = [Arrival(number % 2, frame) for number, frame in enumerate(frames)]
    entries = [{name: content for name, content in CONTENT.items() if name in obj.program().maps}]
    bench = Bench(backend, obj, arrivals, entries=entries, ifindexes=IFINDEXES)
    if backend == "linux":
        evidence = bench.run()
        verdict = bench.check(evidence)
        results = evidence.maps["results"]
        for number in range(len(frames)):
            (result,) = results[number.to_bytes(4, "little")]
            judged.results[error_name(*_RESULT.unpack_from(result))] += 1
    else:
        _, verdict = bench.in_lockstep()
    return "" if verdict["equal"] else "\n".join([verdict["difference"], *verdict["trace"]])


def _packet(chance: random.Random, name: str, call: Call, number: int, of_tc: bool) -> bytes:
    words = [_word(chance, call.words.get(place) or LIKELY.get(name, {}).get(place)) for place in range(5)]
    letters = bytes(set(LETTERS) - set(b"sp")) if "print" in name else LETTERS  # what these show lies in host memory
    room, more = _room(chance, letters), _room(chance, LETTERS)
    prepared = chance.choice([each for each in PREPARED if each[0] > 2]) if chance.random() < 0.3 else (0, 0)
    is_verdict = call.is_verdict and chance.random() < 0.8
    header = chance.choice([*HEADERS.values()]) if of_tc else b""
    tagged = header[12:14] in (b"\x81\0", b"\x88\xa8")
    header = header.ljust(HEADER_BYTES * of_tc + 4 * tagged, b"\0")
    body = _CALL.pack(*words, room, more, *prepared, number, is_verdict)
    return header + body + chance.choice((b"", chance.randbytes(40), b"x" * 300))


def _word(chance: random.Random, choices: tuple[int, ...] | None) -> int:
    if choices is None:
        choices = (chance.choice(SMALL), chance.choice(EDGES), chance.randrange(-20, 400), chance.getrandbits(64))
    return chance.choice(choices) & (1 << 64) - 1


def _room(chance: random.Random, letters: bytes) -> bytes:
    """A text, a number's digits, or words as keys and parameters have them."""
    match chance.randrange(3):
        case 0:
            return bytes(chance.choices(letters, k=64))
        case 1:
            return bytes(chance.choices(LETTERS[:10], k=chance.randrange(64))).ljust(64, b"\0")
    return b"".join(chance.randrange(4).to_bytes(4, "little") for _ in range(16))
