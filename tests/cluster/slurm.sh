#!/bin/bash
# A whole Slurm on one machine, with two GPUs that are none: slurm.sh FOLDER [NODES], started by tests/cluster/conftest.py as
#   unshare --net --pid --fork --mount-proc --kill-child
# so that no port, process or address of it is seen outside. Says "ready", and ends when its standard input does.
set -eu
folder=$1
nodes=${2:-1}
node=$(hostname -s)
mkdir -p "$folder/state"
chmod 755 "$folder"

ip link set lo up
ip addr add 10.255.0.1/32 dev lo  # without a second address looking up the node's name hangs

head -c 128 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" --pid-file="$folder/munge.pid" \
    --log-file="$folder/munge.log" --seed-file="$folder/munge.seed"

# No accounting, no cgroups, no MPI: none of them is in a container. KillWait: what scontrol requeue leaves a job.
# A node of 8 CPUs and 40 GB, whatever this machine has, so that the launcher's own limits are what is tested.
cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge.sock
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=0
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
SlurmdParameters=config_overrides
KillWait=${SLURM_KILL_WAIT:-15}
GresTypes=gpu
CONF
if [ "$nodes" = 1 ]; then
    echo "NodeName=$node NodeAddr=127.0.0.1 CPUs=8 RealMemory=40000 Gres=gpu:fake:2"
else  # several slurmd on this machine, each a node by its own port
    host=$node node="node[1-$nodes]"
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=[17011-$((17010 + nodes))] CPUs=2 RealMemory=4000" \
        "Gres=gpu:fake:2"
fi >> "$folder/slurm.conf"
echo "PartitionName=debug Nodes=$node Default=YES" >> "$folder/slurm.conf"
# Files that exist: a GPU that is only counted leaves the node invalid.
printf "NodeName=$node Name=gpu Type=fake File=/dev/%s\n" null zero > "$folder/gres.conf"

export SLURM_CONF="$folder/slurm.conf"
slurmctld
if [ "$nodes" = 1 ]; then slurmd; else for n in $(seq "$nodes"); do slurmd -N "node$n"; done; fi
for _ in $(seq 100); do
    [ "$(timeout 2 sinfo -ho%D%t)" = "${nodes}idle" ] && break
    sleep 0.1
done
[ "$(timeout 2 sinfo -ho%D%t)" = "${nodes}idle" ] || { cat "$folder"/slurm*.log >&2; exit 1; }
echo ready
cat > /dev/null  # until the test closes our input, or dies
timeout 10 scontrol shutdown || true
