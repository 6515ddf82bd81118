#!/bin/sh
# usage: own_sudoers.sh CHECKOUT COMMAND [ARGUMENT...]
#
# Runs COMMAND in a mount namespace of its own with the rules in `sudoers` beside this file, and
# the checkout within reach of unprivileged users wherever it is. The host sees none of it.
set -eu
here=$(dirname "$0")
if [ "${PIDTRAIL_NAMESPACE-}" != "$1" ]; then
    export PIDTRAIL_NAMESPACE="$1"
    exec unshare --mount --propagation private "$0" "$@"
fi

# sudo wants its rules to be root's, and nobody else's to write.
mount -t tmpfs -o mode=755 tmpfs /mnt
install -m 440 "$here/sudoers" /mnt/sudoers
mount --bind /mnt/sudoers /etc/sudoers
exec "$here/../programs/open_checkout.sh" "$@"
