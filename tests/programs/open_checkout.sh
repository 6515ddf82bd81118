#!/bin/sh
# usage: open_checkout.sh CHECKOUT COMMAND [ARGUMENT...]
#
# Runs COMMAND in CHECKOUT, in a mount namespace of its own in which unprivileged users reach that
# wherever it is: also below a folder that only its owner may enter, such as /root.
set -eu
# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -euc '
    checkout=$1 closed=
    shift
    parent=$checkout
    while [ "$parent" != / ]; do
        parent=$(dirname "$parent")
        case $(stat -c %A "$parent") in *x | *t) ;; *) closed=$parent ;; esac
    done
    if [ -n "$closed" ]; then
        mount -t tmpfs -o mode=755 tmpfs /mnt
        mkdir /mnt/checkout
        mount --rbind "$checkout" /mnt/checkout
        mount -t tmpfs -o mode=755 tmpfs "$closed"
        # Whatever the umask of COMMAND is to be.
        (umask 022 && mkdir -p "$checkout")
        mount --rbind /mnt/checkout "$checkout"
    fi
    cd "$checkout"
    exec "$@"
' sh "$@"
