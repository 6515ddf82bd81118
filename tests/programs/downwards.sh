#!/bin/sh
# usage: downwards.sh GENERATIONS
#
# A parent, its child, its child's child …: each with a lower number than the one before, as when the
# kernel's numbers have wrapped. Each says its own; all live until their stdin ends.
set -eu
echo $$
if [ "$1" -gt 1 ]; then
    # Not below those that are given once only (kernel/pid.c RESERVED_PIDS).
    [ $$ -gt 1000 ]
    echo $(($$ - 300)) >/proc/sys/kernel/ns_last_pid
    # The shell gives /dev/null to what it does not wait for, before it looks at <&0.
    exec 3<&0
    sh "$0" $(($1 - 1)) <&3 &
fi
read -r _ || :
