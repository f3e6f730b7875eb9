#!/bin/sh
# In the image's first stage: our packages from /build to /app/own, compiled, without sources, tests and documents.
set -eu

cd /build
find libs services simulators \( -name tests -o -name __pycache__ \) -type d -prune -exec rm -r {} +
rm simulators/testing.py
find libs services simulators \( -name '*.md' -o -name pyproject.toml \) -delete
/app/bin/python -m compileall -q -b -s /build -p /app/own libs services simulators
find libs services simulators -name '*.py' -delete
mkdir /app/own
cp -r libs services simulators /app/own/

packages=$(/app/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for folder in /app/own /app/own/libs/* /app/own/services/*; do
  echo "$folder"
done > "$packages/own.pth"
