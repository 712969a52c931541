"""A program as the command line names it, for every command that takes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host import compile, kconfig
from bpfnic.host.btf.target import NIC
from bpfnic.host.nic import open
from bpfnic.host.object import Object, Program
from bpfnic.spec.programs import ProgramType


@dataclass(frozen=True, kw_only=True)
class Source:
    """`program`: C or an ELF object; `name`: one of its programs, None for all. `variables`: global ones to set, as
    text. `cpu`, `include`, `define`, `type`, `types`: as nic.open takes them. `kconfig`: as kconfig.give."""

    program: Path
    name: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    cpu: str = compile.DEFAULT_CPU
    include: Sequence[Path] = ()
    define: Sequence[str] = ()
    type: ProgramType | None = None
    kconfig: Sequence[str] = ()
    types: str = NIC

    def other(self, path: Path) -> Object:
        """A file that goes with it, opened in the same way. Raises BpfnicError as nic.open."""
        return open(path, cpu=self.cpu, include=self.include, define=self.define, type=self.type, types=self.types)

    def open(self) -> Object:
        """The object, with what is given to it. Raises BpfnicError as nic.open, and for what isn't in it."""
        object = self.other(self.program)
        for name, value in self.variables.items():
            object.set_global(name, value)
        kconfig.give(object.kconfig, self.kconfig)
        return object

    def chosen(self, object: Object) -> list[Program]:
        """The programs that are meant. Raises BpfnicError for a name that none has."""
        return [object.program(self.name)] if self.name else list(object.programs.values())
