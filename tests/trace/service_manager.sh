#!/bin/sh
# Readies the root of a systemd (tests/programs/boot.sh) with one service that it then stops.
# usage: service_manager.sh PROGRAM
set -eu
# Titles are written over the arguments, so these are as long.
ROOM=$(printf "%0100d" 0)
cp "$1" run/program
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
