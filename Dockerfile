# The worker; the same image runs the gateway with another command: python -m gateway
FROM python:3.13-slim AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data
RUN useradd --system --uid 10001 app && install -d -o app /data
WORKDIR /app
COPY --from=build /venv /venv
COPY cachebus cachebus
COPY tradesense tradesense
COPY handlers handlers
COPY schedules schedules
COPY worker worker
COPY gateway gateway
USER app
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=2s --start-period=20s CMD ["python", "-m", "worker", "check"]
CMD ["python", "-m", "worker"]
