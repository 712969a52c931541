"""The boards: one row each. What a row says of pins comes from amaranth-boards; delays are those that LiteX uses, whose
users have tried them (litex-boards, liteeth/phy/ecp5rgmii.py)."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from bpfnic.spec import tables
from bpfnic.spec.engine import MAP_TYPES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import EVENTS


@dataclass(frozen=True)
class Part:
    """An FPGA: its LUTs (of 4 inputs in an ECP5, of 6 in Xilinx' series 7), block RAMs (18 kbit; 36), multipliers."""

    name: str
    family: str  # "ecp5" or "series7"
    luts: int
    blocks: int
    multipliers: int


ECP5_25 = Part("LFE5U-25F", "ecp5", 24_288, 56, 28)
ECP5_45 = Part("LFE5U(M)-45F", "ecp5", 43_848, 108, 72)
ECP5_85 = Part("LFE5U(M)-85F", "ecp5", 83_640, 208, 156)
XC7A35 = Part("XC7A35T", "series7", 20_800, 50, 90)
XC7K325 = Part("XC7K325T", "series7", 203_800, 445, 840)


@dataclass(frozen=True)
class Board:
    """
    platform : module and class in amaranth_boards, and what its constructor takes.
    ports : resources of the Ethernet ports, in the NIC's order, of which it may have fewer.
    kind : "rgmii" or "mii".
    delays : nanoseconds by which the FPGA delays tx_clk and what it receives. 0: the PHY does, or the clock's way into
        the part is long enough.
    uart, leds : resources (name, numbers), and for LEDs the part of them that is used. uart pins that the platform has
        no resource for: (rx, tx) and the IO attributes.
    program : how a bitstream reaches the board.
    nic : parameters of its NIC that aren't NicConfig's.
    megahertz : of the core, unless asked for otherwise.
    seed : the first one of nextpnr's that is tried. In a part that is nearly full some leave a spot that isn't routed.
    for_area : its part is nearly full: 3 % fewer LUTs, which cost the largest NIC a fifth of its clock.
    """

    name: str
    title: str
    part: Part
    platform: tuple[str, str]
    ports: tuple[int, ...]
    kind: str = "rgmii"
    delays: tuple[float, float] = (0, 0)
    uart: bool = True
    uart_pins: tuple[str, str] | None = None
    leds: tuple[tuple[str, int, str | None], ...] = ()
    program: str = ""
    nic: Mapping[str, object] = field(default_factory=dict)
    megahertz: float = 50  # the largest NIC reaches 66 by itself
    seed: int = 1
    for_area: bool = False

    def open(self):
        """The platform of amaranth-boards."""
        module, name = self.platform
        return getattr(importlib.import_module(f"amaranth_boards.{module}"), name)()


# Left out of the smallest part: maps with tables, and the emitter of records.
_SMALL_MAPS = MAP_TYPES - EVENTS - tables.TYPES
_SMALL = {
    "threads": 8, "program_slots": 2048, "map_bytes": 8 * 1024, "map_banks": 1, "maps": 16, "map_types": _SMALL_MAPS,
    "receive_metadata": False, "slice_places": 1,
}  # fmt: skip
_MIDDLE = {"map_bytes": 32 * 1024}


def _ecpix5(size: int, part: Part) -> Board:
    return Board(
        f"ecpix-5-{size}", f"LambdaConcept ECPIX-5, {size}F", part, ("ecpix5", f"ECPIX5{size}Platform"), (0,),
        delays=(2, 0), leds=tuple(("rgb_led", number, "g") for number in range(4)),
        program="openFPGALoader -b ecpix5 nic.bit", nic={"ports": 1} | (_MIDDLE if size == 45 else {}),
    )  # fmt: skip


BOARDS = {
    board.name: board
    for board in (
        Board(
            "colorlight-5a-75b", "Colorlight 5A-75B V7.0", ECP5_25,
            ("colorlight_5a75b_r7_0", "Colorlight_5A75B_R70Platform"), (0, 1), delays=(0, 2), nic=_SMALL,
            program="openFPGALoader -c ft232 nic.bit", megahertz=63,  # routed at 68.5; of the PLL 62.5, 16 ns a clock
            seed=2, for_area=True,
        ),
        Board(
            "versa-ecp5", "Lattice ECP5 Versa", ECP5_45, ("versa_ecp5", "VersaECP5Platform"), (0, 1),
            leds=tuple(("led", number, None) for number in range(4)), nic=_MIDDLE,
            program="openFPGALoader -b ecp5_evn nic.bit",
        ),
        _ecpix5(45, ECP5_45),
        _ecpix5(85, ECP5_85),
        Board(
            "logicbone", "LogicBone, 45F", ECP5_45, ("logicbone", "LogicbonePlatform"), (0,), delays=(2, 2),
            uart_pins=("P9_0:12", "P9_0:13"), leds=tuple(("led", number, None) for number in range(4)),
            nic={"ports": 1} | _MIDDLE, program="dfu-util -d 1d50:615d -a 0 -R -D nic.bit",
        ),
        Board(
            "butterstick", "ButterStick, 85F", ECP5_85, ("butterstick", "ButterStickPlatform"), (0,), delays=(2, 2),
            uart=False, nic={"ports": 1}, program="dfu-util -d 1209:5af1 -a 0 -R -D nic.bit",
        ),
        Board(
            "arty-a7", "Digilent Arty A7-35T", XC7A35, ("arty_a7", "ArtyA7_35Platform"), (0,), "mii",
            leds=tuple(("led", number, None) for number in range(4)), nic={"ports": 1} | _SMALL, megahertz=50,
        ),
        Board(
            "genesys2", "Digilent Genesys 2", XC7K325, ("genesys2", "Genesys2Platform"), (0,),
            leds=tuple(("led", number, None) for number in range(4)), nic={"ports": 1},
        ),
    )
}  # fmt: skip


def find(name: str) -> Board:
    """A board by its name. Raises BpfnicError naming those that there are."""
    if name not in BOARDS:
        raise BpfnicError(f"no board {name!r}: there are {', '.join(BOARDS)}")
    return BOARDS[name]
