"""python -m tests.formal.elaborate REQUEST: writes a proof's RTLIL, with a mutation if the request (JSON) says so.

It is a process of its own for the mutation's sake: a mutated module must be imported in place of the real one by
everybody, and nothing may remember it afterwards.
"""

import importlib.abc
import importlib.util
import json
import sys
from pathlib import Path

from tests.formal.proof import Mutation


class _MutatedLoader(importlib.abc.SourceLoader):
    """Loads a module from its text with the mutation."""

    def __init__(self, loader, mutation: Mutation):
        self.loader, self.mutation = loader, mutation

    def get_filename(self, name):
        return self.loader.get_filename(name)

    def get_data(self, path):
        text = Path(path).read_text()
        found = text.count(self.mutation.old)
        if found != 1:
            raise SystemExit(f"{self.mutation.file} has {found} times, not once: {self.mutation.old}")
        return text.replace(self.mutation.old, self.mutation.new).encode()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of the mutation's file before anybody else does."""

    def __init__(self, mutation: Mutation):
        self.mutation = mutation
        self.module = mutation.module

    def find_spec(self, name, path, target=None):
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        return importlib.util.spec_from_loader(name, _MutatedLoader(found.loader, self.mutation))


def main() -> None:
    request = json.loads(sys.argv[1])
    if request["mutation"]:
        mutation = Mutation(**request["mutation"])
        assert mutation.path.exists(), mutation.file
        finder = _Finder(mutation)
        sys.meta_path.insert(0, finder)

    from amaranth.back import rtlil
    from amaranth.hdl import ClockDomain, Fragment

    from tests.formal.proofs import PROOFS

    (proof,) = (proof for proof in PROOFS if proof.name == request["proof"])
    if request["mutation"] and finder.module not in sys.modules:
        raise SystemExit(f"{proof.name} does not use {mutation.file}")
    text, _ = rtlil.convert_fragment(
        Fragment.get(proof.harness(), None), missing_domain=lambda name: ClockDomain(name, reset_less=True)
    )
    Path(request["to"]).write_text(text)


if __name__ == "__main__":
    main()
