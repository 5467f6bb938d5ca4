"""The page at `/` in a real browser. Skipped where Chromium and its driver are not installed."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.router import running_router
from tests.fakes.worker import FakeWorker, fake_workers

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium-driver")

KEY = "secret"


class Browser:
    """One tab of Chromium."""

    def __init__(self) -> None:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        self.driver = Chrome(options, ChromeService(DRIVER))

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition` is true; returns its value. The page may replace what it reads."""
        wait = WebDriverWait(self.driver, GUARD_SECONDS, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: condition())

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
    started = Browser()
    yield started
    started.driver.quit()


@contextmanager
def visit(browser: Browser, *workers: FakeWorker, **settings: Any) -> Iterator[None]:
    """Open the page of a router in front of `workers`, which runs in a thread."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fake_workers(*workers)),
        portal.wrap_async_context_manager(running_router(*workers, **settings)) as router,
    ):
        browser.driver.set_window_size(1200, 900)
        browser.driver.get(str(router.client.base_url))
        browser.until(lambda: browser.all("#inputs li"))
        yield
        assert browser.errors() == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    """The page of a router with one worker."""
    with visit(browser, FakeWorker(dimensions=16)):
        yield browser


def tasks(browser: Browser) -> list[str]:
    """The choices of all inputs."""
    return [option.text for option in browser.all("#inputs option")]


def test_pools_and_replicas_are_listed(page: Browser) -> None:
    page.until(lambda: page.text("#state") == "Ready")
    rows = page.until(lambda: page.all("#pools tbody tr"))
    assert [row.text.split()[1] for row in rows] == ["ready", "ready"]


def test_similarity_of_texts_and_images(page: Browser, tmp_path: Path) -> None:
    picture = tmp_path / "teal.png"
    Image.new("RGB", (32, 32), "teal").save(picture)
    page.all("#add-image")[0].send_keys(str(picture))
    page.until(lambda: page.all("#inputs img"))
    page.run()
    rows = [page.text(f".matrix tr:nth-of-type({number}) td").split() for number in range(2, 6)]
    assert [row[index] for index, row in enumerate(rows)] == ["1.00"] * 4
    assert page.text(".matrix th[scope=row]").endswith("teal.png")


def test_tokens_are_matched(page: Browser) -> None:
    page.click("[value=tokens]")
    page.run()
    rows = page.all(".matrix th[scope=row]")
    assert len(rows) == len(page.all(".matrix td.best")) > 1


def test_documents_are_ranked(page: Browser) -> None:
    page.click("[value=rerank]")
    page.run()
    scores = [float(item.text.split()[-1]) for item in page.all(".ranking li")]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def test_shown_code_is_what_was_sent(page: Browser) -> None:
    page.all("#dimensions")[0].send_keys("8")
    page.run()
    page.click("#code summary")
    assert '"dimensions": 8' in page.text("#curl")
    compile(page.text("#python"), "python", "exec")
    assert "dimensions=8" in page.text("#python")


def test_error_names_the_reason(page: Browser) -> None:
    page.all("#inputs textarea")[0].send_keys(Keys.HOME, "!token_limit ")
    page.run()
    assert "INPUT_TOKEN_LIMIT_EXCEEDED" in page.text("#problem[role=alert]")
    # The browser itself logs the status.
    page.errors()


def test_chosen_model_has_its_own_tasks(browser: Browser) -> None:
    workers = [FakeWorker("retrieval", 16), FakeWorker("v3.separation", 8), FakeWorker("v3.base", 8)]
    with visit(browser, *workers):
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


def test_tasks_are_those_of_the_only_model(page: Browser) -> None:
    page.until(lambda: tasks(page) == ["retrieval.query", "retrieval.passage", "no task"] * 3)
    assert not page.all("#model")[0].is_displayed()


def test_keyboard_alone_is_enough(page: Browser) -> None:
    page.all("#inputs textarea")[0].send_keys(Keys.END, " Now.", Keys.CONTROL, Keys.ENTER)
    page.until(lambda: page.all(".matrix"))
    assert "Now." in page.text(".matrix th[scope=row]")
    controls = page.all("button, input, select:not([hidden] *), textarea")
    assert all(control.accessible_name for control in controls)


def test_phone_does_not_scroll_sideways(page: Browser) -> None:
    page.driver.set_window_size(500, 800)
    page.run()
    overhang = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.driver.execute_script(overhang) == 0


def test_key_is_asked_for_and_sent(browser: Browser) -> None:
    keys = [hashlib.sha256(KEY.encode()).hexdigest()]
    with visit(browser, FakeWorker(dimensions=16), api_keys=keys):
        browser.until(lambda: browser.text("#state") == "Enter an API key")
        browser.all("#key")[0].send_keys(KEY, Keys.ENTER)
        browser.until(lambda: browser.text("#state") == "Ready")
        browser.run()
        assert browser.all(".matrix")
        assert KEY not in browser.driver.page_source
        browser.errors()
