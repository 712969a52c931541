"""PROG_ARRAY, the map of programs that tail calls go to. The host alone writes it.

A program can't be unloaded while such a map holds it: it is to be replaced or deleted there first. Packets under way
may still run what was there before, as after a new attach: `Device.unload` waits for them."""

from abc import abstractmethod
from errno import E2BIG, EINVAL, ENOENT
from typing import TYPE_CHECKING, Any

from bpfnic.host.device import DeviceMap, LoadedProgram, error
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bpfnic.host.object import Program


class ProgramArray(DeviceMap):
    """Programs by index. As bytes a value is the name of its program, and keys are those that have one.

    Errors are those of the kernel's fd_array_map_* functions. All programs that use the map or are in it must be alike,
    as bpf_prog_map_compatible asks, and verified or not: `refusal` says how one isn't, `used_by` notes the first."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._programs: dict[bytes, LoadedProgram] = {}
        self._first: tuple[Program, bool] | None = None

    @abstractmethod
    def _write(self, index: int, loaded: LoadedProgram | None) -> None:
        """Put a program, or none, at an index within the map, in one step. Raises OSError; then it is as it was."""

    def refusal(self, program: "Program", verified: bool) -> str:
        """Why a program may neither use the map nor be in it, "" if it may."""
        if self._first is None:
            return ""
        first, first_verified = self._first
        if _kind(first) != _kind(program):
            both = " and ".join(f"program {each.name} ({each.section!r})" for each in (program, first))
            return f"{both} can't share map {self.definition.name}: tail calls stay within one type of programs"
        if first_verified != verified:
            both = f"program {program.name}, {_vouched(verified)}, and program {first.name}, {_vouched(first_verified)}"
            return f"{both}, can't share map {self.definition.name}"
        return ""

    def used_by(self, program: "Program", verified: bool) -> None:
        """A program that uses the map, or is in it now."""
        self._first = self._first or (program, verified)

    def program(self, key: bytes) -> LoadedProgram:
        """The program at `key`. Raises OSError ENOENT."""
        self._index(key)
        if key not in self._programs:
            raise error(ENOENT)
        return self._programs[key]

    def set_program(self, key: bytes, loaded: LoadedProgram) -> None:
        """Put a loaded program of the same device at `key`, from the next tail call on. Raises OSError E2BIG; EINVAL
        for a program that `refusal` says something of, or that the device has no stack or frames for
        (taildepth.py)."""
        index = self._index(key)
        if index >= self.definition.max_entries:
            raise error(E2BIG)
        if why := self.refusal(loaded.program, loaded.verified):
            raise OSError(EINVAL, why)
        self._write(index, loaded)
        self._programs[key] = loaded
        self.used_by(loaded.program, loaded.verified)

    def clear_programs(self) -> None:
        """Take every program out."""
        for key in list(self._programs):
            self.delete(key)

    def delete(self, key: bytes) -> None:
        index = self._index(key)
        if index >= self.definition.max_entries:
            raise error(E2BIG)
        if key not in self._programs:
            raise error(ENOENT)
        self._write(index, None)
        del self._programs[key]

    def lookup(self, key: bytes) -> list[bytes]:
        return [self.program(key).program.name.encode()]

    def update(self, key: bytes, values: "Sequence[bytes]", flags: int = 0) -> None:
        raise OSError(EINVAL, f"map {self.definition.name} takes loaded programs")

    def next_key(self, key: bytes | None) -> bytes:
        at = -1 if key is None else self._index(key)
        indexes = sorted(self._index(held) for held in self._programs)
        following = [index for index in indexes if index > at] if key is None or key in self._programs else indexes
        if not following:
            raise error(ENOENT)
        return following[0].to_bytes(self.definition.key_size, "little")

    def key_of(self, loaded: LoadedProgram) -> bytes | None:
        """A key at which a program is, None if it is at none."""
        return next((key for key, held in self._programs.items() if held is loaded), None)

    def entry_name(self, index: int) -> str:
        """An entry, for people."""
        return f"{self.definition.name}[{index}]"

    def _index(self, key: bytes) -> int:
        size = self.definition.key_size
        if len(key) != size:
            raise OSError(EINVAL, f"{self.definition.name}: a key has {size} bytes, not {len(key)}")
        return int.from_bytes(key, "little")


def refuse_if_held(loaded: LoadedProgram, maps: "Iterable[DeviceMap]") -> None:
    """Raises BpfnicError where one of the maps holds the program."""
    for held in maps:
        if isinstance(held, ProgramArray) and (key := held.key_of(loaded)) is not None:
            where = f"map {held.definition.name}, at {held.definition.format_key(key)}"
            raise BpfnicError(f"program {loaded.program.name} is in {where}")


def admit(program: "Program", verified: bool, maps: "Iterable[DeviceMap]") -> None:
    """Raises BpfnicError where a program may not use one of its maps."""
    for used in maps:
        if isinstance(used, ProgramArray) and (why := used.refusal(program, verified)):
            raise BpfnicError(why)


def admitted(program: "Program", verified: bool, maps: "Iterable[DeviceMap]") -> None:
    """The program is loaded, with these maps."""
    for used in maps:
        if isinstance(used, ProgramArray):
            used.used_by(program, verified)


def _kind(program: "Program") -> tuple[Any, ...]:
    """What programs that call each other must have in common: type, fragments, and where an XDP program is attached
    besides an interface."""
    return program.type, program.frags, per_entry(program)


def _vouched(verified: bool) -> str:
    return "which is verified" if verified else "which nobody verified"


def per_entry(program: "Program") -> str:
    """The map whose entries an XDP program runs for, by what its section says: "devmap", "cpumap", else ""."""
    return program.attach if program.type is ProgramType.XDP and program.attach in ("devmap", "cpumap") else ""
