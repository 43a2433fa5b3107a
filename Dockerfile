# syntax=docker/dockerfile:1
# One image for every process of Uptier: workers, gateway, Flower, metrics, one-shot commands.
#
#   docker build -t uptier:cpu .
#   docker build -t uptier:cuda --build-arg VARIANT=cuda --build-arg CUDA_ARCHITECTURES=89 .
#
# llama.cpp is compiled from source in a builder; the compiler does not reach the image.
ARG VARIANT=cpu
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA=12.8
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-devel-ubuntu22.04

# ---------------------------------------------------------------- what is compiled

# hadolint ignore=DL3006
FROM ${CUDA_IMAGE} AS cuda

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS builder-cpu
# Debian's security updates are wanted; versions of a stable release hardly move otherwise.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
# Not for the processor of the machine that builds: AVX2, FMA and F16C are what every server has.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF" \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# What `cuda` fills and the image takes over; empty without it.
RUN mkdir /runtime-libraries

FROM builder-cpu AS builder-cuda
ARG CUDA
ARG CUDA_ARCHITECTURES=80;86;89;90
COPY --from=cuda /usr/local/cuda-${CUDA} /usr/local/cuda
# The driver's library comes from the host when the container starts; here its stub is linked.
RUN ln -s libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1 \
 && cp -L /usr/local/cuda/lib64/libcudart.so.12 /usr/local/cuda/lib64/libcublas.so.12 \
        /usr/local/cuda/lib64/libcublasLt.so.12 /runtime-libraries/
ENV PATH=/usr/local/cuda/bin:${PATH} \
    LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
    LDFLAGS="-Wl,-rpath-link,/usr/local/cuda/lib64/stubs" \
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES='${CUDA_ARCHITECTURES}'"

# hadolint ignore=DL3006
FROM builder-${VARIANT} AS built
WORKDIR /build
COPY requirements.lock deploy/runtime_lock.py ./
# For whoever builds with -DGGML_NATIVE=ON: without AMX (docs/decisions/031).
ENV CXXFLAGS="-U__AMX_INT8__"
# Every package by the lock's version and hash. The layer stays until the lock changes.
RUN --mount=type=cache,target=/var/cache/pip \
    export PIP_CACHE_DIR=/var/cache/pip \
 && python -m venv /opt/uptier \
 && python runtime_lock.py requirements.lock > runtime.lock \
 && /opt/uptier/bin/pip install --require-hashes -r runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY routing routing
COPY ledger ledger
COPY workers workers
COPY producers producers
COPY cli cli
RUN --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip /opt/uptier/bin/pip install --no-deps . \
 && /opt/uptier/bin/python -m compileall -q /opt/uptier/lib

# ---------------------------------------------------------------- what runs

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS image
ARG UID=1000
ARG GID=1000
# libgomp is llama.cpp's; tini reaps what a killed pool process leaves and passes signals on.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --non-unique --gid "${GID}" uptier \
 && useradd --non-unique --uid "${UID}" --gid "${GID}" --home-dir /var/lib/uptier \
        --shell /usr/sbin/nologin uptier \
 && install -d -o uptier -g uptier -m 700 /var/lib/uptier \
 && install -d -o uptier -g uptier -m 755 /models
COPY --from=built /runtime-libraries /usr/local/lib/uptier
COPY --from=built /opt/uptier /opt/uptier
ENV PATH=/opt/uptier/bin:${PATH} \
    LD_LIBRARY_PATH=/usr/local/lib/uptier \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    UPTIER_DATA_DIR=/var/lib/uptier \
    UPTIER_MODELS_DIR=/models \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /var/lib/uptier
USER ${UID}:${GID}
ENTRYPOINT ["tini", "--", "uptier"]
CMD ["--help"]
