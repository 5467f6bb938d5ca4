"""The private interfaces of Ray that this project uses, in one file. Tested with Ray 2.60.0.

They may change in any version, so pyproject.toml limits Ray to 2.60. `missing` names those that another
version does not have.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

# The label selector syntax of `label_selector` in actor options.
SELECTOR = "ray._raylet:node_labels_match_selector"
# `ray.init` sets its own SIGTERM handler through this function.
SIGTERM = "ray._private.utils:set_sigterm_handler"
# The key-value store on the head.
STORE = ("ray.experimental.internal_kv:_internal_kv_put", "ray.experimental.internal_kv:_internal_kv_get")
# Parameters of public functions.
NODE_ADDRESS = ("ray:init", "_node_ip_address")
BLOCKING = ("ray.serve:delete", "_blocking")
INTERNAL = ("ray.serve.deployment:Deployment.options", "_internal")
# Ray's resource for placing an actor on the head.
HEAD_RESOURCE = "node:__internal_head__"
HEAD_CONSTANT = "ray._common.constants:HEAD_NODE_RESOURCE_NAME"


def missing() -> list[str]:
    """The private interfaces that the installed Ray does not have."""
    names = [name for name in (SELECTOR, SIGTERM, *STORE, HEAD_CONSTANT) if _find(name) is None]
    for name, parameter in (NODE_ADDRESS, BLOCKING, INTERNAL):
        # By the source, since `ray.init` takes it from **kwargs.
        if (function := _find(name)) is None or parameter not in inspect.getsource(function):
            names.append(f"{name}({parameter}=)")
    if _find(HEAD_CONSTANT) != HEAD_RESOURCE:
        names.append(f"resource {HEAD_RESOURCE}")
    return names


def labels_match(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node's labels meet a selector, whose values are `a`, `!a`, `in(a,b)` or `!in(a,b)`.

    A space after a comma belongs to the value. A node without the label meets a negation.
    """
    return bool(_find(SELECTOR)(dict(labels), dict(selector)))


def start_ray(address: str, **options: Any) -> None:
    """`ray.init` for a Ray on this machine, at the loopback address `address`.

    Ray's own SIGTERM handler is disabled: it would end `ray.init` half way and leave some of its processes.
    """
    import ray

    module, _, handler = SIGTERM.partition(":")
    setattr(importlib.import_module(module), handler, lambda _: None)
    ray.init("local", _node_ip_address=address, include_dashboard=False, **options)


def store_once(key: str, value: bytes, namespace: str) -> bytes:
    """Store `value` in the cluster unless `key` has a value already; returns the stored value."""
    put, get = map(_find, STORE)
    put(key.encode(), value, False, namespace=namespace)
    stored: bytes = get(key.encode(), namespace=namespace)
    return stored


def delete_application(name: str) -> None:
    """Have Serve delete an application, without waiting: Serve itself gives up after a minute."""
    from ray import serve

    serve.delete(name, _blocking=False)


def with_version(deployment: Any, version: str) -> Any:
    """A Serve deployment with an explicit version; Serve replaces replicas when it changes."""
    return deployment.options(version=version, _internal=True)


def _find(name: str) -> Any:
    """The object that `module:attribute` names, None if there is none."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found
