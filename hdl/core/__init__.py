"""The barrel core: docs/hardware.md, "The core: stages"."""

from bpfnic.hdl.core.core import Core

__all__ = ["Core"]
