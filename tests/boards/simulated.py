"""A card compiled by Verilator, and its UART as a terminal of this machine."""

import ctypes
import fcntl
import os
import select
import socket
import struct
import threading
import tty
from contextlib import contextmanager
from pathlib import Path

from bpfnic.hdl.card import Card, CardConfig
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.sim.rtl import build
from bpfnic.spec.maps import MapType

KEY = bytes(range(1, 17))
CLOCKS_PER_BIT = 4
NIC = NicConfig(
    threads=8,
    program_slots=2048,
    map_bytes=1 << 16,
    maps=16,
    map_types=frozenset({MapType.ARRAY, MapType.HASH, MapType.PERCPU_ARRAY}),
    receive_metadata=False,
    slice_places=1,  # as the smallest board's
)
CONFIG = CardConfig(nic=NIC, key=KEY, clocks_per_bit=CLOCKS_PER_BIT, build_id=bytes(range(32)), management=0)
HERE = Path(__file__).parent
_TUNSETIFF, _SIOCSIFFLAGS, _IFF_TAP, _IFF_NO_PI, _IFF_UP = 0x400454CA, 0x8914, 2, 0x1000, 1  # linux/if_tun.h, if.h


def library(config: CardConfig = CONFIG) -> ctypes.CDLL:
    """The compiled card, from the cache if it was compiled before."""

    def write(folder: Path) -> None:
        (folder / "card.v").write_text(build.verilog_of(Card(config), "card"))
        (folder / "ports.h").write_text(_ports(config))

    folder = build.netlist_by(write, [HERE / "simulated.py"], config)
    inputs = (folder / "card.v", folder / "ports.h", HERE / "card.cpp")
    recipe = build.Recipe("card", "card.so", inputs, verilate=("--top-module", "card", "--prefix", "Vcard"),
                          compile=("-DVL_TIME_CONTEXT",), link=("-shared",))  # fmt: skip
    functions = ctypes.CDLL(str(build.make(recipe)))
    functions.card_open.restype = ctypes.c_void_p
    functions.card_clocks.restype = ctypes.c_uint64
    return functions


def _ports(config: CardConfig) -> str:
    """ports.h: beats by port number. A payload is wider than 64 bits: an array of words of 32."""
    arriving, leaving = Beat(INGRESS_USER), Beat(EGRESS_USER)

    def place(layout, name):
        return layout[name].offset

    assert (place(arriving, "data"), place(arriving, "keep")) == (0, 64) == (place(leaving, "data"), 64)
    last, user = place(arriving, "last") - 64, place(arriving, "user") - 64
    lines = ["#pragma once", '#include "Vcard.h"', f"constexpr uint32_t PORTS = {config.nic.ports};",
             f"constexpr uint32_t CLOCKS_PER_BIT = {config.clocks_per_bit};"]  # fmt: skip

    def select_port(head: str, statement: str) -> None:
        cases = [f"    case {i}: {statement.replace('#', str(i))}" for i in range(config.nic.ports)]
        lines.extend([f"inline {head} {{", "    switch (i) {", *cases, "    default: __builtin_unreachable();", "    }",
                      "}"])  # fmt: skip

    payload = "c.mac_rx___05F#___05Fpayload"
    select_port(
        "void offer(Vcard &c, uint32_t i, bool valid, uint64_t data, uint32_t keep, bool last, uint32_t user)",
        f"c.mac_rx___05F#___05Fvalid = valid; {payload}[0] = uint32_t(data); {payload}[1] = uint32_t(data >> 32); "
        f"{payload}[2] = keep | uint32_t(last) << {last} | user << {user}; break;",
    )
    select_port("void set_ready(Vcard &c, uint32_t i, bool ready)", "c.mac_tx___05F#___05Fready = ready; break;")
    select_port("bool accepted(Vcard &c, uint32_t i)", "return c.mac_rx___05F#___05Fready;")
    select_port("bool leaves(Vcard &c, uint32_t i)", "return c.mac_tx___05F#___05Fvalid;")
    payload = "c.mac_tx___05F#___05Fpayload"
    select_port("uint64_t leaving_data(Vcard &c, uint32_t i)",
                f"return {payload}[0] | uint64_t({payload}[1]) << 32;")  # fmt: skip
    select_port("uint32_t leaving_keep(Vcard &c, uint32_t i)", f"return {payload}[2] & 0xff;")
    select_port("bool leaving_last(Vcard &c, uint32_t i)",
                f"return {payload}[2] >> {place(leaving, 'last') - 64} & 1;")  # fmt: skip
    return "\n".join(lines) + "\n"


class SimulatedCard:
    """A card of a compiled library; frames at its MACs are those of a port of no MAC: bytes."""

    def __init__(self, functions: ctypes.CDLL):
        self._functions = functions
        self._card = ctypes.c_void_p(functions.card_open())

    def run(self, clocks: int) -> None:
        self._functions.card_run(self._card, ctypes.c_uint64(clocks))

    @property
    def clocks(self) -> int:
        return self._functions.card_clocks(self._card)

    @property
    def idle(self) -> bool:
        """Nothing is on the line."""
        return bool(self._functions.card_idle(self._card))

    def hear(self, data: bytes) -> None:
        """Bytes for its UART."""
        self._functions.card_hear(self._card, data, len(data))

    def say(self) -> bytes:
        """What its UART has sent since it was asked last."""
        at = ctypes.POINTER(ctypes.c_uint8)()
        length = self._functions.card_say(self._card, ctypes.byref(at))
        return ctypes.string_at(at, length)

    def stall(self, stalls: bool) -> None:
        """Whether its MACs take no frames."""
        self._functions.card_stall(self._card, stalls)

    def offer(self, port: int, frame: bytes, error: bool = False) -> None:
        """A frame comes to a port."""
        self._functions.card_offer(self._card, port, frame, len(frame), int(error))

    def waiting(self, port: int) -> int:
        """Frames that have not come in."""
        return self._functions.card_waiting(self._card, port)

    def take(self, port: int) -> bytes | None:
        """The next frame that left by a port."""
        at = ctypes.POINTER(ctypes.c_uint8)()
        length = self._functions.card_take(self._card, port, ctypes.byref(at))
        return ctypes.string_at(at, length) if length else None

    def close(self) -> None:
        self._functions.card_close(self._card)


@contextmanager
def ethernet(card: SimulatedCard, port: int):
    """The name of an interface of this machine that is the other end of a port's cable, while the card runs. Raises
    OSError where the process may not make one."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"bpfnic{os.getpid() % 100000}"
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH", name.encode(), _IFF_UP))
    except OSError:
        os.close(tap)
        raise

    def step() -> None:
        if select.select([tap], [], [], 0.002 if not card.waiting(port) else 0)[0]:
            card.offer(port, os.read(tap, 2048))
        card.run(4000)
        while frame := card.take(port):
            os.write(tap, frame)

    with _running(step):
        yield name
    os.close(tap)


@contextmanager
def _running(step):
    """Does it again and again, beside the caller."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def terminal(card: SimulatedCard):
    """The path of a terminal that is the other end of the card's line, while the card runs."""
    master, slave = os.openpty()
    tty.setraw(slave)

    def step() -> None:
        if select.select([master], [], [], 0.002 if card.idle else 0)[0]:
            card.hear(os.read(master, 4096))
        card.run(4000)
        if said := card.say():
            os.write(master, said)

    with _running(step):
        yield os.ttyname(slave)
    os.close(master)
    os.close(slave)
