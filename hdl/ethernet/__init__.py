"""Ethernet MAC and the adapters for the PHY's pins: between pins' halves of clocks and streams of Beat."""

from bpfnic.hdl.ethernet.mac import Mac
from bpfnic.hdl.ethernet.mii import Mii
from bpfnic.hdl.ethernet.rgmii import Rgmii

__all__ = ["Mac", "Mii", "Rgmii"]
