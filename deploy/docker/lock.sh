#!/bin/sh
# Resolves the images' dependencies again (Linux, x86-64, Python 3.12), with hashes. Run by `make locks`.
set -eu
cd "$(dirname "$0")/../.."
lock() {
    out=$1
    shift
    .venv/bin/python -m uv pip compile --quiet pyproject.toml deploy/docker/build.in "$@" \
        --python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate \
        --output-file "deploy/docker/$out.lock"
}
# Versions in a lock stay while they satisfy pyproject.toml; `UPGRADE=--upgrade` takes the newest.
lock ray ${UPGRADE-} --extra gpu --extra ray
lock worker-gpu --constraints deploy/docker/ray.lock --extra gpu
lock router --constraints deploy/docker/ray.lock --extra router --extra tracing
# torch's CPU builds are not on PyPI, so torch-cpu.lock has them.
lock worker-cpu ${UPGRADE-} --excludes deploy/docker/not-from-pypi.txt deploy/docker/torch-cpu.in --extra cpu
