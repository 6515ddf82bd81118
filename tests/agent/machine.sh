#!/bin/sh
# Readies the root of a systemd (tests/programs/boot.sh) with pidtrail's unit installed.
# usage: machine.sh CHECKOUT
# CHECKOUT is where pidtrail is.
set -eu
CHECKOUT=$1
mkdir -p ".$CHECKOUT" opt/pidtrail/bin
mount --rbind "$CHECKOUT" ".$CHECKOUT"
printf "#!/bin/sh\nexec '%s/.venv/bin/pidtrail' \"\$@\"\n" "$CHECKOUT" >opt/pidtrail/bin/pidtrail
chmod 755 opt/pidtrail/bin/pidtrail

# In the words of the README, on a host that has no such folder yet, as Debian 12.
rm -rf etc/sysusers.d
grep "^install -D -m 0644 -t /etc/" "$CHECKOUT/README.md" >run/install
chroot . sh -euc "cd '$CHECKOUT' && . /run/install"
chroot . systemd-sysusers pidtrail.conf
chroot . systemd-tmpfiles --create pidtrail.conf

# Nothing else of an ordinary boot, and a watchdog that is worth waiting for.
mkdir run/systemd/system/pidtrail.service.d
cat >run/systemd/system/pidtrail.service.d/test.conf <<UNIT
[Unit]
DefaultDependencies=no
[Service]
StandardError=append:/run/log
# PrivateTmp would hide a checkout below /tmp.
BindReadOnlyPaths="$CHECKOUT"
WatchdogSec=10
TimeoutAbortSec=1
UNIT
cp "$CHECKOUT/tests/agent/stand_in.py" run/airflow
sed -i "1i#!/usr/bin/python3" run/airflow
chmod 755 run/airflow
mkdir -m 777 run/tasks
mkfifo -m 666 run/fifo
# It opens the FIFO for both, so that it does not end with who wrote into it.
cat >run/systemd/system/airflow.service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
User=daemon
ExecStart=/bin/sh -c "exec /run/airflow scheduler /run/tasks $(printf "%0100d" 0) <>/run/fifo"
KillSignal=SIGKILL
UNIT
cat >run/systemd/system/play.target <<UNIT
[Unit]
DefaultDependencies=no
UNIT
