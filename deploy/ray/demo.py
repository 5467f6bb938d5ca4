"""The demo on Ray: three pools of tiny random checkpoints on this machine's CPUs or GPU."""

import subprocess
from pathlib import Path

import yaml

from triptych.deploy.common import machine
from triptych.deploy.common.variants import DEMO, choose
from triptych.deploy.install import NoAnswer
from triptych.deploy.ray.config import ClusterConfig, ConfigError, parse_config, read_config
from triptych.deploy.settings import DeploySettings

CONFIG = Path(__file__).parent / "examples" / "demo.yaml"
# Part of a GPU for each replica: three pools, the second replica of code, and one more in an upgrade.
GPU_PART = 0.2


def make() -> ClusterConfig:
    """Make the demo's checkpoints if missing; returns its configuration. Raises `ConfigError`."""
    # Not from the environment: DEPLOY_ configures `make serve`, maybe with other pools or variants.
    models = choose(DeploySettings.model_construct(model=DEMO), has_gpu=False)
    for step in models.steps:
        print(step.title, flush=True)
        if code := subprocess.run(step.argv).returncode:
            raise ConfigError(f"that ended with exit code {code}: {' '.join(step.argv)}")
    try:
        gpus = machine.usable_gpus()
    except NoAnswer as error:
        raise ConfigError(str(error)) from None
    document = yaml.safe_load(CONFIG.read_text())
    for name, pool in document["pools"].items():
        pool["model"] = str(Path(models.folders[name]).resolve())
        if gpus:
            # Ray does not hide GPUs from a replica without one: all engines would start on the first GPU.
            pool["gpus"] = GPU_PART
    return parse_config(document, str(CONFIG))


def config_of(file: Path | None) -> ClusterConfig:
    """The configuration in `file`, by default the demo's. Raises `ConfigError`."""
    return make() if file is None else read_config(file)
