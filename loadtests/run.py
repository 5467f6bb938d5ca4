"""One run from beginning to end: find out, put the load on, and write down what came of it.

Importing it imports locust, which makes sockets and clocks cooperative in the whole process.
"""

import contextlib
import io
import math
import time
from collections.abc import Collection, Iterator, Sequence

import gevent
import httpx
from tqdm import tqdm

from loadtests.bench.__main__ import machine, revision
from loadtests.calm import Calm
from loadtests.conductor import Conductor
from loadtests.crew import Crew
from loadtests.dialects import dialect
from loadtests.estimates import crowded
from loadtests.golden import Golden
from loadtests.histogram import merged, percentile
from loadtests.plan import Load, Plan
from loadtests.recording import Total
from loadtests.report.words import masked
from loadtests.results import Golden as GoldenResult
from loadtests.results import Idle, Interval, Run
from loadtests.scrape import Scraper
from loadtests.setup import Options
from loadtests.traffic import Traffic

SCRAPE_SECONDS = 1.0
LATELY_SECONDS = 5.0


def run(options: Options, crew: Crew) -> Run:
    """Run it, with the processes that `crew` brings. Raises `Unusable` and `HarnessFailed`."""
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    plan, idle, golden = _find_out(options)
    conductor = Conductor(plan, crew.size, crew.bind, crew.port, crew.check)
    scraper = Scraper(options.pages)
    try:
        crew.start(conductor.port)
        conductor.gather()
        with _scraping(scraper, options, conductor), _Progress(options.describe) as progress:
            measured, capacity = conductor.run(options.shape(), progress.watch, adaptive=options.adaptive)
        seconds = conductor.seconds
        golden.compared = conductor.compared
    finally:
        conductor.close()
        crew.stop()
    return Run(
        name=options.name,
        command=options.command,
        scenario=options.scenario_name,
        about=options.scenario.about,
        shape=options.describe,
        loop=options.loop,
        dialect=options.dialect,
        target={pool: masked(url) for pool, url in options.target.items()},
        seed=options.seed,
        began=began,
        seconds=seconds,
        machine=machine(),
        revision=revision(),
        golden=golden,
        idle=idle,
        segments=measured,
        series=scraper.series(),
        capacity=capacity,
        notes=[
            *(f"{kind}, for example: {detail}" for kind, detail in conductor.examples.items()),
            *filter(None, [crowded(measured)]),
            *(["stopped by Ctrl-C before its end"] if conductor.stopped else []),
        ],
    )


def _find_out(options: Options) -> tuple[Plan, dict[str, Idle], GoldenResult]:
    spoken = dialect(options.dialect, options.target, model=options.model, key=options.key)
    scenario = options.scenario
    calm = Calm(spoken, options.timeout, options.verify)
    try:
        sample = Traffic(scenario, f"{options.seed} sample")
        calm.check_supported(sample.of(flow) for flow in scenario.flows)
        calibration = calm.calibrate(scenario, options.seed)
        golden = calm.golden({flow.task for flow in scenario.flows if flow.kind == "embed"})
        complaints = golden.complaints()
        if options.golden is not None:
            known = Golden.load(options.golden)
            complaints += known.compare(golden)
            golden = known
        idle = calm.idle(Traffic(scenario, f"{options.seed} idle", calibration=calibration))
    finally:
        calm.close()
    file = io.BytesIO()
    golden.save(file)
    plan = Plan(
        scenario=scenario.model_dump_json(),
        seed=options.seed,
        loop=options.loop,
        arrivals=options.arrivals,
        dialect=options.dialect,
        target=options.target,
        model=options.model,
        key=options.key,
        verify=options.verify,
        timeout=options.timeout,
        in_flight=options.in_flight,
        calibration=calibration,
        golden=file.getvalue(),
    )
    return plan, idle, GoldenResult(source=golden.source, compared=0, complaints=complaints)


@contextlib.contextmanager
def _scraping(scraper: Scraper, options: Options, conductor: Conductor) -> Iterator[None]:
    """Read the pages about every second meanwhile; one that does not answer leaves a gap."""

    def scrape(source: str, url: str) -> None:
        key = options.page_keys.get(source)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(timeout=5, verify=options.verify, trust_env=False, headers=headers) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    reply = client.get(url)
                    if reply.status_code == 200:
                        scraper.add(conductor.seconds, reply.text, source)
                gevent.sleep(SCRAPE_SECONDS)

    readers = [gevent.spawn(scrape, source, url) for source, url in options.pages.items()]
    try:
        yield
    finally:
        gevent.killall(readers)


class _Progress:
    """Shows how far a run is and how it goes: a line that changes, or where nobody looks a line for each
    segment."""

    def __init__(self, describe: str) -> None:
        self._bar = tqdm(desc=describe, bar_format="{desc}: {postfix}", disable=None)
        self._shown = (0, 0)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def watch(self, total: Total, load: Load, at: float) -> None:
        """Show the last few seconds; `at` is since the load began."""
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
        lately = _lately(total.segments[number].values(), at - start, load.interval)
        self._bar.set_postfix_str(f"{segment.name}, {at - start:.0f} of {segment.seconds:g} s: {lately}")


def _lately(flows: Collection[Sequence[Interval]], at: float, interval: float) -> str:
    """How it went in the last few seconds; the newest has not come in yet."""
    end = int((at - 1) / interval)
    if end < 1:
        return "..."
    first = max(0, end - math.ceil(LATELY_SECONDS / interval))
    recent = [one for intervals in flows for one in intervals[first:end]]
    done = sum(one.done for one in recent) / ((end - first) * interval)
    failed = sum(sum(one.failures.values()) for one in recent)
    counts = merged(one.clocks.get("total", {}) for one in recent)
    p99 = f"p99 {percentile(counts, 0.99) * 1e3:,.0f} ms" if counts else "no reply"
    return f"{done:,.1f} replies/s, {p99}, {failed:,} failed"
