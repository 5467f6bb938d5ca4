"""Which of the two forms of a reply an `Accept` header asks for."""

import pytest

from triptych.router.api.accept import prefers

MATRIX = [
    "application/x-npy",
    "Application/X-NPY; Q=0.5, application/json;q=0.4",
    "application/json, application/x-npy",
    "application/json;q=0, */*",
    "application/json;q=0.5, application/*;q=0.8",
    'application/json;profile="x,y;q=1";q=0.2, application/x-npy;q=0.3',
    "application/x-npy, application/json;q=high",
    "text/plain, " * 20 + "application/x-npy",
]
JSON = [
    None,
    "",
    "*/*",
    "application/x-npy;q=0, application/json;q=0",
    "application/x-npy;q=0.5, */*",
    "application/x-npyx",
    'text/plain;a="application/x-npy"',
    'text/plain;a=", application/x-npy',
    "application/x-npy;q=2",
    "application/x-npy;q=nan",
    '"' + '\\"' * 30_000,
    # Only so many ranges are read, since each takes time.
    "," * 60_000 + "application/x-npy",
]


@pytest.mark.parametrize(
    ("accept", "matrix"),
    [*((one, True) for one in MATRIX), *((one, False) for one in JSON)],
    ids=lambda value: str(value)[:60],
)
def test_accepted_form(accept: str | None, matrix: bool) -> None:
    assert prefers(accept, "application/x-npy", "application/json") is matrix
