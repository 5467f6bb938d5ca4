"""`python -m deploy local`: reads the settings, then runs a router and its workers until stopped."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dotenv import load_dotenv

from deploy.common import machine, variants
from deploy.common.child_process import ChildProcess
from deploy.common.process_guard import Guard
from deploy.common.readiness import why_taken
from deploy.common.variants import DEMO_WARNING, Models
from deploy.install import NoAnswer
from deploy.local.memory_check import check_memory
from deploy.local.output import Output
from deploy.local.specs import PlanError, plan_router, plan_workers, with_token
from deploy.local.supervisor import GaveUp, Spec, Supervisor
from deploy.settings import DeploySettings
from workers.shared.strict_settings import SettingsError, read_settings

ENV_FILE = ".env"
READY = """
Ready after {seconds:.0f} s: http://{address}
{notice}
Try it:
  curl http://{address}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'

Ctrl-C ends it.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a process starts."""

    settings: DeploySettings
    models: Models
    router: Spec
    workers: tuple[Spec, ...]


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped. Exit code: 0, 78 for a wrong setting, 1 for another reason not to start."""
    _parser().parse_args(arguments)
    # Into the environment, because the router and the workers inherit it.
    load_dotenv(ENV_FILE)
    try:
        plan = make_plan()
    except (SettingsError, PlanError) as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    try:
        return asyncio.run(serve(plan))
    except GaveUp as reason:
        print(f"\n{reason}", file=sys.stderr)
        return 1


def make_plan() -> Plan:
    """Read the settings and look at the machine. Raises `SettingsError` or `PlanError`."""
    settings = read_settings(DeploySettings)
    try:
        usable = machine.usable_gpus()
    except NoAnswer as error:
        # Without GPUs the demo would be served, although the real weights are wanted.
        raise PlanError(f"{error}\nRepair the driver; after an update it needs a reboot") from None
    if settings.gpus and not usable:
        raise PlanError("DEPLOY_GPUS names GPUs, but no NVIDIA GPU or no vLLM for GPUs is found here")
    gpus = usable if settings.gpus is None else settings.gpus
    chosen = variants.choose(settings, has_gpu=bool(gpus))
    environ = with_token(os.environ)
    pairs = plan_workers(settings, chosen, environ, gpus, machine.cores())
    if gpus:
        check_memory(pairs, chosen, machine.gpu_memory())
    plan = Plan(settings, chosen, plan_router(pairs, environ), tuple(spec for _, spec in pairs))
    for spec, setting in [
        (plan.router, "ROUTER_PORT"),
        *((spec, "DEPLOY_WORKER_PORT") for spec in plan.workers),
    ]:
        if reason := why_taken(spec.host, spec.port):
            raise PlanError(
                f"{spec.name} cannot listen on {spec.host}:{spec.port} ({reason}): "
                f"stop the process there, or choose another port with {setting}"
            )
    return plan


async def serve(plan: Plan) -> int:
    """Make missing checkpoints, then run router and workers until stopped. Raises `GaveUp`."""
    output = Output([plan.router.name, *(spec.name for spec in plan.workers)])
    started = time.monotonic()
    notice = DEMO_WARNING + "\n" if plan.models.demo else ""
    address = f"{plan.router.host}:{plan.router.port}"
    guard = Guard()
    supervisor = Supervisor(
        plan.router,
        plan.workers,
        output=output,
        guard=guard,
        stop_seconds=plan.settings.stop_seconds,
        on_ready=lambda: output.plain(
            READY.format(seconds=time.monotonic() - started, address=address, notice=notice)
        ),
    )
    try:
        if plan.models.demo:
            output.say(DEMO_WARNING)
        if not await _make(plan.models, output, guard):
            return 1
        _on_signals(supervisor.stop)
        await supervisor.run()
    finally:
        guard.close()
    output.say("stopped")
    return 0


async def _make(wanted: Models, output: Output, guard: Guard) -> bool:
    """Run the steps; returns whether all succeeded."""
    for step in wanted.steps:
        output.say(step.title)
        child = ChildProcess(step.argv, os.environ, guard)
        _on_signals(child.kill)
        if code := await child.exited:
            output.say(f"that ended with exit code {code}: {' '.join(step.argv)}")
            return False
    return True


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop)


def _parser() -> argparse.ArgumentParser:
    settings = "\n".join(
        f"  DEPLOY_{name.upper()}\n      {field.description}"
        for name, field in DeploySettings.model_fields.items()
    )
    return argparse.ArgumentParser(
        prog="python -m deploy local",
        description="Run a router and its workers on this machine until Ctrl-C.",
        epilog=f"settings, from the environment or {ENV_FILE}:\n{settings}\n\n"
        "The router and the workers get ROUTER_* and WORKER_*; .env.example lists all settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
