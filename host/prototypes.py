"""What BTF says of a function: its arguments, what it returns, and who else may call it."""

from __future__ import annotations

from dataclasses import dataclass

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.spec.errors import BpfnicError

_GLOBAL = 1  # BTF_FUNC_GLOBAL
_ARGUMENT_TAG = "arg:"


@dataclass(frozen=True)
class Prototype:
    """A function of `btf`: its FUNC type and the FUNC_PROTO of that. `hidden`: its symbol is, and so the function is
    static for who verifies it, as libbpf has it."""

    btf: Btf
    function: Type
    type: Type
    hidden: bool = False

    @staticmethod
    def of(btf: Btf, number: int, hidden: bool = False) -> Prototype:
        """Of FUNC type `number`. Raises BpfnicError where it is another kind of type."""
        function = btf[number]
        type = btf[function.target]
        if function.kind is not Kind.FUNC or type.kind is not Kind.FUNC_PROTO:
            raise BpfnicError(f"{btf.where}: type {number} {function.name!r} is no function")
        return Prototype(btf, function, type, hidden)

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def static(self) -> bool:
        return self.hidden or self.function.detail != _GLOBAL

    @property
    def parameters(self) -> tuple[Part, ...]:
        return self.type.parts

    def tags(self, parameter: int) -> list[str]:
        """What `__arg_…` says of a parameter: `ctx`, `nonnull`, …"""
        return [tag.name.removeprefix(_ARGUMENT_TAG) for tag in self.declared
                if tag.component == parameter and tag.name.startswith(_ARGUMENT_TAG)]  # fmt: skip

    @property
    def declared(self) -> list[Type]:
        """The declaration tags of the function and its parameters."""
        return [type for type in self.btf if type.kind is Kind.DECL_TAG and type.target == self.function.number]
