"""The router against its own OpenAPI document."""

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fault.fuzzing import Target, check_error

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

# Errors that the schema does not describe: conflicting fields, dimensions of another model, and the number
# of inputs, which is a setting.
UNSAID = {"conflict", "less_than_equal", "too_long"}


def test_replies_match_the_openapi_document(target: Target) -> None:
    """For each operation, with valid and invalid bodies and headers."""
    document = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    operations = [operation.ok() for operation in document.get_all_operations()]
    assert len(operations) >= 6
    for operation in operations:
        assert operation is not None
        hold(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), only_unsaid=True)
        if operation.body:
            hold(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))


def hold(cases: SearchStrategy[schemathesis.Case], only_unsaid: bool = False) -> None:
    """Send each of `cases`, and check the reply against the document.

    With `only_unsaid`, a 422 may hold only errors that the schema does not describe.
    """

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def answered(case: schemathesis.Case) -> None:
        response = case.call(timeout=GUARD_SECONDS)
        # A very short deadline is valid, and ends in 504.
        assert response.status_code in (200, 400, 404, 412, 413, 422, 504), response.text
        case.validate_response(response, checks=CHECKS)
        if 400 <= response.status_code < 500:
            sent = httpx.Request(case.method, str(response.request.url), content=response.request.body or b"")
            headers = {name.lower(): values[0] for name, values in response.headers.items()}
            check_error(
                httpx.Response(response.status_code, headers=headers, content=response.content, request=sent)
            )
        if response.status_code == 200 and isinstance(case.body, dict) and "input" in case.body:
            inputs = case.body["input"] if isinstance(case.body["input"], list) else [case.body["input"]]
            assert len(response.json()["data"]) == len(inputs)
        if response.status_code == 422 and only_unsaid:
            faults = response.json()["errors"]
            # Parts of a document must not be empty; other inputs may be.
            parts = isinstance(case.body, dict) and case.body.get("late_chunking")
            assert {fault["type"] for fault in faults} <= UNSAID | ({"too_short"} if parts else set())

    answered()
