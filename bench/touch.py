"""The cocotb side of the speed measure: replays register writes, sends frames, counts clocks and seconds."""

import json
import os
import time
from pathlib import Path

import cocotb
from cocotb.simtime import get_sim_time

from bpfnic.sim.cocotb.bench import CLOCK_NS, Bench


@cocotb.test()
async def frames_back_to_back(dut) -> None:
    """Writes result.json: clocks and seconds of processor time of the traffic alone."""
    folder = Path(os.environ["BENCH_FOLDER"])
    job = json.loads((folder / "job.json").read_text())
    bench = Bench(dut)
    await bench.start()
    for address, value in job["writes"]:
        await bench.master.write_dword(address, value)
    frame, left = bytes.fromhex(job["frame"]), job["packets"]
    for number in range(left):
        bench.offer(number % job["interfaces"], frame)
    began, clocks = time.process_time(), get_sim_time("ns") / CLOCK_NS
    while left:
        await bench.clocks(64)
        left -= sum(len(bench.taken(egress)) for egress in range(len(bench.names)))
    seconds, clocks = time.process_time() - began, get_sim_time("ns") / CLOCK_NS - clocks
    (folder / "result.json").write_text(json.dumps({"clocks": clocks, "seconds": seconds}))
