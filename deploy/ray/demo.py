"""The demo on Ray: three pools of small random checkpoints on this machine's CPUs, or its GPU."""

import subprocess
from pathlib import Path

import yaml

from deploy.install import NoAnswer
from deploy.local import machine
from deploy.local.models import DEMO, choose
from deploy.ray.config import ClusterConfig, ConfigError, parse_config
from deploy.settings import DeploySettings

CONFIG = Path(__file__).parent / "examples" / "demo.yaml"
# Of a GPU, for each replica: all three pools, the second one of code and one that is started in an upgrade.
GPU_PART = 0.2


def make() -> ClusterConfig:
    """The demo's configuration, once its checkpoints are there. Raises `ConfigError`."""
    # Without the environment: DEPLOY_ says what runs on one machine, with other pools or other variants.
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
            # Ray hides none from a replica that asks for none: all engines would start on the first at once.
            pool["gpus"] = GPU_PART
    return parse_config(document, str(CONFIG))
