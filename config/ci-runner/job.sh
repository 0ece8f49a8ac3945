#!/usr/bin/env bash
# Run a CI job against a minicloud of its own inside a container whose process 1 is an init (see README.md).
# Usage: job.sh COMMAND [ARGUMENT...]
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd)
export MINICLOUD_CONFIG=$checkout/config/ci-runner/minicloud.yaml
export AWS_CONFIG_FILE=/run/minicloud-ci/aws-config AWS_SHARED_CREDENTIALS_FILE=/run/minicloud-ci/aws-credentials
minicloud=$checkout/.venv/bin/minicloud

mkdir -p /run/minicloud-ci
virtlogd --daemon
libvirtd --daemon
"$minicloud" doctor || true
"$minicloud" init --aws-profile >/run/minicloud-ci/init.log
"$minicloud" serve >/run/minicloud-ci/serve.log 2>&1 &
for _ in $(seq 100); do
    [ -S /run/minicloud/minicloud.sock ] && break
    sleep 0.1
done
"$minicloud" host add "$(hostname)" --zone ci-1a
export AWS_PROFILE=minicloud
exec "$@"
