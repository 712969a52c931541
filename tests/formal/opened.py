"""What harnesses are made of: values that the solver chooses, and components whose inside they can see."""

from collections.abc import Iterable

from amaranth import Module, Shape, Signal, Value
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Elaboratable
from amaranth.lib import memory
from amaranth.lib.wiring import Component, Flow


def free(m: Module, shape, name: str) -> Signal:
    """A signal whose value the solver chooses anew in each clock."""
    signal = Signal(shape, name=name)
    m.d.comb += Value.cast(signal).eq(AnySeq(Shape.cast(shape).width))
    return signal


def constant(m: Module, shape, name: str) -> Signal:
    """A signal whose value the solver chooses once."""
    signal = Signal(shape, name=name)
    m.d.comb += Value.cast(signal).eq(AnyConst(Shape.cast(shape).width))
    return signal


def later(m: Module, value, clocks: int = 1) -> Signal:
    """What `value` was so many clocks ago."""
    for _ in range(clocks):
        register = Signal(Value.cast(value).shape(), reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


class Opened(Elaboratable):
    """A real component, elaborated in the harness's sight.

    Parameters
    ----------
    component : the one under proof.
    inputs : whether the solver chooses all its inputs.
    without : submodules that are left out: the solver chooses all that they would say. They stay visible by `part`.
    """

    def __init__(self, component: Component, *, inputs: bool = False, without: Iterable[str] = ()):
        self.component = component
        self.module = component.elaborate(None)
        if inputs:
            self._choose(component, Flow.In)
        self._removed = {}
        for name in without:
            part, _ = self.module._named_submodules.pop(name)
            self._removed[name] = part
            for each in part.read_ports if isinstance(part, memory.Memory) else [part]:
                self._choose(each, Flow.Out)

    def _choose(self, component: Component, flow: Flow) -> None:
        for _, member, value in component.signature.flatten(component):
            if member.flow == flow:
                value = Value.cast(value)
                self.module.d.comb += value.eq(AnySeq(len(value)))

    def signal(self, name: str) -> Signal:
        """The signal of that name that the component drives, itself or in a plain Module within it; no port."""
        inner = [part for part, _ in self.module._named_submodules.values() if isinstance(part, Module)]
        named = [signal for module in (self.module, *inner) for signal in module._driving if signal.name == name]
        ports = {id(Value.cast(value)) for _, _, value in self.component.signature.flatten(self.component)}
        (signal,) = [signal for signal in named if id(signal) not in ports]
        return signal

    def part(self, name: str):
        """A submodule, left out or not."""
        return self._removed[name] if name in self._removed else self.module._named_submodules[name][0]

    def elaborate(self, platform) -> Module:
        return self.module
