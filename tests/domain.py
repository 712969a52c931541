"""The verifier's numbers, loaded with another width or with a defect, from the same source that the verifier uses."""

import importlib
import sys
from dataclasses import dataclass
from importlib import util
from types import ModuleType

PACKAGE = "bpfnic.host.verifier"
NAMES = ("width", "tnum", "scalar", "arithmetic", "branch")


@dataclass(frozen=True)
class Mutation:
    """In module `module`, `old`, which must stand there once, is `new`."""

    module: str
    old: str
    new: str


MUTATIONS = (
    Mutation("tnum", "mask = ((least ^ greatest) | a[1] | b[1]) & MASK", "mask = (least ^ greatest) & MASK"),
    Mutation("tnum", "return 0, other[0] | other[1]", "return 0, other[1]"),
    Mutation("arithmetic", "(a[0] - b[1], a[1] - b[0], 0, bits)", "(a[0] - b[0], a[1] - b[1], 0, bits)"),
    Mutation("branch", "min(a_umax, b_umax - 1)", "min(a_umax, b_umax - 2)"),
    Mutation("scalar", "    if umax < sign or umin >= sign:", "    if umin < sign or umax >= sign:"),
    Mutation("scalar", "elif (smin >> WORD) + 1 == smax >> WORD and low < 0 <= high:",
             "elif (smin >> WORD) + 1 <= smax >> WORD and low < 0 <= high:"),
)  # fmt: skip
"""Operators that are wrong somewhere, which every check of operators must find."""


@dataclass(frozen=True)
class Domain:
    """The modules, fresh; `bits` wide."""

    bits: int
    width: ModuleType
    tnum: ModuleType
    scalar: ModuleType
    arithmetic: ModuleType
    branch: ModuleType


def load(bits: int, mutation: Mutation | None = None) -> Domain:
    """The domain with numbers of that many bits (an even number)."""
    package = importlib.import_module(PACKAGE)
    kept = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in NAMES}
    try:
        modules = [_fresh(package, name, bits, mutation) for name in NAMES]
    finally:
        for name, module in kept.items():
            _name(package, name, module)
    return Domain(bits, *modules)


def _name(package: ModuleType, name: str, module: ModuleType) -> None:
    """Let imports of the module's name, in either way, find it."""
    sys.modules[f"{PACKAGE}.{name}"] = module
    setattr(package, name, module)


def _fresh(package: ModuleType, name: str, bits: int, mutation: Mutation | None) -> ModuleType:
    spec = util.find_spec(f"{PACKAGE}.{name}")
    assert spec and spec.origin
    with open(spec.origin) as file:
        source = file.read()
    if name == "width":
        source = _replaced(source, "BITS = 64", f"BITS = {bits}")
    if mutation and mutation.module == name:
        source = _replaced(source, mutation.old, mutation.new)
    module = util.module_from_spec(spec)
    _name(package, name, module)
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    return module


def _replaced(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, f"{old!r} stands there {source.count(old)} times"
    return source.replace(old, new)
