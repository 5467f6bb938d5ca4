"""The page at `/` in a real browser. Skipped where Chromium and its driver are not installed."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.worker import FakeWorker, fake_workers

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium-driver")

KEY = "secret"


class Browser:
    """One tab of Chromium."""

    def __init__(self, width: int, height: int) -> None:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.add_argument(f"--window-size={width},{height}")
        self.driver = Chrome(options, ChromeService(DRIVER))

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition` is true; returns its value."""
        return WebDriverWait(self.driver, GUARD_SECONDS, 0.05).until(lambda _: condition())

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(found.text for found in self.all(selector))

    def click(self, selector: str) -> None:
        [found] = self.all(selector)
        found.click()

    def run(self) -> None:
        """Press Run, and wait for a result or a problem."""
        self.click("#go")
        self.until(lambda: self.text("#result, #problem") and self.all("#go:enabled"))

    def errors(self) -> list[dict[str, Any]]:
        """What the console complains about, such as a blocked script."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    started = Browser(1200, 900)
    yield started
    started.driver.quit()


@pytest.fixture
async def router() -> AsyncIterator[RunningRouter]:
    worker = FakeWorker(dimensions=16)
    async with fake_workers(worker), running_router(worker) as running:
        yield running


async def at(router: RunningRouter, browser: Browser, see: Callable[[Browser], None]) -> None:
    """Open the page and run `see` in a thread, since the router runs in this event loop."""

    def visit() -> None:
        browser.driver.get(str(router.client.base_url))
        browser.until(lambda: browser.all("#inputs li"))
        see(browser)
        assert browser.errors() == []

    await asyncio.to_thread(visit)


def tasks(browser: Browser) -> list[str]:
    """The choices of all inputs."""
    return [option.text for option in browser.all("#inputs option")]


async def test_pools_and_replicas_are_listed(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.until(lambda: browser.text("#state") == "Ready")
        rows = browser.until(lambda: browser.all("#pools tbody tr"))
        assert [row.text.split()[1] for row in rows] == ["ready", "ready"]

    await at(router, browser, see)


async def test_similarity_of_texts_and_images(
    router: RunningRouter, browser: Browser, tmp_path: Path
) -> None:
    picture = tmp_path / "teal.png"
    Image.new("RGB", (32, 32), "teal").save(picture)

    def see(browser: Browser) -> None:
        browser.all("#add-image")[0].send_keys(str(picture))
        browser.until(lambda: browser.all("#inputs img"))
        browser.run()
        rows = [browser.text(f".matrix tr:nth-of-type({number}) td").split() for number in range(2, 6)]
        assert [row[index] for index, row in enumerate(rows)] == ["1.00"] * 4
        assert browser.text(".matrix th[scope=row]").endswith("teal.png")

    await at(router, browser, see)


async def test_tokens_are_matched(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.click("[value=tokens]")
        browser.run()
        rows = browser.all(".matrix th[scope=row]")
        assert len(rows) == len(browser.all(".matrix td.best")) > 1

    await at(router, browser, see)


async def test_documents_are_ranked(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.click("[value=rerank]")
        browser.run()
        scores = [float(item.text.split()[-1]) for item in browser.all(".ranking li")]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)

    await at(router, browser, see)


async def test_shown_code_is_what_was_sent(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.all("#dimensions")[0].send_keys("8")
        browser.run()
        browser.click("#code summary")
        assert '"dimensions": 8' in browser.text("#curl")
        compile(browser.text("#python"), "python", "exec")
        assert "dimensions=8" in browser.text("#python")

    await at(router, browser, see)


async def test_error_names_the_reason(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.all("#inputs textarea")[0].send_keys(Keys.HOME, "!token_limit ")
        browser.run()
        assert "INPUT_TOKEN_LIMIT_EXCEEDED" in browser.text("#problem[role=alert]")
        # The browser itself logs the status.
        browser.errors()

    await at(router, browser, see)


async def test_chosen_model_has_its_own_tasks(browser: Browser) -> None:
    workers = [FakeWorker("retrieval", 16), FakeWorker("v3.separation", 8), FakeWorker("v3.base", 8)]

    def see(browser: Browser) -> None:
        [model] = browser.until(lambda: [one for one in browser.all("#model") if one.is_displayed()])
        assert tasks(browser) == ["retrieval.query", "retrieval.passage", "no task"] * 3
        model.send_keys("jina-embeddings-v3")
        assert tasks(browser) == ["separation", "no task"] * 3
        for select in browser.all("#inputs select")[1:]:
            select.send_keys("no task")
        browser.run()
        assert "8 dimensions" in browser.text(".matrix caption")
        browser.click("#code summary")
        assert 'model="jina-embeddings-v3"' in browser.text("#python")
        assert browser.text("#curl").count('"task"') == 1

    async with fake_workers(*workers), running_router(*workers) as router:
        await at(router, browser, see)


async def test_tasks_are_those_of_the_only_model(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.until(lambda: tasks(browser) == ["retrieval.query", "retrieval.passage", "no task"] * 3)
        assert not browser.all("#model")[0].is_displayed()

    await at(router, browser, see)


async def test_keyboard_alone_is_enough(router: RunningRouter, browser: Browser) -> None:
    def see(browser: Browser) -> None:
        browser.all("#inputs textarea")[0].send_keys(Keys.END, " Now.", Keys.CONTROL, Keys.ENTER)
        browser.until(lambda: browser.all(".matrix"))
        assert "Now." in browser.text(".matrix th[scope=row]")
        controls = browser.all("button, input, select:not([hidden] *), textarea")
        assert all(control.accessible_name for control in controls)

    await at(router, browser, see)


async def test_phone_does_not_scroll_sideways(router: RunningRouter) -> None:
    phone = await asyncio.to_thread(Browser, 500, 800)

    def see(browser: Browser) -> None:
        browser.run()
        overhang = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.driver.execute_script(overhang) == 0

    try:
        await at(router, phone, see)
    finally:
        await asyncio.to_thread(phone.driver.quit)


async def test_key_is_asked_for_and_sent(browser: Browser) -> None:
    worker = FakeWorker(dimensions=16)
    keys = [hashlib.sha256(KEY.encode()).hexdigest()]

    def see(browser: Browser) -> None:
        browser.until(lambda: browser.text("#state") == "Enter an API key")
        browser.all("#key")[0].send_keys(KEY, Keys.ENTER)
        browser.until(lambda: browser.text("#state") == "Ready")
        browser.run()
        assert browser.all(".matrix")
        assert KEY not in browser.driver.page_source
        browser.errors()

    async with fake_workers(worker), running_router(worker, api_keys=keys) as router:
        await at(router, browser, see)
