#!/bin/sh
# usage: own_sudoers.sh CHECKOUT COMMAND [ARGUMENT...]
#
# Runs COMMAND in a mount namespace of its own with the rules in `sudoers` beside this file, and
# the checkout within reach of unprivileged users wherever it is. The host sees none of it.
set -eu
checkout=$1
shift
if [ "${PIDTRAIL_NAMESPACE-}" != "$checkout" ]; then
    export PIDTRAIL_NAMESPACE="$checkout"
    exec unshare --mount --propagation private "$0" "$checkout" "$@"
fi

# sudo wants its rules to be root's, and nobody else's to write.
mount -t tmpfs -o mode=755 tmpfs /mnt
install -m 440 "$(dirname "$0")/sudoers" /mnt/sudoers
mount --bind /mnt/sudoers /etc/sudoers

# A checkout below a folder that only its owner may enter, such as /root.
parent=$checkout closed=
while [ "$parent" != / ]; do
    parent=$(dirname "$parent")
    case $(stat -c %A "$parent") in *x | *t) ;; *) closed=$parent ;; esac
done
if [ -n "$closed" ]; then
    mkdir /mnt/checkout
    mount --rbind "$checkout" /mnt/checkout
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    mkdir -p "$checkout"
    mount --rbind /mnt/checkout "$checkout"
fi
cd "$checkout"
exec "$@"
