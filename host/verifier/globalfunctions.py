"""Global functions: verified once, for all that BTF says they may be given, and not walked for a call (kernel:
btf_prepare_func_args, btf_check_func_arg_match, do_check_subprogs)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bpfnic.host.btf import Kind as BtfKind
from bpfnic.host.btf import Type
from bpfnic.host.btf.kinds import COMPOSITES, ENUMS
from bpfnic.host.verifier import memory, stack, text
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.state import State, initial
from bpfnic.host.verifier.values import (
    CONTEXT,
    MEMORY,
    NOTHING,
    NUMBER,
    PACKET_KINDS,
    RECORD,
    STACK,
    UNKNOWN_NUMBER,
    VALUE,
    ZERO,
    Held,
    Kind,
)
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from bpfnic.host.prototypes import Prototype
    from bpfnic.host.verifier.walk import Walk

MOST_PARAMETERS = 5
"""Registers that arguments are passed in (MAX_BPF_FUNC_REG_ARGS)."""
_NUMBERS = ENUMS | {BtfKind.INT}
_CONTEXTS = {ProgramType.XDP: "xdp_md", ProgramType.SCHED_CLS: "__sk_buff", ProgramType.SOCKET_FILTER: "__sk_buff"}
_DYNPTRS = ("bpf_dynptr", "bpf_dynptr_kern")
_TAGS = ("ctx", "nonnull", "nullable", "trusted", "untrusted", "arena")
_MEMORY_KINDS = (*PACKET_KINDS, STACK, VALUE, MEMORY, RECORD)


@dataclass(frozen=True)
class Parameter:
    """What a register holds at a call: a NUMBER, the CONTEXT, or MEMORY of `size` bytes, or NULL if `nullable`."""

    kind: Kind
    size: int = 0
    nullable: bool = False


class GlobalFunctions:
    """Those of one program, and which of them were called."""

    def __init__(self, walk: "Walk"):
        self._walk = walk
        self._parameters: dict[int, Sequence[Parameter]] = {}
        self._called: dict[int, None] = {}  # in order

    def prototype(self, entry: int) -> "Prototype | None":
        """Of the function at that slot, if it is global."""
        found = self._walk.subject.prototypes.get(entry)
        return None if found is None or found.static else found

    def call(self, entry: int, prototype: "Prototype") -> None:
        """A call of one: what it is given is checked, and what it leaves is any number."""
        walk = self._walk
        regs = walk.state.frame.regs
        if walk.state.lock is not None:
            walk.say("global function calls are not allowed while holding a lock,")
            raise Refusal("use static function instead", why="A global function isn't called while a lock is held.",
                          fix="make the function static, or call bpf_spin_unlock first")  # fmt: skip
        try:
            for register, parameter in enumerate(self._read(entry, prototype), 1):
                self._argument(register, parameter)
        except Refusal as refusal:
            walk.say(refusal.message)
            where = f"func#{self._number(entry)} ('{prototype.name}')"
            raise Refusal(f"Caller passes invalid args into {where}", why=refusal.why, fix=refusal.fix,
                          register=refusal.register) from None  # fmt: skip
        if walk.log.level:
            walk.say(f"Func#{self._number(entry)} ('{prototype.name}') is global and assumed valid.")
        if entry in walk.graph.changes_packet:
            memory.forget_packet(walk)
        self._called[entry] = None
        regs[0:6] = [UNKNOWN_NUMBER, *[NOTHING] * 5]

    def waiting(self, verified: set[int]) -> list[int]:
        """Functions that were called and aren't verified yet."""
        return [entry for entry in self._called if entry and entry not in verified]

    def begin(self, entry: int) -> State:
        """The state in which a global function is verified."""
        prototype = self.prototype(entry)
        assert prototype
        walk = self._walk
        if walk.log.level:
            walk.say(f"Validating {prototype.name}() func#{self._number(entry)}...")
        state = initial(entry)
        regs = state.frame.regs
        regs[1] = NOTHING
        for register, parameter in enumerate(self._read(entry, prototype), 1):
            if parameter.kind is NUMBER:
                regs[register] = UNKNOWN_NUMBER
            else:
                regs[register] = Held(parameter.kind, ZERO, size=parameter.size, nullable=parameter.nullable,
                                      id=walk.new_id() if parameter.nullable else 0)  # fmt: skip
        return state

    def safe(self, entry: int) -> None:
        """One is verified."""
        prototype = self.prototype(entry)
        assert prototype
        if self._walk.log.level:
            self._walk.say(f"Func#{self._number(entry)} ('{prototype.name}') is safe for any args that match its "
                           "prototype")  # fmt: skip

    def leave(self) -> None:
        """The end of one that is verified. Raises Refusal unless it returns a number."""
        result = self._walk.readable(0)
        if result.kind is not NUMBER:
            raise Refusal(f"At subprogram exit the register R0 is not a scalar value ({text.kind(result)})", register=0,
                          why="Global functions return numbers.", fix="make the function static")  # fmt: skip

    def _number(self, entry: int) -> int:
        return self._walk.graph.entries.index(entry)

    def _read(self, entry: int, prototype: "Prototype") -> Sequence[Parameter]:
        found = self._parameters.get(entry)
        if found is None:
            found = self._parameters[entry] = parameters(prototype, self._walk.subject.type)
        return found

    def _argument(self, register: int, parameter: Parameter) -> None:
        """Raises Refusal unless the register holds what the function takes there."""
        walk = self._walk
        given = walk.state.frame.regs[register]
        if parameter.kind is NUMBER:
            if given.kind is not NUMBER:
                raise Refusal(f"R{register} is not a scalar", register=register)
            return
        if given.kind not in (NUMBER, *_MEMORY_KINDS) and (given.off or given.number.mask or given.number.value):
            raise Refusal(f"dereference of modified {text.kind(given)} ptr R{register} off={given.off} disallowed",
                          register=register)  # fmt: skip
        if parameter.kind is CONTEXT:
            if given.kind is not CONTEXT:
                raise Refusal(f"arg#{register - 1} expects pointer to ctx", register=register)
            return
        null = given.constant and not given.number.value
        if not null:
            if given.kind not in _MEMORY_KINDS:
                raise Refusal(f"R{register} type={text.kind(given)} expected=fp", register=register,
                              why=f"Argument {register} must be a pointer to {parameter.size} bytes.")  # fmt: skip
            pointer = given.but(nullable=False) if given.nullable else given
            memory.reach(walk, register, pointer, parameter.size, reads=True, writes=True, zero=True)
            if pointer.kind is STACK and parameter.size:
                stack.spoil(walk, pointer, 0, parameter.size)
        if (null or given.nullable) and not parameter.nullable:
            raise Refusal(f"arg#{register - 1} is expected to be non-NULL", register=register,
                          fix=f"compare r{register} with NULL before this call")  # fmt: skip


def parameters(prototype: "Prototype", type: ProgramType) -> tuple[Parameter, ...]:
    """What a global function may be given. Raises Refusal for what can't be verified by its type alone."""
    btf, name, parts = prototype.btf, prototype.name, prototype.parameters
    if len(parts) > MOST_PARAMETERS:
        raise Refusal(f"Global function {name}() with {len(parts)} > {MOST_PARAMETERS} args. Buggy compiler.")
    if btf.resolve(prototype.type.target).kind not in _NUMBERS:
        raise Refusal(f"Global function {name}() doesn't return scalar. Only those are supported.",
                      fix="make the function static")  # fmt: skip
    return tuple(_parameter(prototype, index, btf.resolve(part.type), type) for index, part in enumerate(parts))


def _parameter(prototype: "Prototype", index: int, type: Type, program: ProgramType) -> Parameter:
    tags = prototype.tags(index)
    if any(tag not in _TAGS for tag in tags):
        raise Refusal(f"arg#{index} has unsupported set of tags")
    if type.kind is not BtfKind.PTR:
        if tags:
            raise Refusal(f"arg#{index} has pointer tag, but is not a pointer type")
        if type.kind in _NUMBERS:
            return Parameter(NUMBER)
        raise Refusal(f"Arg#{index} type {_kind(type)} in {prototype.name}() is not supported yet.",
                      fix="make the function static")  # fmt: skip
    behind = prototype.btf.resolve(type.target)
    structure = behind.name if behind.kind in COMPOSITES else ""
    if "ctx" in tags or structure == _CONTEXTS[program]:
        if any(tag != "ctx" for tag in tags):
            raise _combined(index)
        if structure != _CONTEXTS[program] and behind.number:
            raise Refusal(f"arg#{index} should be `struct {_CONTEXTS[program]} *`")
        return Parameter(CONTEXT)
    if structure in _DYNPTRS or {"trusted", "untrusted", "arena"} & set(tags):
        raise Refusal(f"arg#{index} is a pointer that bpfnic's verifier doesn't follow",
                      why=f"{prototype.name}() takes a dynptr or a pointer into the kernel.")  # fmt: skip
    if "nullable" in tags:
        raise _combined(index)
    size = _size(prototype, index, behind)
    return Parameter(MEMORY, size, nullable="nonnull" not in tags)


def _combined(index: int) -> Refusal:
    return Refusal(f"arg#{index} has invalid combination of tags")


def _size(prototype: "Prototype", index: int, behind: Type) -> int:
    if behind.number and behind.kind not in (BtfKind.FWD, BtfKind.FUNC_PROTO):
        try:
            return prototype.btf.size(behind.number)
        except BpfnicError:
            pass  # it contains itself
    raise Refusal(f"arg#{index} reference type('{_described(behind)}') size cannot be determined: -22",
                  fix="make the function static, or say what the pointer leads to")  # fmt: skip


def _kind(type: Type) -> str:
    return "UNKNOWN" if type.kind is BtfKind.UNKN else type.kind.name


def _described(type: Type) -> str:
    return f"{_kind(type)} {type.name if type.number else ''}"
