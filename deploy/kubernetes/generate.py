"""`python -m deploy.kubernetes.generate`: writes the schema of the chart's values, and `plain.yaml`."""

import json
from typing import Any

from pydantic import BaseModel

from triptych.deploy.kubernetes.helm import CHART, ROOT, template
from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.families import BY_POOL

SCHEMA = CHART / "values.schema.json"
PLAIN = ROOT / "deploy" / "kubernetes" / "plain.yaml"

# Settings that the chart sets itself.
ROUTER_FIXED = ("host", "port", "workers", "discovery", "discovery_token", "worker_token", "api_keys_file")
WORKER_FIXED = ("model", "task", "host", "port", "token", "tensor_parallel")
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

HEADER = """\
# What deploy/kubernetes/chart renders with its default values. Written by `make chart`.
# docs/KUBERNETES.md says how to use it. It needs
#   the namespace  triptych         which the name servers' records in the ConfigMap name
#   a Secret       triptych         with the key worker_token, 16 or more characters
#   a volume claim triptych-models  with the merged variants: retrieval/, text-matching/, code/
#   the images that deploy/docker/Dockerfile builds, wherever they are named below
"""


def main() -> None:
    SCHEMA.write_text(schema())
    PLAIN.write_text(plain())


def plain() -> str:
    """The manifests of the default values, without those of `helm test`."""
    return HEADER + template("--skip-tests")


def schema() -> str:
    """The schema of the values, with the settings and pools that exist."""
    document = json.loads(SCHEMA.read_text())
    definitions = document["definitions"]
    definitions["routerSettings"] = _settings(RouterSettings, "ROUTER_", ROUTER_FIXED)
    definitions["workerSettings"] = _settings(WorkerSettings, "WORKER_", WORKER_FIXED)
    definitions["poolName"]["enum"] = [*BY_POOL]
    groups = {name: {"$ref": "#/definitions/pool"} for name in BY_POOL}
    document["properties"]["pools"]["properties"] = groups
    return json.dumps(document, indent=2) + "\n"


def _settings(model: type[BaseModel], prefix: str, fixed: tuple[str, ...]) -> dict[str, Any]:
    fields = model.model_json_schema()["properties"]
    return {
        "description": f"Settings without {prefix} and in lower case.",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(field) for name, field in fields.items() if name not in fixed},
    }


def _field(field: dict[str, Any]) -> dict[str, Any]:
    """What Helm checks of a setting; the process itself checks the rest when it starts."""
    if "anyOf" in field:
        kinds = [kind for kind in field["anyOf"] if kind.get("type") != "null"]
        field = (kinds[0] if len(kinds) == 1 else {}) | {"description": field["description"]}
    return {name: value for name, value in field.items() if name in (*KEPT, "description")}


if __name__ == "__main__":
    main()
