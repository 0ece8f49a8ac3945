#!/usr/bin/env bash
# Run a CI job against a minicloud of its own inside a container whose process 1 is an init (see README.md).
# Usage: job.sh COMMAND [ARGUMENT...]
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd)
state=/run/minicloud-ci
export MINICLOUD_CONFIG=$checkout/config/ci-runner/minicloud.yaml
export AWS_CONFIG_FILE=$state/aws-config AWS_SHARED_CREDENTIALS_FILE=$state/aws-credentials
export PATH=$PATH:/usr/sbin:/sbin:$checkout/.venv/bin

(($#)) || { echo "usage: job.sh COMMAND [ARGUMENT...]" >&2; exit 2; }
# Container managers mount these read-only; bridge ports and forwarding, of this container alone, are set through them.
[ -w /sys/class/net ] || mount -o remount,rw /sys
[ -w /proc/sys/net/ipv4/ip_forward ] || mount -o remount,bind,rw /proc/sys
mkdir -p "$state"
virtlogd --daemon
libvirtd --daemon
minicloud doctor >&2 || true
minicloud init --aws-profile >"$state/init.log" 2>&1 || { cat "$state/init.log" >&2; exit 1; }
minicloud serve >"$state/serve.log" 2>&1 &
daemon=$!
until minicloud zone ls >"$state/first.log" 2>&1; do
    # The daemon ends at once when it cannot serve; a minute is for machines under load.
    if ((SECONDS > 60)) || ! kill -0 "$daemon" 2>/dev/null; then
        echo "job.sh: minicloud serve does not answer:" >&2
        tail -n 20 "$state/serve.log" >&2
        exit 1
    fi
    sleep 0.1
done
minicloud host add "$(hostname)" --zone ci-1a >&2
export AWS_PROFILE=minicloud
exec "$@"
