"""Files that the documents name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_MADE = {"build", "dist"}  # by tools: what the documents say of them isn't here
_ROOMS = "|".join(
    sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in _MADE)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document):
    text = document.read_text()
    named = re.findall(rf"`((?:{_ROOMS})/[\w./-]*)`", text)
    linked = re.findall(r"\]\(([\w./-]+)\)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in linked if not (document.parent / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_exist(document):
    """Those named as pytest names them: `tests/…/test_x.py::test_y`."""
    named = re.findall(r"`(tests/[\w./-]*)::(\w+)`", document.read_text())
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert not missing
