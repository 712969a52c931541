"""Sequences of what tc programs do to their packet (tc_steps.bpf.c), done on a NIC, and drawn at random."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import bpfnic

SOURCE = Path(__file__).parent / "tc_steps.bpf.c"
STEPS = 4
BYTES = 64
OPERATIONS = (
    "NOTHING", "LOAD", "LOAD_RELATIVE", "STORE", "L3", "L4", "PULL", "TAIL", "HEAD", "PROTO", "TYPE", "ROOM", "PUSH",
    "POP", "HASH_INVALID", "SET_HASH", "CSUM_UPDATE", "CSUM_LEVEL", "ECN", "WRITE", "TOUCH", "GET_TUNNEL", "SET_TUNNEL",
    "SET_TSTAMP", "GET_HASH",
)  # fmt: skip
"""As the program's enumeration has them."""

ETH = bytes.fromhex("020000000001020000000002")
IPV4 = bytes.fromhex("4500002e00000000401100000a0000010a00000212340035001a0000")
IPV6 = bytes.fromhex("600123450020114020010db800000000000000000000000120010db8000000000000000000000002"
                     "1234003500200000")  # fmt: skip
PADDING = bytes(range(0x80, 0xC0))
V4 = ETH + b"\x08\x00" + IPV4 + PADDING
V6 = ETH + b"\x86\xdd" + IPV6 + PADDING
TAGGED = ETH + b"\x81\x00\x60\x05\x08\x00" + IPV4 + PADDING
DOUBLE = ETH + b"\x88\xa8\x60\x05\x81\x00\x00\x07\x08\x00" + IPV4 + PADDING


class Step(NamedTuple):
    """`size`: of what is loaded or stored, and of keys; otherwise what the program's operation takes."""

    operation: str
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


def load(offset: int, size: int) -> Step:
    return Step("LOAD", offset, size - 1)


def store(offset: int, size: int, flags: int = 0) -> Step:
    return Step("STORE", offset, size - 1, d=flags)


@dataclass(frozen=True)
class Seen:
    """What became of the packet, and of each step: its return value, the fields behind it, and its bytes."""

    action: str
    retval: int | None
    data: bytes | None
    cause: str
    steps: tuple[dict, ...]

    @property
    def values(self) -> list[int]:
        return [step["value"] for step in self.steps]


class Program:
    """The program on a NIC."""

    def __init__(self, nic: bpfnic.Nic):
        self.nic = nic
        self.loaded = nic.load(bpfnic.open(SOURCE))

    def run(self, frame: bytes, *steps: Step, memory: bytes = bytes(BYTES), verdict: int = 0) -> Seen:
        """Do up to STEPS steps to a frame that arrives at the second port. `memory`: what each one has at hand."""
        maps = self.nic.maps
        maps[".bss"]["verdict"] = verdict
        for number in range(STEPS):
            step = steps[number] if number < len(steps) else Step("NOTHING")
            words = {name: value & 0xFFFF_FFFF for name, value in zip("abc", step[1:4], strict=True)}
            maps["steps"][number] = {"operation": OPERATIONS.index(step.operation), **words, "d": step.d & 2**64 - 1}
            maps["results"][number] = {"bytes": list(memory)}
        result = self.loaded.test_run(frame, port=1)
        results = [maps["results"][number] for number in range(STEPS)]
        hashed = False
        for step, seen in zip(steps, results, strict=False):
            hashed = (hashed or step.operation == "GET_HASH") and step.operation not in ("SET_HASH", "HASH_INVALID")
            if hashed:
                seen["hash"] = 0  # which one is up to who makes it
        return Seen(result.action.name, result.retval, result.data, result.cause, tuple(results))


class Chance:
    """Draws frames and steps: what helpers accept, and what they don't."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def frame(self) -> bytes:
        pick = self._random
        frames = [V4, V6, TAGGED, DOUBLE, ETH + bytes(2) + b"\xff\xff" + PADDING, ETH + b"\x00\x40" + PADDING]
        data = bytearray(pick.choice(frames))
        if pick.random() < 0.3:
            data[15] = pick.randrange(256)  # the type of service, or a part of it
        if pick.random() < 0.2:
            data[0] |= 1
        body = bytes(pick.randrange(256) for _ in range(pick.choice([0, 20, 46, 100, 300])))
        return bytes(data) + body

    def memory(self) -> bytes:
        """As a tunnel's key it is accepted more often than not."""
        pick = self._random
        data = bytearray(pick.randrange(256) for _ in range(BYTES))
        if pick.random() < 0.8:
            data[22:24] = bytes(2)
        if pick.random() < 0.5:
            data[24:28] = bytes(4)
        return bytes(data)

    def steps(self) -> list[Step]:
        return [self._step(self._random.choice(OPERATIONS)) for _ in range(STEPS)]

    def _number(self) -> int:
        pick = self._random
        return pick.choice([0, 1, 2, 4, 8, 12, 13, 14, 15, 16, 18, 20, 24, 33, 34, 40, 54, 60, 63, 64, 65, 100, 0xFFFF,
                            0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, pick.randrange(400)])  # fmt: skip

    def _flags(self, *known: int) -> int:
        pick = self._random
        unknown = pick.choice([pick.getrandbits(64), 1 << pick.randrange(64)])
        legal = [pick.choice(known) for _ in range(4)]
        return pick.choice([0, *legal, legal[0] | legal[1], unknown])

    def _step(self, operation: str) -> Step:
        pick, flags = self._random, self._flags
        a, b, c, d = self._number(), self._number(), self._number(), 0
        match operation:
            case "LOAD_RELATIVE":
                c = pick.choice([0, 1, 1, 2])
            case "STORE":
                d = flags(1, 2, 3)
            case "L3":
                a, b, c = pick.choice([24, 24, a]), pick.choice([0, 0, pick.getrandbits(32)]), pick.getrandbits(32)
                d = flags(0, 2, 4)
            case "L4":
                a, b, c = pick.choice([40, 40, a]), pick.choice([0, 0, pick.getrandbits(32)]), pick.getrandbits(32)
                d = flags(0, 2, 4, 0x10, 0x12, 0x14, 0x20, 0x22, 0x24, 0x60, 0x64, 0x84)
            case "TAIL":
                a, d = pick.choice([a % 1024, 0xFFFF_FFFF, a & 0xFF]), flags(0)
            case "HEAD":  # in sum less than the NIC's headroom
                a, d = pick.choice([1, 3, 4, 14, 16, 20, 50, 0x8000_0000, 0xFFFF_FFFF]), flags(0)
            case "PROTO":
                a, d = pick.choice([0x0008, 0xDD86, 0x0081, pick.getrandbits(16)]), flags(0)
            case "TYPE":
                a = pick.choice([0, 1, 2, 3, 4, 7, 0xFFFF_FFFF])
            case "ROOM":
                a = pick.choice([0, 1, 4, 8, 14, 20, 28, 40, 50, 0x1000, -1, -4, -8, -14, -20, -40, -54, -0xFFF,
                                 -0x1000])  # fmt: skip
                b, inner = pick.choice([0, 1, 0, 1, 2]), pick.choice([0, 13, 14, 60]) << 56
                d = flags(0, 2, 4, 6, 2 | 8, 2 | 16, 2 | 24, 4 | 16, 1, 32, 34, 64, 66 | inner, 68 | inner, 128, 256,
                          384,
                          160, 257)  # fmt: skip
            case "PUSH":
                a, b = pick.choice([0x0081, 0xA888, 0x0008]), pick.getrandbits(16)
            case "CSUM_LEVEL":
                d = pick.choice([0, 0, 1, 1, 2, 3, 4, 1 << 32])
            case "GET_TUNNEL":
                b, d = pick.choice([43, 43, 27, 23, 21, 7, b]), flags(0, 1, 16, 17)
            case "SET_TUNNEL":
                b, d = pick.choice([43, 43, 27, 23, 21, 7, b]), flags(0, 1, 2, 4, 8, 16, 15)
            case "SET_TSTAMP":
                a, d = pick.choice([0, 1, 2, 3, a]), pick.choice([0, pick.getrandbits(64)])
            case "SET_HASH" | "WRITE":
                a, b, c, d = (pick.getrandbits(32) for _ in range(4))
        return Step(operation, a, b, c, d)
