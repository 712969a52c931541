"""The cache of builds: shared by processes, never half-written, never stale; and where the tools are found."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from bpfnic.sim.rtl import build, cache
from bpfnic.spec.errors import BpfnicError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(folder: Path, text: str = "right") -> None:
    (folder / "file").write_text(text)


def never(folder: Path) -> None:
    raise AssertionError("built again")


def test_the_cache_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    assert cache.cache_folder() == tmp_path / "cache" / "bpfnic"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "bpfnic"


def test_a_digest_tells_where_parts_end():
    assert cache.digest(["ab", "c"]) != cache.digest(["a", "bc"]) != cache.digest(["abc"])
    assert cache.digest(["ab", b"c"]) == cache.digest([b"ab", "c"])


def test_an_entry_is_built_once():
    place = cache.entry("kind", "key", write)
    assert cache.entry("kind", "key", never) == place
    assert (place / "file").read_text() == "right"


@pytest.mark.parametrize("damage", ["truncate", "change", "remove", "no manifest", "empty manifest", "bad manifest"])
def test_a_damaged_entry_is_built_again(damage):
    place = cache.entry("kind", "key", write)
    match damage:
        case "truncate":
            (place / "file").write_text("rig")
        case "change":
            (place / "file").write_text("wrong")
        case "remove":
            (place / "file").unlink()
        case "no manifest":
            (place / "manifest.json").unlink()
        case "empty manifest":
            (place / "manifest.json").write_text("")
        case "bad manifest":
            (place / "manifest.json").write_text("[]")
    assert (cache.entry("kind", "key", write) / "file").read_text() == "right"
    cache.entry("kind", "key", never)


def test_a_build_that_fails_leaves_nothing():
    def fail(folder):
        write(folder)
        raise BpfnicError("no luck")

    with pytest.raises(BpfnicError, match="no luck"):
        cache.entry("kind", "key", fail)
    assert [path.suffix for path in (cache.cache_folder() / "kind").iterdir()] == [".lock"]
    cache.entry("kind", "key", write)


def die(folder: Path) -> None:
    write(folder, "half")
    os._exit(9)


def test_a_process_that_dies_while_it_builds_leaves_no_entry():
    process = multiprocessing.get_context("fork").Process(target=cache.entry, args=("kind", "key", die))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (cache.entry("kind", "key", write) / "file").read_text() == "right"


def build_slowly(log: Path, start: float) -> None:
    def build(folder):
        with log.open("a") as out:
            out.write("built\n")
        (folder / "file").write_text("half")
        time.sleep(0.3)
        write(folder)

    time.sleep(max(0, start - time.time()))
    place = cache.entry("kind", "key", build)
    assert (place / "file").read_text() == "right"


def test_processes_that_want_the_same_entry_build_it_once(tmp_path):
    context, start = multiprocessing.get_context("fork"), time.time() + 0.2
    log = tmp_path / "log"
    processes = [context.Process(target=build_slowly, args=(log, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "built\n"


def test_the_oldest_entries_are_forgotten():
    for number in range(40):
        place = cache.entry("kind", f"key{number}", write)
        os.utime(place, (number, number))
    kept = {path.name for path in (cache.cache_folder() / "kind").iterdir() if path.is_dir()}
    assert "key39" in kept and "key0" not in kept and len(kept) < 40


def test_a_cache_that_cant_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "plain"))
    with pytest.raises(BpfnicError, match="plain/bpfnic/kind: Not a directory"):
        cache.entry("kind", "key", write)


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("version", "taken"), [("5.048 2026-05-01", True), ("5.036", True), ("5.006", False)])
def test_a_verilator_on_path_is_taken_if_it_is_new_enough(tmp_path, monkeypatch, version, taken):
    script(tmp_path, "verilator", f'if [ "$1" = --getenv ]; then echo /root; else echo "Verilator {version}"; fi')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = build.find_verilator()
    assert (found.command == str(tmp_path / "verilator")) == taken
    if taken:
        assert found.root == Path("/root") and version in found.version


def test_a_missing_compiler_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BpfnicError, match=r"no C\+\+ compiler"):
        build.find_compiler()


def test_what_a_tool_complains_about_is_passed_on(tmp_path):
    (tmp_path / "nic.v").write_text("module nic(input clk; endmodule\n")
    (tmp_path / "shell.v").write_text("")
    (tmp_path / "ports.h").write_text("")
    with pytest.raises(BpfnicError, match="verilator.* failed .*nic.v:1"):
        build.library(tmp_path)
