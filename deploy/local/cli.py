"""`triptych serve`: reads the settings, then runs a router and its workers until stopped."""

import asyncio
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from dotenv import load_dotenv

from triptych.deploy.common import machine, variants
from triptych.deploy.common.child_process import ChildProcess
from triptych.deploy.common.variants import DEMO_WARNING, Models
from triptych.deploy.install import NoAnswer
from triptych.deploy.local.output import Output
from triptych.deploy.local.specs import normalized, plan_router, plan_workers, with_token
from triptych.deploy.local.supervisor import GaveUp, Spec, Supervisor
from triptych.deploy.settings import DeploySettings
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.host_ports import address_of, why_taken
from triptych.workers.shared.strict_settings import SettingsError, read_settings

ENV_FILE = ".env"
# Time for a step to remove what it has half written.
STEP_STOP_SECONDS = 10.0
READY = """
Ready after {seconds:.0f} s: http://{address}
{notice}
Try it:
  curl http://{address}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'

Ctrl-C ends it.
"""


def main() -> int:
    """Serve until stopped. Exit code: 0, 78 if settings or checkpoints are refused, 1 if the start fails."""
    try:
        read_env_file()
        plan = make_plan()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    try:
        return asyncio.run(serve(*plan))
    except GaveUp as reason:
        print(f"\n{reason}", file=sys.stderr)
        return reason.status


def read_env_file() -> None:
    """Put `.env` into the environment, which router and workers inherit. Raises `SettingsError`."""
    try:
        load_dotenv(ENV_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE} cannot be read, correct or remove it: {error}") from None


def make_plan() -> tuple[DeploySettings, Models, Spec, list[Spec]]:
    """The settings, the checkpoints, the router and the workers, decided before a process starts.

    Raises `SettingsError`.
    """
    settings = read_settings(DeploySettings)
    if importlib.util.find_spec("vllm") is None:
        raise SettingsError("vLLM is not installed here: pip install 'triptych[gpu]' or 'triptych[cpu]'")
    # The workers would refuse wrong settings too, but only after their checkpoints are made.
    for pool in settings.pools:
        read_settings(WorkerSettings, model="", task=pool)
    try:
        usable = machine.usable_gpus()
    except NoAnswer as error:
        # Without GPUs the demo would be served, although the real weights are wanted.
        raise SettingsError(f"{error}\nRepair the driver; after an update it needs a reboot") from None
    if settings.gpus and not usable:
        raise SettingsError("DEPLOY_GPUS names GPUs, but no NVIDIA GPU or no vLLM for GPUs is found here")
    gpus = usable if settings.gpus is None else settings.gpus
    chosen = variants.choose(settings, has_gpu=bool(gpus))
    environ = with_token(normalized(os.environ))
    memory = machine.gpu_memory() if gpus else {}
    sizes = {gpu: memory.get(gpu) for gpu in gpus}
    workers = plan_workers(settings, chosen, environ, sizes, len(os.sched_getaffinity(0)))
    router = plan_router(workers, environ)
    for spec in (router, *workers):
        if reason := why_taken(spec.host, spec.port):
            setting = "WORKER_HOST or DEPLOY_WORKER_PORT" if spec.pool else "ROUTER_HOST or ROUTER_PORT"
            raise SettingsError(
                f"{spec.name} cannot listen on {address_of(spec.host, spec.port)} ({reason}): "
                f"stop the process there, or change {setting}"
            )
    return settings, chosen, router, workers


async def serve(settings: DeploySettings, models: Models, router: Spec, workers: Sequence[Spec]) -> int:
    """Make missing checkpoints, then run router and workers until stopped. Raises `GaveUp`."""
    output = Output([router.name, *(spec.name for spec in workers)])
    started = time.monotonic()
    notice = DEMO_WARNING + "\n" if models.demo else ""
    address = address_of(router.host, router.port)

    def on_ready() -> None:
        seconds = time.monotonic() - started
        output.plain(READY.format(seconds=seconds, address=address, notice=notice))

    if models.demo:
        output.say(DEMO_WARNING)
    # A signal cancels it.
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _on_signals(stopping.cancel)
    for step in models.steps:
        output.say(step.title)
        child = ChildProcess(step.argv, os.environ)
        await asyncio.wait([child.exited, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await child.stop(STEP_STOP_SECONDS)
            output.say("stopped")
            return 0
        if code := child.code:
            output.say(
                f"that ended with exit code {code}: {' '.join(step.argv)}\n"
                "Its error is above. DEPLOY_MODEL and DEPLOY_MODELS name the source, DEPLOY_STATE the folder "
                "for what is made. If something there is damaged, remove it and start again."
            )
            return 1
    supervisor = Supervisor(
        router, workers, output=output, stop_seconds=settings.stop_seconds, on_ready=on_ready
    )
    _on_signals(supervisor.stop)
    await supervisor.run()
    output.say("stopped")
    return 0


def _on_signals(stop: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop)
