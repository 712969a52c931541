"""The register file of the golden NIC: what spec.registers says, with a place for each value."""

from collections.abc import Callable

from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.registers import REGISTERS, Access, Register

Read = Callable[[int], int]
Write = Callable[[int, int], None]


class Registers:
    """32-bit registers by byte address. A register holds what was written to it last, its reset value before, unless
    `on_read` or `on_write` gives it a behaviour: those take the index within an array of registers first."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[Register, int]] = {}
        self._values: dict[tuple[str, int], int] = {}
        for register in REGISTERS:
            for index in range(register.count):
                self._at[register.address(index)] = (register, index)
                self._values[register.name, index] = register.reset
        self.on_read: dict[str, Read] = {}
        self.on_write: dict[str, Write] = {}

    def __getitem__(self, name: str) -> int:
        """Value of a register."""
        return self._values[name, 0]

    def __setitem__(self, name: str, value: int) -> None:
        self.set(name, 0, value)

    def get(self, name: str, index: int) -> int:
        """Value of one register of an array."""
        return self._values[name, index]

    def set(self, name: str, index: int, value: int) -> None:
        """Set one register of an array, without its behaviour; the value is taken modulo 2**32."""
        self._values[name, index] = value & 0xFFFFFFFF

    def read(self, address: int) -> int:
        """Read over the bus. Raises BpfnicError where no register is."""
        register, index = self._find(address)
        if register.access is Access.WO:
            return 0
        if register.name in self.on_read:
            return self.on_read[register.name](index)
        return self._values[register.name, index]

    def write(self, address: int, value: int) -> None:
        """Write over the bus. Raises BpfnicError where no register is, or one that can't be written."""
        register, index = self._find(address)
        if register.access is Access.RO:
            raise BpfnicError(f"register {register.name} ({address:#05x}) is read only")
        if register.access is Access.RW:
            self.set(register.name, index, value)
        if register.name in self.on_write:
            self.on_write[register.name](index, value & 0xFFFFFFFF)

    def _find(self, address: int) -> tuple[Register, int]:
        try:
            return self._at[address]
        except KeyError:
            raise BpfnicError(f"there is no register at {address:#05x}") from None
