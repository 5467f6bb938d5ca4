"""`python -m deploy local`: from settings to running processes and an exit code."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dotenv import load_dotenv

from deploy.install import NoAnswer
from deploy.local import machine, models
from deploy.local.child import Child
from deploy.local.guard import Guard
from deploy.local.memory import check_memory
from deploy.local.models import Models
from deploy.local.output import Output
from deploy.local.plan import PlanError, plan_router, plan_workers, with_token
from deploy.local.readiness import why_taken
from deploy.local.spec import Spec
from deploy.local.supervisor import GaveUp, Supervisor
from deploy.settings import DeploySettings
from workers.shared.strict_settings import SettingsError, read_settings

ENV_FILE = ".env"
DEMO_WARNING = "This is the demo: random weights, the vectors carry no meaning."
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
    """All that is decided before anything starts."""

    settings: DeploySettings
    models: Models
    router: Spec
    workers: tuple[Spec, ...]


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped: 0. 78 when a setting has to change first, 1 when something else prevents it."""
    _parser().parse_args(arguments)
    # Before the settings are read, and for the router and the workers as well: they inherit it.
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
        # Not for no GPU: the demo would be served where the real weights are wanted.
        raise PlanError(f"{error}\nMend the driver; after an update it takes a reboot") from None
    if settings.gpus and not usable:
        raise PlanError("DEPLOY_GPUS names GPUs, but no NVIDIA GPU or no vLLM for GPUs is found here")
    gpus = usable if settings.gpus is None else settings.gpus
    chosen = models.choose(settings, has_gpu=bool(gpus))
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
                f"end what is there, or choose another port with {setting}"
            )
    return plan


async def serve(plan: Plan) -> int:
    """Make what is missing, then run router and workers until told to stop. Raises `GaveUp`."""
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
    """Run the steps; says whether all went well."""
    for step in wanted.steps:
        output.say(step.title)
        child = Child(step.argv, os.environ, guard)
        _on_signals(child.kill)
        if code := await child.exited:
            output.say(f"that ended with exit code {code}: {' '.join(step.argv)}")
            return False
    return True


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup a hang-up is meant to be ignored.
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
        "ROUTER_* and WORKER_* are handed on to the router and the workers; .env.example lists them all.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
