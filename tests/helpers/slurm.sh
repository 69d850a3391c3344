#!/usr/bin/env bash
# A Slurm cluster of two nodes of one CPU on this host, in a folder of its own: as root, without systemd.
#
#   tests/helpers/slurm.sh start FOLDER    begins it and waits until both nodes are idle; then SLURM_CONF=FOLDER/slurm.conf
#   tests/helpers/slurm.sh stop FOLDER     ends it
#
# Needs Debian's packages slurm-wlm and munge. The folder has to have a short name: munge's socket lies in it.
set -euo pipefail
action=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
export PATH=$PATH:/usr/sbin SLURM_CONF=$folder/slurm.conf

stop() {
  # Without the daemons nobody would end the jobs.
  timeout 20 scancel --user="$(id -u)" --quiet 2>/dev/null || true
  for _ in $(seq 60); do [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break; sleep 0.5; done
  for daemon in slurmd.n1 slurmd.n2 slurmctld munged; do
    if pid=$(cat "$folder/$daemon.pid" 2>/dev/null) && kill "$pid" 2>/dev/null; then
      for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
      kill -9 "$pid" 2>/dev/null || true
    fi
  done
}

start() {
  read -r controller first second < <(python3 -c '
import socket
bound = [socket.socket() for _ in range(3)]
for one in bound:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in bound))')

  chmod 755 "$folder"
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"

  # A requeued job waits until its credential has expired, 120 seconds by default: cred_expire.
  # config_overrides: the nodes say they have one CPU, whatever the host has.
  cat >"$SLURM_CONF" <<END
ClusterName=ablate
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$controller
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$folder/munge.socket,cred_expire=15
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$first CPUs=1
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$second CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    printf 'CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n' >"$folder/cgroup.conf"
  else
    echo CgroupPlugin=cgroup/v1 >"$folder/cgroup.conf"
  fi
  mkdir -p "$folder/state" "$folder/spool.n1" "$folder/spool.n2"

  # Their output goes to files, for whoever waits for the end of this script's output would wait for daemons.
  slurmctld -f "$SLURM_CONF" >"$folder/slurmctld.out" 2>&1
  for node in n1 n2; do slurmd -f "$SLURM_CONF" -N "$node" >"$folder/slurmd.$node.out" 2>&1; done
  for _ in $(seq 120); do
    if [ "$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l)" = 2 ]; then return; fi
    sleep 0.5
  done
  echo "the nodes did not come up:" >&2
  tail -n 5 "$folder"/*.out "$folder"/*.log >&2
  stop
  exit 1
}

case $action in start) start ;; stop) stop ;; *) exit 2 ;; esac
