"""What the blocks of a MAC say to each other. docs/ethernet.md draws them."""

from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature

from bpfnic.spec.ethernet import MacCounter, Speed

PhyReceive = Signature({"strobe": Out(1), "valid": Out(1), "error": Out(1), "data": Out(8)})
"""Adapter -> MAC, in the receive domain: in a clock with `strobe` the wire brought a byte (`valid`; `error`: the PHY
says that it is damaged) or silence. Bytes are whole: the one behind a start frame delimiter begins in that clock."""

PhyTransmit = Signature({"strobe": In(1), "valid": Out(1), "data": Out(8)})
"""MAC -> adapter, in the transmit domain: `valid` and `data` change behind a clock with `strobe`, and stay till the
next."""

Link = data.StructLayout({"up": 1, "speed": Speed, "full_duplex": 1})
"""MacCounter.LINK."""

Word = data.StructLayout({"data": 64, "count": 3, "last": 1, "bad": 1})
"""Up to 8 bytes on their way between the clocks, the first one lowest. count: how many, less one."""

BYTES_BITS = 13
"""Of a frame's length, which is cut where it is a giant."""

Departing = Signature({"pending": Out(1), "word": Out(Word), "take": In(1)})
"""Departures -> Transmit, in the transmit domain. `pending`: a whole frame waits, and `word` is its first word. In a
clock with `take` it is taken. Four clocks later (a register, the address, the memory's two) `word` is the next one, and
behind a frame's last one `pending` speaks of the next frame."""

Outcome = data.StructLayout({"counter": 3, "bytes": BYTES_BITS})
"""What became of a frame: the MacCounter below 8 that counts it, and its bytes if they count."""

StatisticsPort = Signature({"address": Out(range(max(MacCounter) + 1)), "value": In(32)})
"""Whoever reads a MAC's counters: `value` is the word MacCounter(address), in the same clock."""
