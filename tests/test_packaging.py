"""The house keeps its walls: imports point the way that docs/architecture.md draws them, and what lies in the rooms is
in the wheel."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("spec", "hdl", "host", "sim", "boards", "firmware")

# What a module may import of ours; the longest name that fits it decides. The golden model answers to the RFC and to
# the kernel: it shares nothing with what it judges, and only its adapters know the Device interface.
MAY_IMPORT = {
    "spec": {"spec"},
    "hdl": {"hdl", "spec"},
    "host": {"host", "spec"},
    "sim": {"sim", "spec", "host", "hdl"},
    "sim.golden": {"sim.golden", "spec"},
    "sim.golden.device": {"sim.golden", "spec", "host"},
    "sim.golden.lockstep": {"sim.golden", "spec", "host"},
    "sim.golden.runs": {"sim.golden", "spec", "host"},
    "boards": {"boards", "spec", "host", "hdl"},
    "firmware": {"firmware"},
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def module_name(path):
    """hdl/core/alu.py is hdl.core.alu."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def inside(name, package):
    return name == package or name.startswith(package + ".")


def imports(tree):
    """Line and full name of each module that a file imports, by statement or by its name in a string (firmware's is the
    name of a folder of data)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"bpfnic\.(?!firmware)\w+(\.\w+)+(:\w+)?", node.value):
                yield node.lineno, node.value


def forbidden(name, tree):
    """The imports of module `name` that its room may not make, as text."""
    allowed = MAY_IMPORT[max((room for room in MAY_IMPORT if inside(name, room)), key=len)]
    for line, target in imports(tree):
        if target.startswith("."):
            yield f"{name}:{line}: {target} is relative: say bpfnic.…"
        elif inside(target, "bpfnic") and not any(inside(target, f"bpfnic.{room}") for room in allowed):
            yield f"{name}:{line}: {target} is none of {sorted(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path):
    assert list(forbidden(module_name(path), ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("name", "source", "refused"),
    [
        ("spec.isa", "import bpfnic.host.device", True),
        ("spec.isa", "from bpfnic.spec import errors", False),
        ("spec.isa", "from bpfnic import spec", False),
        ("host.cli", "from bpfnic import sim", True),
        ("host.cli", "import bpfnic", True),
        ("host.cli", "def late():\n    from bpfnic.sim.rtl import device", True),
        ("host.cli", "importlib.import_module('bpfnic.sim.rtl.device')", True),
        ("host.linux.device", "from bpfnic.host.device import Device", False),
        ("sim.golden.nic", "from bpfnic.host.device import Device", True),
        ("sim.golden.nic", "from bpfnic.sim.rtl import device", True),
        ("sim.golden.device", "from bpfnic.host.device import Device", False),
        ("sim.golden.device", "from bpfnic.sim.golden.nic import Nic", False),
        ("sim.compare", "from bpfnic.sim.golden.nic import Nic\nfrom bpfnic.hdl import top", False),
        ("sim.compare", "from bpfnic.boards import versa", True),
        ("hdl.core.alu", "from . import decode", True),
    ],
)
def test_the_rule_refuses_what_it_should(name, source, refused):
    assert bool(list(forbidden(name, ast.parse(source)))) is refused


def test_every_package_on_disk_is_listed_and_no_other():
    on_disk = {f"bpfnic.{module_name(path)}" for path in MODULES if path.name == "__init__.py"}
    assert set(SETUPTOOLS["packages"]) == on_disk | {"bpfnic"}
    in_folders_without_init = [path for path in MODULES if not (path.parent / "__init__.py").exists()]
    assert [path for path in in_folders_without_init if path.relative_to(ROOT).parts[0] != "firmware"] == []


def test_every_room_is_mapped_to_its_folder():
    assert SETUPTOOLS["package-dir"] == {"bpfnic": "bpfnic"} | {f"bpfnic.{room}": room for room in ROOMS}


def test_the_wheel_holds_every_file_of_the_rooms(tmp_path):
    """Built from a copy, so that no build folder is left behind that a later build would take files from."""
    ignore = shutil.ignore_patterns("__pycache__", "sim_build", "*.egg-info")
    for folder in ("bpfnic", *ROOMS):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, tmp_path / file)
    build = "import setuptools.build_meta as build; build.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True, text=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    held = {name.removeprefix("bpfnic/") for name in zipfile.ZipFile(wheel).namelist()}
    files = {
        str(path.relative_to(tmp_path)) for room in ROOMS for path in (tmp_path / room).rglob("*") if path.is_file()
    }
    assert files - held == set()
