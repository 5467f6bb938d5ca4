"""`verify` passes on the published cosines and explains other ones."""

import json

import numpy as np
import pytest

from tests.exit_status import exit_status
from tests.unit.client.fakes import Deployment, entry, reply_with
from triptych.router.client import __main__ as command
from triptych.router.client import verify
from triptych.router.client.replies import Floats
from triptych.router.client.verify import DIMENSIONS, PUBLISHED, TEXTS


def vectors_with(cosines: dict[tuple[str, str], float]) -> Floats:
    """Four vectors of 1024 values with these cosines between them; fr-zh and fr-ja follow fr-en."""
    names = list(TEXTS)
    gram = np.eye(4)
    for one, other in [(a, b) for a in range(4) for b in range(a)]:
        pair = (names[other], names[one])
        gram[one, other] = gram[other, one] = cosines.get(pair, 0.88)
    matrix = np.zeros((4, DIMENSIONS), np.float32)
    matrix[:, :4] = np.linalg.cholesky(gram)
    return matrix


def crafted(matrix: Floats) -> Deployment:
    """A deployment with these vectors for the four texts, twice."""
    reply = reply_with(*(entry(index, row) for index, row in enumerate(matrix)))
    return Deployment(reply, reply)


def result(matrix: Floats) -> tuple[bool, str]:
    deployment = crafted(matrix)
    with deployment.client() as client:
        rows = verify.measure(client)
    asked = json.loads(deployment.requests[0].content)
    assert asked["input"] == list(TEXTS.values())
    assert (asked["task"], asked["dimensions"]) == ("text-matching", 1024)
    return all(row.passes for row in rows), verify.report(rows)


def test_published_cosines_pass() -> None:
    passes, report = result(vectors_with(PUBLISHED))
    assert passes, report
    for (one, other), cosine in PUBLISHED.items():
        assert f"\n{one}-{other}       {cosine:.4f}    {cosine:.4f}" in report


@pytest.mark.parametrize(
    ("by", "passes"), [(0.0045, True), (-0.0045, True), (0.0055, False), (-0.0055, False)]
)
@pytest.mark.parametrize("pair", PUBLISHED)
def test_each_cosine_counts(pair: tuple[str, str], by: float, passes: bool) -> None:
    moved = {**PUBLISHED, pair: PUBLISHED[pair] + by}
    found, report = result(vectors_with(moved))
    assert found is passes
    differing = [line for line in report.splitlines() if line.endswith("differs")]
    assert [line.split()[0] for line in differing] == ([] if passes else ["-".join(pair)])
    assert passes or "the prompt" in report


def test_vector_lengths_do_not_matter() -> None:
    scaled = vectors_with(PUBLISHED) * np.array([[1], [20], [0.3], [7]], np.float32)
    assert result(scaled)[0]


def test_random_weights_are_recognised() -> None:
    random = np.random.default_rng(1).standard_normal((4, DIMENSIONS)).astype(np.float32)
    passes, report = result(random)
    assert not passes
    assert "demo" in report
    assert "not the vectors of jina-embeddings-v4" in report


@pytest.mark.parametrize(("by", "status"), [(0.0, 0), (0.01, 1)])
def test_verify_exit_status(
    by: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = crafted(vectors_with({**PUBLISHED, ("en", "fr"): 0.9611 - by}))
    monkeypatch.setattr(
        "triptych.router.client.clients.Client", lambda *_, **options: moved.client(**options)
    )
    assert exit_status(command.verify) == status
    assert ("PASS" if status == 0 else "FAIL: en-fr") in capsys.readouterr().out
    assert exit_status(command.verify, "--json") == status
    found = json.loads(capsys.readouterr().out)
    assert found["passes"] == (status == 0)
    assert {row["pair"]: round(row["found"], 4) for row in found["pairs"]}["en-fr"] == round(0.9611 - by, 4)
