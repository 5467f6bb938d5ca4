"""`triptych ray up --local`: a Ray on this machine, and the deployment on it, until a signal stops both."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import ray

from triptych.deploy.common.variants import DEMO_WARNING
from triptych.deploy.ray import demo
from triptych.deploy.ray.config import ClusterConfig
from triptych.deploy.ray.ray_private import start_ray
from triptych.deploy.ray.running import QUIET, start, stop, wait
from triptych.deploy.ray.status import render

TRY_IT = """
{notice}This Ray ends with this command: Ctrl-C. From another terminal:
  triptych ray status
  curl {url}/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{{"task": "retrieval.query", "input": ["How do plants turn light into food?"]}}'
"""
# On loopback. Ray replaces 127.0.0.1 by the machine's address; the cluster tests take 127.0.0.2 to 127.0.0.5.
LOCAL_ADDRESS = "127.0.0.100"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up_here(config_file: Path | None, timeout: float) -> int:
    """Start Ray on this machine, on loopback, and the deployment, until a signal stops them.

    A second signal stops them at once.
    """
    # nohup has SIGHUP ignored.
    signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    config = None
    try:
        _interrupt_on(signals)
        config = on_loopback(demo.config_of(config_file))
        _connect_here(signals)
        start(config)
        seen = wait(config, timeout)
        print(render(seen))
        if ready := seen.settled:
            notice = "" if config_file else f"{DEMO_WARNING}\n"
            print(TRY_IT.format(url=seen.routers[0], notice=notice), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        ready = True
    finally:
        _stop_here(config, signals, timeout)
    return 0 if ready else 1


def on_loopback(config: ClusterConfig) -> ClusterConfig:
    """`config` with routers that listen on 127.0.0.1, unless it says where."""
    routers = config.routers.model_copy(update={"host": config.routers.host or "127.0.0.1"})
    return config.model_copy(update={"routers": routers})


def _connect_here(signals: Sequence[signal.Signals]) -> None:
    """Start Ray here. A signal is handled afterwards, because Ray cannot be interrupted while it starts."""
    received: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _: received.append(number))
    # Ray's processes inherit the mask: a closed terminal must not end them before the deployment.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    start_ray(LOCAL_ADDRESS, **QUIET)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    _interrupt_on(signals)
    if received:
        raise KeyboardInterrupt


def _stop_here(config: ClusterConfig | None, signals: Sequence[signal.Signals], seconds: float) -> None:
    try:
        _interrupt_on(signals)
        _print_stopping()
        if config is not None and ray.is_initialized():
            stop(config, seconds)
    except KeyboardInterrupt:
        print("stopping at once", flush=True)
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def _print_stopping() -> None:
    try:
        print("stopping", flush=True)
    except OSError:
        # The terminal is gone; printing must not fail from here on.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)


def _interrupt_on(signals: Sequence[signal.Signals]) -> None:
    """Have the next of `signals` raise KeyboardInterrupt; later ones are ignored."""

    def interrupt(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)
