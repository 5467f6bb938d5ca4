"""A worker with a token answers nobody else."""

import httpx
import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from tests.unit.workers.services import FakeService
from workers.app import WorkerApp
from workers.settings import WorkerSettings
from workers.shared.contract import ENCODE_PATH, INFO_PATH, LIVE_PATH, READY_PATH

TOKEN = "a-token-that-no-output-may-hold"


def client(token: str | None) -> httpx.AsyncClient:
    app = WorkerApp(FakeService(), 8, SecretStr(token) if token else None)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer x", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
@pytest.mark.parametrize("path", [ENCODE_PATH, INFO_PATH, READY_PATH, "/metrics", "/", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_but_liveness_is_answered_without_the_token(
    method: str, path: str, header: str | None
) -> None:
    async with client(TOKEN) as asking:
        reply = await asking.request(method, path, headers={"Authorization": header} if header else {})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in reply.text


async def test_liveness_is_answered_to_everybody_and_the_rest_to_who_has_the_token() -> None:
    async with client(TOKEN) as asking:
        assert (await asking.get(LIVE_PATH)).status_code == 200
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await asking.get(READY_PATH, headers=headers)).status_code == 200
        assert (
            msgspec.json.decode((await asking.get(INFO_PATH, headers=headers)).content)["task"] == "retrieval"
        )


async def test_without_a_token_everybody_is_answered() -> None:
    async with client(None) as asking:
        assert (await asking.get(READY_PATH)).status_code == 200


@pytest.mark.parametrize(
    "token", ["short", "with a space in it all", "ends in a newline\n", "not-ascii-äöüäöüäöü"]
)
def test_a_token_that_cannot_be_one_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(ValidationError, match="16 characters") as caught:
        WorkerSettings(model="m", token=SecretStr(token))
    assert token not in str(caught.value)


def test_settings_do_not_show_the_token() -> None:
    assert TOKEN not in repr(WorkerSettings(model="m", token=SecretStr(TOKEN)))
