#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: its own munged, slurmctld and slurmd, on free ports, in one folder.
#
#   slurm.sh start [FOLDER]    prints what to export; does nothing if it runs already
#   slurm.sh status [FOLDER]   exit code 0 if it runs
#   slurm.sh stop [FOLDER]     ends its jobs and daemons, and no others
#
# FOLDER: by default $SLURM_TEST_DIR. $SLURM_TEST_CPUS: cores that the node says it has; default: those it has, 2 at least.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
DAEMONS="slurmd slurmctld munged"   # in the order in which they are stopped

missing() { # what cannot be tested here is told, and is not a failure
    echo "$1" >&2
    exit 77
}

check_machine() {
    local program
    for program in sbatch slurmctld slurmd munged; do
        command -v $program >/dev/null || missing "$program is missing: apt-get install slurm-wlm munge"
    done
    [[ $EUID == 0 ]] || missing "slurmd starts jobs as root only: run this as root, in a container for instance"
}

free_port() { # from $1 on; nothing listens on it
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

runs() { # is the process of a daemon's pid file that daemon, and alive?
    local pid
    pid=$(cat "$DIR/$1.pid" 2>/dev/null) && [[ $(cat "/proc/$pid/stat" 2>/dev/null) == "$pid ($1) "[!Z]* ]]
}

run_all() { runs munged && runs slurmctld && runs slurmd; }

wait_for() { # seconds, command: until it succeeds
    local last=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < last)) || return 1
        sleep 0.2
    done
}

write_conf() {
    local node cpus memory controller
    node=$(hostname -s)
    cpus=${SLURM_TEST_CPUS:-$(($(nproc) > 2 ? $(nproc) : 2))}
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) * 9 / 10 / 1024))
    controller=$(free_port 16817)
    mkdir -p "$DIR/state" "$DIR/spool"
    # The card is one by name only. KillWait is short, as tests wait for it.
    cat >"$DIR/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$(free_port $((controller + 1)))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes=$node Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$node MaxTime=INFINITE State=UP
CONF
    echo "Name=gpu File=/dev/null" >"$DIR/gres.conf"
}

start_daemons() {
    [[ -f $DIR/munge.key ]] || (umask 077 && head -c 128 /dev/urandom >"$DIR/munge.key")
    # --force: munged would rather not have its socket below a folder that only root may enter.
    munged --force --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
        --log-file="$DIR/munged.log" --seed-file="$DIR/munge.seed" 2>>"$DIR/munged.err"
    slurmctld -c -f "$DIR/slurm.conf"
    slurmd -c -f "$DIR/slurm.conf"
}

idle() { [[ $(sinfo --noheader --format=%t 2>/dev/null | sort -u) == idle ]]; }

start() {
    check_machine
    mkdir -p "$DIR"
    chmod 755 "$DIR"
    if ! run_all; then
        stop
        write_conf
        start_daemons
        if ! wait_for 30 idle; then
            tail -n 20 "$DIR"/*.log >&2
            stop
            echo "SLURM did not come up within 30 s: its logs are above." >&2
            exit 1
        fi
    fi
    echo "export SLURM_CONF=$SLURM_CONF"
}

no_jobs() { [[ -z $(timeout 5 squeue --noheader 2>/dev/null) ]]; }

stopped() { ! runs "$1"; }

stop() {
    local daemon
    if run_all; then
        timeout 10 scancel --user="$(id -un)" || true
        wait_for 15 no_jobs || true
    fi
    for daemon in $DAEMONS; do
        if runs "$daemon"; then
            kill "$(cat "$DIR/$daemon.pid")"
            wait_for 10 stopped "$daemon" || kill -KILL "$(cat "$DIR/$daemon.pid")"
        fi
        rm -f "$DIR/$daemon.pid"
    done
}

status() {
    if ! run_all; then
        echo "not running in $DIR" >&2
        return 1
    fi
    sinfo
    squeue
}

COMMAND=${1:-}
DIR=${2:-${SLURM_TEST_DIR:-}}
if [[ ! $COMMAND =~ ^(start|stop|status)$ || -z $DIR ]]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
DIR=$(realpath -m "$DIR")
export SLURM_CONF=$DIR/slurm.conf
$COMMAND
