"""Does one run: asks the idle server, sends the load, and collects the results."""

import contextlib
import io
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import httpx
from tqdm import tqdm

from triptych.loadtests.assignment import Load, Plan
from triptych.loadtests.calm import Calm
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.golden import Golden
from triptych.loadtests.histogram import merged, percentile
from triptych.loadtests.provenance import machine, revision
from triptych.loadtests.recording import Total
from triptych.loadtests.report.words import masked
from triptych.loadtests.results import Golden as GoldenResult
from triptych.loadtests.results import Idle, Interval, Measured, Run
from triptych.loadtests.scrape import Scraper
from triptych.loadtests.setup import Setup, run_name
from triptych.loadtests.traffic import Traffic

SCRAPE_SECONDS = 1.0
RECENT_SECONDS = 5.0


def run(setup: Setup) -> Run:
    """Do it. Raises `Unusable` and `HarnessFailed`."""
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    plan, idle, golden = _ask_before(setup)
    shaped, crew = setup.shaped, setup.crew
    scraper = Scraper({name: url for name, (url, _) in setup.pages.items()})
    conductor = Conductor(crew.bind, crew.port, crew.size, crew.check)
    capacity = None
    try:
        crew.start(conductor.port)
        conductor.gather(plan, [flow.name for flow in setup.scenario.flows])
        with (
            _scraping(scraper, setup.pages, conductor, verify=setup.target.verify),
            _Progress(shaped.describe) as progress,
        ):
            measured: Sequence[Measured]
            if shaped.search:
                measured, capacity = conductor.search(shaped.search, progress.watch)
            else:
                measured = conductor.run(shaped.segments, progress.watch)
        seconds = conductor.seconds
        golden.compared = conductor.compared
    finally:
        conductor.close()
        crew.stop()
    return Run(
        name=run_name(setup),
        command=setup.command,
        scenario=setup.options.scenario,
        about=setup.scenario.about,
        shape=shaped.describe,
        loop=shaped.loop,
        dialect=setup.target.dialect,
        target={pool: masked(url) for pool, url in setup.target.addresses.items()},
        seed=setup.seed,
        began=began,
        seconds=seconds,
        machine=machine(),
        revision=revision(),
        golden=golden,
        idle=idle,
        segments=list(measured),
        series=scraper.series(),
        capacity=capacity,
        notes=[
            *(f"{kind}, for example: {detail}" for kind, detail in conductor.examples.items()),
            *(["stopped by Ctrl-C before its end"] if conductor.stopped else []),
        ],
    )


def _ask_before(setup: Setup) -> tuple[Plan, dict[str, Idle], GoldenResult]:
    """What to find out from the idle server."""
    scenario, options = setup.scenario, setup.options
    with contextlib.closing(Calm(setup.target)) as calm:
        sample = Traffic(scenario, f"{setup.seed} sample")
        calm.check_supported(sample.of(flow) for flow in scenario.flows)
        calibration = calm.calibrate(scenario)
        golden = calm.golden({flow.task for flow in scenario.flows if flow.kind == "embed"})
        complaints = golden.complaints()
        if options.golden is not None:
            known = Golden.load(options.golden)
            complaints += known.compare(golden)
            golden = known
        idle = calm.idle(Traffic(scenario, f"{setup.seed} idle", calibration=calibration))
    file = io.BytesIO()
    golden.save(file)
    plan = Plan(
        target=setup.target,
        scenario=scenario.model_dump_json(),
        seed=setup.seed,
        loop=setup.shaped.loop,
        arrivals=options.arrivals,
        in_flight=options.in_flight,
        calibration=calibration,
        golden=file.getvalue(),
    )
    return plan, idle, GoldenResult(source=golden.source, compared=0, complaints=complaints)


@contextlib.contextmanager
def _scraping(
    scraper: Scraper,
    pages: Mapping[str, tuple[str, str | None]],
    conductor: Conductor,
    *,
    verify: bool,
) -> Iterator[None]:
    """Read each page about every second, in threads; a page that does not answer leaves a gap."""
    ended = threading.Event()

    def scrape(name: str, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(timeout=5, verify=verify, trust_env=False, headers=headers) as client:
            while not ended.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    reply = client.get(url)
                    if reply.status_code == 200:
                        scraper.add(conductor.seconds, reply.text, name)
                ended.wait(SCRAPE_SECONDS)

    readers = [
        threading.Thread(target=scrape, args=(name, *page), daemon=True) for name, page in pages.items()
    ]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        ended.set()
        for reader in readers:
            reader.join()


class _Progress:
    """Shows how a run goes: a status line on a terminal, otherwise a line for each segment."""

    def __init__(self, describe: str) -> None:
        self._bar = tqdm(desc=describe, bar_format="{desc}: {postfix}", disable=None)
        self._shown = (0, 0)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def watch(self, total: Total, load: Load, at: float) -> None:
        """Show the last few seconds before `at`, which is since the load's start."""
        if at < 0:
            return
        number, start = 0, 0.0
        for number, segment in enumerate(load.segments):  # noqa: B007
            if at < start + segment.seconds:
                break
            start += segment.seconds
        if self._bar.disable:
            if (load.number, number) != self._shown:
                self._shown = load.number, number
                print(f"load begins: {segment.name}, {segment.seconds:g} s", flush=True)
            return
        recent = _recent(total.segments[number].values(), at - start, load.interval)
        self._bar.set_postfix_str(f"{segment.name}, {at - start:.0f} of {segment.seconds:g} s: {recent}")


def _recent(flows: Collection[Sequence[Interval]], at: float, interval: float) -> str:
    """Rate, p99 and failures of the last few seconds, without the newest, which are not in yet."""
    end = int((at - 1) / interval)
    if end < 1:
        return "..."
    first = max(0, end - math.ceil(RECENT_SECONDS / interval))
    recent = [one for intervals in flows for one in intervals[first:end]]
    done = sum(one.done for one in recent) / ((end - first) * interval)
    failed = sum(one.failed for one in recent)
    counts = merged(one.clocks.get("total", {}) for one in recent)
    p99 = f"p99 {percentile(counts, 0.99) * 1e3:,.0f} ms" if counts else "no reply"
    return f"{done:,.1f} replies/s, {p99}, {failed:,} failed"
