"""Values that walk down the pipeline with their instruction."""

from amaranth import Module, Signal


class Staged:
    """A value that is known in stage `stage`, and what later stages see of it.

    `at(n)` is the value in stage n: `value` itself in the stage where it is born, then delayed by a clock a stage. The
    registers are made as they are asked for, in the module `pipeline`, which has no conditions. With `reset`, they
    start at 0; otherwise they start anyhow, for nothing looks at them before a valid instruction came.
    """

    def __init__(self, pipeline: Module, stage: int, value, name: str, *, reset: bool = False):
        self._pipeline = pipeline
        self._name = name
        self._reset = reset
        self._first = stage
        self._at = [value]

    def at(self, stage: int):
        assert stage >= self._first, f"{self._name} is born in stage {self._first}, not in {stage}"
        while len(self._at) <= stage - self._first:
            before = self._at[-1]
            shape = before.shape()
            later = Signal(shape, name=f"{self._name}_{self._first + len(self._at)}", reset_less=not self._reset)
            self._pipeline.d.sync += later.eq(before)
            self._at.append(later)
        return self._at[stage - self._first]
