# An image with the command safemed-eval.
#
#   docker build --target cuda --tag safemed-eval .
#   docker run --rm --gpus all --volume "$PWD:/work" safemed-eval evaluate --model CKPT --data DATA --out runs/a
#
#   docker build --target cpu --build-arg TORCH_INDEX=ADDRESS --tag safemed-eval:cpu .
#
# Without TORCH_INDEX both targets have PyTorch's default build, whose CUDA libraries take several GB; it runs on a CPU as
# well. ADDRESS is that of PyTorch's index of CPU builds; torch and torchvision must both come from there.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY safemed_eval safemed_eval
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
ARG TORCH_INDEX=""
ARG EXTRAS=""
# Nobody's rights: images and weights of strangers are decoded in here.
RUN useradd --create-home --uid 1000 safemed && mkdir /work && chown safemed /work
# Ranges, as pyproject.toml has them.
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.11,<3" "torchvision>=0.26,<1"
COPY --from=build /wheels /wheels
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir "$(echo /wheels/safemed_eval-*.whl)${EXTRAS:+[$EXTRAS]}"
USER 1000
WORKDIR /work
ENTRYPOINT ["safemed-eval"]
CMD ["--help"]

FROM base AS cpu
ENV CUDA_VISIBLE_DEVICES=""

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
