"""Which of the two forms of a reply an `Accept` header asks for."""

import pytest

from triptych.router.api.accept import prefers

NPY, JSON = "application/x-npy", "application/json"


@pytest.mark.parametrize(
    "accept",
    [
        "application/x-npy",
        "Application/X-NPY",
        "application/x-npy;q=0.1",
        "application/x-npy; Q=0.5, application/json;q=0.4",
        "application/x-npy, application/json",
        "application/json, application/x-npy",
        "application/x-npy;q=.5, */*;q=.2",
        "text/html, application/x-npy, application/json;q=0.9",
        "application/json;q=0, */*",
        "application/json;q=0.5, application/*;q=0.8",
        'application/json;profile="x,y;q=1";q=0.2, application/x-npy;q=0.3',
        "application/x-npy, application/json;q=high",
    ],
)
def test_matrix_if_preferred(accept: str) -> None:
    assert prefers(accept, NPY, JSON)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        ",",
        "*/*",
        "application/json, */*",
        "application/x-npy;q=0",
        "application/x-npy;q=0, application/json;q=0",
        "application/x-npy;q=0.5, application/json",
        "application/x-npy;q=0.5, */*",
        "application/x-npyx",
        'text/plain;a="application/x-npy"',
        'text/plain;a=", application/x-npy',
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        "application/x-npy;q=2",
        "application/x-npy;q=nan",
        "application/x-npy;q=-1",
        '"' + '\\"' * 30_000,
    ],
    ids=lambda accept: str(accept)[:60],
)
def test_json_otherwise(accept: str | None) -> None:
    assert not prefers(accept, NPY, JSON)
