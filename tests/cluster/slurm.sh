#!/bin/bash
# A whole Slurm on one machine, with two GPUs that are none: slurm.sh FOLDER, started by tests/cluster/conftest.py as
#   unshare --net --pid --fork --mount-proc --kill-child
# so that no port, process or address of it is seen outside. Says "ready", and ends when its standard input does.
set -eu
folder=$1
node=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool"
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
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
KillWait=${SLURM_KILL_WAIT:-15}
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 RealMemory=40000 Gres=gpu:fake:2
PartitionName=debug Nodes=$node Default=YES
CONF
# Files that exist: a GPU that is only counted leaves the node invalid.
printf "NodeName=$node Name=gpu Type=fake File=/dev/%s\n" null zero > "$folder/gres.conf"

export SLURM_CONF="$folder/slurm.conf"
slurmctld
slurmd
for _ in $(seq 100); do
    [ "$(timeout 2 sinfo -ho%t)" = idle ] && break
    sleep 0.1
done
[ "$(timeout 2 sinfo -ho%t)" = idle ] || { cat "$folder"/slurm*.log >&2; exit 1; }
echo ready
cat > /dev/null  # until the test closes our input, or dies
timeout 10 scontrol shutdown || true
