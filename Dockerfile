# medmtl without a GPU:
#   docker build -t medmtl .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" medmtl fit --config multitask.yaml
# By default pip takes the build of torch that its index has, which on x86-64 brings the libraries of a GPU, too. With
# the address of PyTorch's index of CPU builds the image is several GB smaller: --build-arg TORCH_INDEX=ADDRESS
FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
WORKDIR /source
RUN python -m venv /opt/medmtl
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY medmtl medmtl
RUN /opt/medmtl/bin/pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[dicom,ood]"

FROM python:3.12-slim
COPY --from=build /opt/medmtl /opt/medmtl
RUN useradd --create-home --uid 1000 medmtl
# Whoever runs it may have no home in the image.
ENV PATH=/opt/medmtl/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /work
ENTRYPOINT ["medmtl"]
CMD ["--help"]
