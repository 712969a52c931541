"""How a driver reaches a card: messages over a UART or an Ethernet port, and what carries them out."""

from bpfnic.hdl.wire.endpoint import Bus, Endpoint
from bpfnic.hdl.wire.inband import InBand
from bpfnic.hdl.wire.link import Link
from bpfnic.hdl.wire.uart import UartLink

__all__ = ["Bus", "Endpoint", "InBand", "Link", "UartLink"]
