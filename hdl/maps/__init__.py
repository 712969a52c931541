"""Maps: the memory that holds their values, and the engine that answers look-ups.

`memory.MapMemory` has banks behind a crossbar; `requester` is one requester's way through it. `engine.MapEngine` takes
calls from the cores, finds the map's descriptor and hands key and descriptor to the unit of its type: `array` today.
"""

from bpfnic.hdl.maps.engine import MapEngine
from bpfnic.hdl.maps.memory import MapMemory

__all__ = ["MapEngine", "MapMemory"]
