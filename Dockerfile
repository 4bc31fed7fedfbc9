FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/glimpse

COPY requirements-app.lock ./
RUN pip install --require-hashes -r requirements-app.lock

COPY . .
RUN pip install --no-deps --no-build-isolation . \
    && useradd --create-home --uid 1000 glimpse \
    && install -d -o glimpse -g glimpse /data

USER glimpse
VOLUME /data
EXPOSE 5000
ENTRYPOINT ["glimpse"]
CMD ["serve", "--host", "0.0.0.0"]
