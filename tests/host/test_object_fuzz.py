"""A share of what `make fuzz-objects` does; and each kind of finding is seen."""

import pytest

from tests.objectfuzz import fuzz


@pytest.fixture(scope="module")
def originals(firmware):
    return [fuzz.Original.of(firmware(name).path) for name in ("tailchain", "vlanmap", "tc-police", "flows")]


def test_mutants_are_refused_in_one_line(originals, firmware, tmp_path):
    partner = firmware("drop").path
    refused = 0
    for number in range(300):
        bad, finding = fuzz.run(originals, tmp_path / "mutant.o", partner, 1, number)
        assert finding is None
        refused += bad
    assert 100 < refused < 300  # changes matter, and not each one does


def test_a_mutant_is_the_same_again(originals):
    assert fuzz.mutant(originals, 1, 7) == fuzz.mutant(originals, 1, 7) != fuzz.mutant(originals, 2, 7)


def _raise(error):
    def exercise(path, partner):
        raise error

    return exercise


@pytest.mark.parametrize(
    ("behaves", "why"),
    [(_raise(KeyError("x")), "KeyError: 'x'"), (lambda path, partner: "bad", "doesn't say of what: 'bad'"),
     (lambda path, partner: f"{path}: bad", None)],
)  # fmt: skip
def test_findings(originals, firmware, tmp_path, monkeypatch, behaves, why):
    monkeypatch.setattr(fuzz, "exercise", behaves)
    _, finding = fuzz.run(originals, tmp_path / "mutant.o", firmware("drop").path, 1, 0)
    assert (finding is None) if why is None else why in finding.why


def test_what_takes_long_is_found(originals, firmware, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", -1)
    _, finding = fuzz.run(originals, tmp_path / "mutant.o", firmware("drop").path, 1, 0)
    assert "took" in finding.why


def test_a_refusal_is_no_finding(firmware, tmp_path):
    (tmp_path / "bad.o").write_bytes(b"no ELF")
    assert "not an ELF file" in fuzz.exercise(tmp_path / "bad.o", firmware("drop").path)
