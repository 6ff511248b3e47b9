"""A ``Dockerfile`` in stages: what machines need, each stage a target of its own."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emp_machine.plan.model import MachinePlan
from emp_machine.render.containers import DATA, GID, POOLS, UID
from emp_machine.render.files import RenderedFile

__all__ = ["TARGETS", "render"]

TARGETS = ("base", "lightweight", "comfyui", "ollama", "common", "specialised", *POOLS)
"""What can be built: ``docker build --target NAME .``"""

_IGNORED = "*\n!pools\n!wheels\n"


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:  # noqa: ARG001 - what all renderers are given
    """``Dockerfile``, ``.dockerignore``, and for each pool the lists of its models and custom nodes, empty at first.

    The lists are yours: they are not written again.
    """
    lists = (Path("pools") / pool / name for pool in POOLS for name in ("models.json", "custom_nodes.json"))
    return (
        RenderedFile(Path("Dockerfile"), _dockerfile()),
        RenderedFile(Path(".dockerignore"), _IGNORED),
        RenderedFile(Path("wheels") / ".keep", "", kept=True),
        *(RenderedFile(path, "[]\n", kept=True) for path in lists),
    )


def _dockerfile() -> str:
    pools = "\n".join(_pool(name, workers) for name, workers in POOLS.items())
    return f"""\
# syntax=docker/dockerfile:1
# Written by emp machine render docker: write it again rather than change it.
#
#   docker build --target comfyui --tag emp-comfyui .
#   docker build --target heavy --build-arg PREINSTALL=true --tag emp-heavy .
#
# PREINSTALL=true puts the services and their models into the image, so that a new machine starts in seconds. Wheels that
# lie in the folder wheels are installed before those of the package index.
ARG BASE=python:3.12-slim-bookworm

# What every machine has: the worker, the machine layer, and what fetches and starts services. Drivers come from the host
# by NVIDIA's container toolkit, CUDA's libraries with the services.
FROM ${{BASE}} AS base
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends ca-certificates git tini zstd \\
    && rm -rf /var/lib/apt/lists/* \\
    && groupadd --gid {GID} emp \\
    && useradd --uid {UID} --gid {GID} --home-dir {DATA}/home --no-create-home --shell /usr/sbin/nologin emp \\
    && mkdir -p {DATA}/home {DATA}/machine \\
    && chown -R {UID}:{GID} {DATA}
ENV PATH=/opt/emp/bin:$PATH \\
    HOME={DATA}/home \\
    PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    EMP_DATA_DIR={DATA} \\
    EMP_MACHINE_ROOT={DATA}/machine \\
    EMP_PROCESS_MANAGER=supervisor \\
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY wheels/ /opt/wheels/
RUN python -m venv /opt/emp \\
    && pip install --no-cache-dir --find-links /opt/wheels {_package("emp-core[local,s3]")} {_package("emp-machine")}
WORKDIR {DATA}
USER {UID}:{GID}
STOPSIGNAL SIGTERM
# tini reaps what services leave behind, and passes signals on; SIGTERM drains.
ENTRYPOINT ["tini", "--", "emp", "machine", "up"]

# Services that run elsewhere: no GPU, no models.
FROM base AS lightweight
USER root
RUN pip install --no-cache-dir --find-links /opt/wheels {_package("emp-openai")}
USER {UID}:{GID}
ENV WORKERS=openai

FROM base AS comfyui
USER root
# What popular custom nodes link to.
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends ffmpeg libgl1 libglib2.0-0 \\
    && rm -rf /var/lib/apt/lists/* \\
    && pip install --no-cache-dir --find-links /opt/wheels {_package("emp-comfyui[machine]")}
USER {UID}:{GID}
ENV WORKERS=comfyui
{_preinstall()}
FROM base AS ollama
USER root
RUN pip install --no-cache-dir --find-links /opt/wheels {_package("emp-ollama[machine]")}
USER {UID}:{GID}
ENV WORKERS=ollama
{_preinstall()}
# Everything that a box of one's own may be asked for.
FROM comfyui AS common
USER root
RUN pip install --no-cache-dir --find-links /opt/wheels {_package("emp-ollama[machine]")} {_package("emp-openai")}
USER {UID}:{GID}
ENV WORKERS=comfyui,ollama
{_preinstall()}
# Custom nodes that are compiled need a compiler.
FROM common AS specialised
USER root
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends build-essential \\
    && rm -rf /var/lib/apt/lists/*
USER {UID}:{GID}

# Pools: machines for jobs of one length and kind. Their models and custom nodes stand in pools/NAME.
{pools}"""


def _pool(name: str, workers: str) -> str:
    return f"""\
FROM specialised AS {name}
COPY pools/{name}/ /etc/emp/pool/
ENV EMP_POOL={name} \\
    WORKERS={workers} \\
    COMFYUI_MODELS=/etc/emp/pool/models.json \\
    COMFYUI_CUSTOM_NODES=/etc/emp/pool/custom_nodes.json
{_preinstall()}"""


def _preinstall() -> str:
    return """\
ARG PREINSTALL=
RUN if [ -n "$PREINSTALL" ]; then GPU_MODE=mock COMFYUI_ARGS=--cpu HUB_REDIS_URL=redis://nowhere emp machine install; fi
"""


def _package(name: str) -> str:
    """The version that is installed here."""
    try:
        return f'"{name}=={version(name.partition("[")[0])}"'
    except PackageNotFoundError:
        return f'"{name}"'
