"""The README's transcripts are what the commands print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
COLUMNS = "100"


def command_of(line):
    """What a prompt's line runs: `make demo` is the command that make prints."""
    if line != "make demo":
        return line
    printed = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return "bpfnic " + re.search(r"bin/bpfnic (run .*)", printed.replace("\\\n", ""))[1]


def comparable(text):
    """Without durations, clocks, and how many CPUs took part, which every change of the hardware changes."""
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    text = re.sub(r"[\d.]+ s\b", "… s", text)
    text = re.sub(r"[\d.,]+ (clocks|for each packet|a clock)", r"… \1", text)
    text = re.sub(r"(from a program's start to its end).*", r"\1 …", text)
    return re.sub(r"\((sum of \d+ CPUs|CPU \d+)\) *$", "(…)", text, flags=re.MULTILINE).strip()


@pytest.mark.timeout(900)  # the first one compiles the NIC
@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_a_transcript_is_what_is_printed(block):
    prompt, _, printed = block.partition("\n")
    command = command_of(prompt.removeprefix("$ "))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": COLUMNS, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert comparable(done.stdout) == comparable(printed)
    assert done.returncode in (0, 1)


def test_there_are_transcripts():
    assert any(block.startswith("$ make demo\n") for block in BLOCKS)
