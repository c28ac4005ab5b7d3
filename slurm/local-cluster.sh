#!/usr/bin/env bash
# A SLURM cluster on this machine alone, to try things on: two nodes with simulated GPUs, loopback
# only, without systemd, cgroups or an accounting database. The end-to-end tests run on it.
#
#   slurm/local-cluster.sh install    get SLURM and munge from apt (Debian, Ubuntu; as root)
#   slurm/local-cluster.sh start      start munged, slurmctld and a slurmd for each node
#   slurm/local-cluster.sh env        print SLURM_CONF for clients: eval "$(slurm/local-cluster.sh env)"
#   slurm/local-cluster.sh status     show daemons, nodes and jobs; 1 unless every daemon runs
#   slurm/local-cluster.sh release    let requeued jobs start now instead of after two minutes
#   slurm/local-cluster.sh stop       cancel the cluster's jobs and end what `start` started
#
# What to set, in the environment:
#   CLUSTER_DIR=/tmp/transferlab-cluster   everything the cluster writes
#   CLUSTER_PORT=17600                     of slurmctld; each slurmd takes one of the next
#   CLUSTER_NODES=2 CLUSTER_CPUS=4 CLUSTER_GPUS=2   what it pretends to have
set -euo pipefail

dir=${CLUSTER_DIR:-/tmp/transferlab-cluster}
port=${CLUSTER_PORT:-17600}
nodes=${CLUSTER_NODES:-2} cpus=${CLUSTER_CPUS:-4} gpus=${CLUSTER_GPUS:-2}
export SLURM_CONF=$dir/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

fail() { echo "local-cluster: $*" >&2; exit 1; }
installed() { hash munged slurmctld slurmd sbatch 2>/dev/null; }
daemons() { echo munged; echo slurmctld; seq -f 'slurmd-node%g' 1 "$nodes"; }

# running NAME: print the process id of a daemon of this cluster, if it is alive.
running() {
  local pid
  pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "${1%%-*}" ]] && echo "$pid"
}

# until_true SECONDS COMMAND: try again and again.
until_true() {
  local last=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < last)) || return 1
    sleep 0.1
  done
}

install_() {
  installed && return
  apt-get update -qq
  # the packages would start services of their own, with no configuration
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    munge slurmctld slurmd slurm-client >/dev/null
}

configure() {
  local host address i
  host=$(hostname -s)
  # the daemons listen on the address that the host name stands for: a loopback one, or none
  address=$(getent ahostsv4 "$host" | awk 'NR == 1 {print $1}')
  [[ $address == 127.* ]] || fail "$host must resolve to 127.*: add '127.0.0.1 $host' to /etc/hosts"
  mkdir -p "$dir/run" "$dir/log"
  rm -rf "$dir/state" "$dir/spool" # every start is a new cluster
  mkdir "$dir/state"
  chmod 755 "$dir" "$dir/run"
  [[ -s $dir/munge.key ]] || (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
  cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host($address)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
# Virtual CPUs may outnumber the real ones, and memory is not tracked.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
# No database: sacct fails, and squeue forgets a job a while after its end.
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobs.log
MinJobAge=86400
# A job in partition "high" takes the place of one in "low", which gets its --signal and is requeued.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# Quicker than a real cluster, which schedules less often and waits 30 s before it kills.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,preempt_youngest_first
KillWait=5
ReturnToService=2
# The names of the nodes don't resolve, so every task is told where the first one listens.
TaskProlog=$dir/run/task_prolog
GresTypes=gpu
CONF
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$dir/spool/node$i"
    echo "NodeName=node$i NodeHostname=$host NodeAddr=$address Port=$((port + i)) CPUs=$cpus" \
      "RealMemory=1000000 Gres=gpu:$gpus" >>"$SLURM_CONF"
  done
  cat >>"$SLURM_CONF" <<CONF
PartitionName=low Nodes=ALL Default=YES MaxTime=1-00:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
CONF
  # a GPU is a link to /dev/null: given to jobs like a real one, in CUDA_VISIBLE_DEVICES too
  : >"$dir/gres.conf"
  for ((i = 0; i < gpus; i++)); do
    ln -sf /dev/null "$dir/run/gpu$i"
    echo "NodeName=node[1-$nodes] Name=gpu File=$dir/run/gpu$i" >>"$dir/gres.conf"
  done
  printf '#!/bin/sh\n[ -n "$MASTER_ADDR" ] || echo "export MASTER_ADDR=%s"\n' "$address" \
    >"$dir/run/task_prolog"
  chmod 755 "$dir/run/task_prolog"
}

start() {
  installed || fail "SLURM is not installed: run '$0 install' as root"
  status >/dev/null 2>&1 && return
  stop # what is left of a cluster that lost a daemon
  configure
  munged --socket="$dir/run/munge.socket" --key-file="$dir/munge.key" \
    --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" --seed-file="$dir/run/munged.seed"
  slurmctld -c
  local i
  for ((i = 1; i <= nodes; i++)); do slurmd -c -N "node$i"; done
  until_true 30 all_up || fail "the nodes did not come up; see $dir/log"
}

all_up() {
  [[ $(sinfo --noheader --Node --states=idle,alloc,mix --format=%N | sort -u | wc -l) == "$nodes" ]]
}

env_() { printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"; }

status() {
  local name pid stopped=0
  for name in $(daemons); do
    if pid=$(running "$name"); then echo "$name: runs ($pid)"; else
      echo "$name: stopped"
      stopped=1
    fi
  done
  ((stopped)) || { sinfo --Node --long; squeue; }
  return $stopped
}

release() {
  local job
  squeue --noheader --array --states=PENDING --format='%i %r' | awk '$2 == "BeginTime" {print $1}' |
    while read -r job; do scontrol update JobId="$job" StartTime=now; done
}

stop() {
  local name pid pids=()
  if running slurmctld >/dev/null; then
    scancel --user="$(id -un)" || true
    until_true 15 eval '[[ -z $(squeue --noheader) ]]' || true
  fi
  for name in $(daemons); do pid=$(running "$name") && pids+=("$pid"); done
  ((${#pids[@]})) || return 0
  kill "${pids[@]}"
  until_true 10 eval '! kill -0 "${pids[@]}"' || kill -9 "${pids[@]}" || true
  for name in $(daemons); do rm -f "$dir/run/$name.pid"; done
}

case ${1:-} in
  install) install_ ;;
  env) env_ ;;
  start | status | release | stop) "$1" ;;
  *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
    ;;
esac
