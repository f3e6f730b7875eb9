# One image for every Python process: services, workers, jobs and simulators. Built from the repository's root.
# docker-compose.yml says which versions.
ARG PYTHON

FROM ${PYTHON} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /app
# What others wrote, in a layer of its own: it changes seldom.
COPY requirements.lock /build/
RUN pip --python /app/bin/python install --quiet --require-hashes --no-deps --only-binary :all: -r /build/requirements.lock
# What we wrote, compiled: a process on a read-only file system could not keep what it compiles.
COPY libs /build/libs
COPY services /build/services
COPY simulators /build/simulators
COPY deploy/containers/install.sh /build/
RUN sh /build/install.sh

FROM ${PYTHON}
COPY --from=packages /app /app
COPY deploy/containers/ready.py deploy/containers/job.sh /app/
# glibc's arenas for each thread cost memory and win nothing here.
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
# A volume mounted there is its, too.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
WORKDIR /tmp
