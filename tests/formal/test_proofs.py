"""The quick proofs, and that each list of them says the same. `make formal` runs them all, with their mutations."""

import pytest

from tests.formal.proof import REPOSITORY, missing, run
from tests.formal.proofs import PROOFS, TESTED, table

solvers = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@solvers
@pytest.mark.timeout(900)  # the first ones may have to wait for tools that compile themselves
@pytest.mark.parametrize("proof", [proof for proof in PROOFS if proof.quick], ids=lambda proof: proof.name)
def test_proof(proof, tmp_path):
    outcome = run(proof, tmp_path / proof.name)
    assert outcome.status == "PASS", outcome.log


@solvers
@pytest.mark.timeout(900)
def test_a_proof_can_fail(tmp_path):
    """One mutation here; the others are `make formal`'s."""
    proof = PROOFS[0]
    assert run(proof, tmp_path / proof.name, proof.mutations[0]).status == "FAIL"


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_every_proof_has_a_mutation_of_what_stands_there(proof):
    assert proof.mutations
    for mutation in proof.mutations:
        assert any(mutation.file.startswith(of) for of in proof.of)
        assert mutation.path.read_text().count(mutation.old) == 1, mutation.old
        assert mutation.new != mutation.old


def test_names_are_unique():
    assert len({proof.name for proof in PROOFS}) == len(PROOFS)


def test_the_table_in_the_documents_is_the_list():
    assert table() in (REPOSITORY / "docs" / "verification.md").read_text()


def test_what_is_tested_only_is_there():
    for of, _, tests in TESTED:
        for path in (of, *tests):
            assert (REPOSITORY / path).exists(), path
