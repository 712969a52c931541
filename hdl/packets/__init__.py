"""The packet path: receive, buffers, windows, dispatch, services, order, transmit."""

from bpfnic.hdl.packets.path import PacketPath

__all__ = ["PacketPath"]
