"""The private interfaces of Ray that this project uses, in one file. Tested with Ray 2.60.0.

They may change in any version, so pyproject.toml limits Ray to 2.60.
"""

from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._private import utils
from ray._raylet import node_labels_match_selector  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

# Ray's resource for placing an actor on the head.
HEAD_RESOURCE: str = HEAD_NODE_RESOURCE_NAME


def labels_match(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node's labels meet a selector, whose values are `a`, `!a`, `in(a,b)` or `!in(a,b)`.

    A space after a comma belongs to the value. A node without the label meets a negation.
    """
    return bool(node_labels_match_selector(dict(labels), dict(selector)))


def start_ray(address: str, **options: Any) -> None:
    """`ray.init` for a Ray on this machine, at the loopback address `address`.

    Ray's own SIGTERM handler is disabled: it would end `ray.init` half way and leave some of its processes.
    """
    utils.set_sigterm_handler = lambda _: None
    ray.init("local", _node_ip_address=address, include_dashboard=False, **options)


def store_once(key: str, value: bytes, namespace: str) -> bytes:
    """Store `value` in the cluster unless `key` has a value already; returns the stored value."""
    _internal_kv_put(key.encode(), value, False, namespace=namespace)
    stored: bytes = _internal_kv_get(key.encode(), namespace=namespace)
    return stored


def delete_application(name: str) -> None:
    """Have Serve delete an application, without waiting: Serve itself gives up after a minute."""
    serve.delete(name, _blocking=False)


def with_version(deployment: serve.Deployment, version: str) -> serve.Deployment:
    """A Serve deployment with an explicit version; Serve replaces replicas when it changes."""
    return deployment.options(version=version, _internal=True)
