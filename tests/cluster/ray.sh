#!/bin/bash
# A Ray head with two GPUs that are none: ray.sh FOLDER PYTHON, started as slurm.sh is. It runs in FOLDER, as a cluster's
# head runs in some folder of its own. Says "ready", and ends when its standard input does.
set -eu
folder=$1
python=$2
ip link set lo up
mkdir -p "$folder/elsewhere"
cd "$folder/elsewhere"
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
"$python" -m ray.scripts.scripts start --head --node-ip-address=127.0.0.1 --port=6399 --num-gpus=2 --num-cpus=4 \
    --include-dashboard=false --disable-usage-stats --temp-dir="$folder/ray" >/dev/null
echo ready
cat > /dev/null
timeout 20 "$python" -m ray.scripts.scripts stop --force >/dev/null 2>&1 || true
