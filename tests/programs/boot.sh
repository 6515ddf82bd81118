#!/bin/sh
# Boots a real systemd in namespaces of its own, on a copy of the host's root that is thrown away.
# usage: boot.sh CGROUP FOLDER PREPARE [ARGUMENT...]
# CGROUP is an empty cgroup (version 2) for all of it, FOLDER a place for its root. The script
# PREPARE runs in that root's directory first, and makes what is booted: run/systemd/system/play.target.
# systemd never sees the host's own root: it would empty /tmp (systemd-tmpfiles).
set -eu
# The service runs as another user: what is made here is open to it, whatever our umask.
umask 022
echo $$ >"$1/cgroup.procs"
export FOLDER="$2"
shift 2
# The new cgroup namespace begins at CGROUP, so that is all that systemd has to rule over.
# shellcheck disable=SC2016
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
    mkdir -p run/systemd/system
    sh "$@"
    exec chroot . env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=play.target
' sh "$@"
