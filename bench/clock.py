"""How fast the NIC's clock is, by itself: `python -m bench.clock [--placements N] [CORES...]` places and routes it on
an ECP5-85F of speed grade 6, between shift registers that stand for all that is around it, and writes docs/clock.json.

Takes ten minutes or more of a processor for each number of cores and each placement, of which the best counts, as for
`bpfnic board build`. `python -m bench` prints what the file has.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from amaranth import Cat, Module, Signal, Value
from amaranth.back import verilog
from amaranth.hdl import Elaboratable
from amaranth.lib.wiring import Component, Flow

from bpfnic.boards import phases, recipe, report, tools
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.nic import Nic

CLOCK = Path("docs/clock.json")
ASKED = {1: 125, 2: 110}
"""Megahertz, by the number of cores."""
SIZES: dict[int, dict[str, int]] = {2: {"map_bytes": 64 * 1024}}
"""Likewise: with 128 KiB of map memory a NIC of two cores takes 211 blocks of RAM, and the part has 208."""
_DEVICE = ("--85k", "--speed", "6", "--package", "CABGA756", "--out-of-context")


class Between(Elaboratable):
    """`inner` between registers of one clock: its inputs change all at once, from a shift register, its outputs are
    caught and shifted out; so that nothing of it is constant, nothing is lost, and no pin is needed but two.

    Members: shift_in, shift_out.
    """

    def __init__(self, inner: Component):
        self.inner = inner
        self.shift_in, self.shift_out = Signal(), Signal()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.inner = self.inner
        of = {flow: [Value.cast(value) for _, member, value in self.inner.signature.flatten(self.inner)
                     if member.flow is flow] for flow in (Flow.In, Flow.Out)}  # fmt: skip
        inputs, outputs = Cat(of[Flow.In]), Cat(of[Flow.Out])
        coming, held = Signal(len(inputs)), Signal(len(inputs))
        caught, going = Signal(len(outputs)), Signal(len(outputs))
        count, changes = Signal(range(len(inputs) + 1)), Signal()
        m.d.comb += [inputs.eq(held), self.shift_out.eq(going[0])]
        m.d.sync += [coming.eq(Cat(self.shift_in, coming)), caught.eq(outputs), count.eq(count + 1)]
        m.d.sync += [going.eq(going[1:]), changes.eq(count == 0)]
        with m.If(changes):
            m.d.sync += [held.eq(coming), going.eq(caught)]
        return m


def measure(cores: int, placements: int, say) -> dict:
    """report.Report's measures of a NIC with so many cores of 16 threads, the best of so many placements, and how many
    these were. say : hears what is being done."""
    top = Between(Nic(NicConfig(target="ecp5", cores=cores, **SIZES.get(cores, {}))))
    say(f"writing a NIC with {cores} cores")
    text = verilog.convert(top, name="top", ports=[top.shift_in, top.shift_out], emit_src=False,
                           strip_internal_attrs=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "top.v").write_text(text)
        script = f"read_verilog top.v; {recipe.FOR_SPEED.synthesis('top')}; autoname; write_json top.json"
        tools.YOSYS.run(["-p", script], folder, phases.of_yosys(say))
        found = []
        for seed in range(1, placements + 1):
            tools.NEXTPNR.run(
                [*_DEVICE, "--json", "top.json", "--freq", str(ASKED.get(cores, max(ASKED.values()))), "--report",
                 "report.json", "--timing-allow-fail", "--seed", str(seed), "--placer", recipe.PLACER],
                folder, phases.of_nextpnr(say),
            )  # fmt: skip
            text = (folder / "report.json").read_text().replace('"inner.', '"')
            found.append(report.of_nextpnr(json.loads(text), {}, seed))
        return max(found, key=lambda each: each.margin).measures() | {"placements": placements}


def main() -> None:
    def say(text: str) -> None:
        print(f"# {text}", file=sys.stderr, flush=True)

    parser = argparse.ArgumentParser(prog="python -m bench.clock")
    parser.add_argument("cores", type=int, nargs="*", default=list(ASKED))
    parser.add_argument("--placements", type=int, default=1)
    options = parser.parse_args()
    if options.placements < 1 or min(options.cores) < 1:
        parser.error("cores and placements are counted from 1")
    known = json.loads(CLOCK.read_text()) if CLOCK.exists() else {}
    for cores in options.cores:
        known[str(cores)] = measure(cores, options.placements, say)
        (clock,) = known[str(cores)]["clocks"]
        print(f"{cores} cores: {clock['achieved']:.1f} MHz of {clock['asked']:g}; {' > '.join(clock['path'])}")
        CLOCK.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
