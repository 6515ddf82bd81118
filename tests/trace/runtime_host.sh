#!/bin/sh
# Makes a host of its own for container runtimes, and runs in it the commands that come on stdin.
# usage: runtime_host.sh FOLDER SHARED CGROUP...
# FOLDER is a place for its root, the host's own with a layer that is thrown away; only what is
# below the folders SHARED, one a line, is what it is outside. Each CGROUP is an empty directory at
# the top of a hierarchy, and all that a runtime can see of that. What they start is in namespaces
# of this host, and ends with it: when stdin does, or who holds it is killed.
set -eu
export FOLDER="$1" SHARED="$2"
shift 2
for cgroup; do
    # Nobody may enter a cpuset of version 1 without CPUs.
    for file in cpuset.cpus cpuset.mems; do
        if [ -e "$cgroup/../$file" ]; then cat "$cgroup/../$file" >"$cgroup/$file"; fi
    done
    echo $$ >"$cgroup/cgroup.procs"
done
# The new cgroup namespace begins at these directories.
# shellcheck disable=SC2016
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -eu -c '
    mount -t tmpfs tmpfs "$FOLDER"
    mkdir "$FOLDER/upper" "$FOLDER/work" "$FOLDER/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
    cd "$FOLDER/root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    if [ $# = 1 ]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        # A cgroup with processes of its own cannot have controllers for those below.
        mkdir sys/fs/cgroup/shell
        echo 0 >sys/fs/cgroup/shell/cgroup.procs
    else
        mount -t tmpfs tmpfs sys/fs/cgroup
        for cgroup; do
            top=${cgroup%/*}
            mkdir "sys/fs/cgroup/${top##*/}"
            # The words of /proc/self/mounts: what is mounted, where, its kind, its options.
            while read -r _ place kind options _; do
                if [ "$place" != "$top" ]; then continue; fi
                mount -t "$kind" -o "$options" cgroup "sys/fs/cgroup/${top##*/}"
            done </proc/self/mounts
        done
    fi
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    # An overlay cannot be the upper layer of another.
    mkdir -p var/lib/containers
    mount -t tmpfs tmpfs var/lib/containers
    echo "$SHARED" | while IFS= read -r shared; do
        if [ -z "$shared" ]; then continue; fi
        mkdir -p "./$shared"
        mount --bind "$shared" "./$shared"
    done
    exec chroot . env -i HOME=/root PATH="$PATH" sh
' sh "$@"
