#!/usr/bin/env bash
# Installs the producer on Amazon Linux 2023, from the wheel and the lock beside this script.
# The environment says what it publishes and to where; see climatestream/aws/producer.py.
# ROOT is a folder in place of /, for tests.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=${ROOT:-}
PYTHON=${PYTHON:-python3.11}
home=$ROOT/opt/climatestream
settings=$ROOT/etc/climatestream

command -v "$PYTHON" >/dev/null || dnf install --assumeyes --quiet "$PYTHON"

"$PYTHON" -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
    --requirement requirements.lock
"$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps ./*.whl

mkdir -p "$settings"
for name in CLIMATESTREAM_CLUSTER CLIMATESTREAM_TOPIC CLIMATESTREAM_PARTITIONS \
    CLIMATESTREAM_RETENTION CLIMATESTREAM_CDS_SECRET CLIMATESTREAM_PUBLISH AWS_REGION; do
    printf '%s="%s"\n' "$name" "${!name}"
done >"$settings/producer.env"

# a serverless cluster's topic is nobody else's to make; where it is there, it is left as it is
"$home/venv/bin/python" -m climatestream.aws.producer --topic

install -D --mode 0644 climatestream-producer.service \
    "$ROOT/etc/systemd/system/climatestream-producer.service"
systemctl daemon-reload
systemctl enable --now climatestream-producer
