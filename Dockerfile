# One image for all services of docker-compose.yml: Ray's head and workers, and the dashboard.
FROM python:3.11.14-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/tmp RAY_USAGE_STATS_ENABLED=0

WORKDIR /sizer
# The libraries first: they change less often than the code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir sizer studies dashboards \
    && touch sizer/__init__.py studies/__init__.py dashboards/__init__.py \
    && pip install --constraint constraints.txt .

COPY sizer sizer
COPY studies studies
COPY dashboards dashboards
RUN pip install --no-deps --force-reinstall . && rm -rf build

# Volumes that are mounted here take their owner over.
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin sizer \
    && install --directory --owner sizer --group sizer /files /data
USER 1000:1000
WORKDIR /tmp

ENTRYPOINT []
CMD ["sizer", "--help"]
