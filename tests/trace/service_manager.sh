#!/bin/sh
# Boots a real systemd in namespaces of its own, with one service that it then stops.
# usage: service_manager.sh CGROUP FOLDER PROGRAM
# CGROUP is an empty cgroup (version 2) for all of it, FOLDER a place for its root. systemd
# never sees the host's own root: it would empty /tmp (systemd-tmpfiles).
set -eu
echo $$ >"$1/cgroup.procs"
export FOLDER="$2" PROGRAM="$3"
# Titles are written over the arguments, so these are as long.
ROOM=$(printf "%0100d" 0) && export ROOM
# The new cgroup namespace begins at CGROUP, so that is all that systemd has to rule over.
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -eu -c '
    mount -t tmpfs tmpfs "$FOLDER"
    mkdir "$FOLDER/upper" "$FOLDER/work" "$FOLDER/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
    cd "$FOLDER/root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    cp "$PROGRAM" run/program
    mkdir -p run/systemd/system
    cat >run/systemd/system/worker.service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/python3 /run/program $ROOM
TimeoutStopSec=1
UNIT
    cat >run/systemd/system/stop.service <<UNIT
[Unit]
DefaultDependencies=no
After=worker.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -c "until [ -e /run/ready ] || ! systemctl is-active -q worker; do sleep 0.1; done; systemctl stop worker"
UNIT
    cat >run/systemd/system/play.target <<UNIT
[Unit]
DefaultDependencies=no
Wants=worker.service stop.service
UNIT
    exec chroot . env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=play.target
'
