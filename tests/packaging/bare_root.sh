#!/bin/sh
# Prove that the targets of ./do work where there is a shell and apt and nothing else.
#
#   bare_root.sh SUITE [TARGET...]      e.g. bare_root.sh trixie setup check 'test tests/packaging'
#
# Makes a new minimal root with debootstrap, unpacks the last commit in it, runs each target
# there (setup if none is named; setup always twice, to see that the second run has nothing to
# do), and removes the root. The kernel, /proc, /sys and /dev are this host's.
#
# MIRROR names the archive; without it, the one that this host's own apt uses. ROOTS is where
# the root is made (/tmp/pidtrail-roots), KEEP=1 keeps it.
set -eu

die() {
    printf 'bare_root: %s\n' "$*" >&2
    exit 1
}

# Inside: a mount namespace of our own. What is mounted here ends with it and is never seen
# outside, so that removing the root cannot reach the host's /dev.
if [ "${1-}" = --inside ]; then
    root=$2
    shift 2
    # A root that is a mount point is what a real one is, and what unshare --mount-proc wants.
    mount --bind "$root" "$root"
    for tree in proc sys dev; do
        mount --rbind "/$tree" "$root/$tree"
        mount --make-rslave "$root/$tree"
    done
    # What the user set for pip, uv and proxies holds in there too; nothing else of this
    # environment does.
    set -f
    settings=$(env | grep -E '^((PIP|UV)_[A-Z_]+|SSL_CERT_FILE|[A-Za-z]+_(proxy|PROXY))=[^ ]*$' || true)
    # The Debian package of certificates, once it is installed, writes over the usual bundle.
    if [ -f "$root/root/certificates.crt" ]; then
        settings="$settings PIP_CERT=/root/certificates.crt SSL_CERT_FILE=/root/certificates.crt"
    fi
    # shellcheck disable=SC2086
    bare() { env -i HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin $settings "$@"; }

    # First what must fail: each with one line, and with nothing installed.
    must_fail() {
        want=$1
        shift
        if "$@" >"$root/out" 2>"$root/err"; then die "succeeded, but should say: $want"; fi
        if [ "$(wc -l <"$root/err")" != 1 ] || ! grep -q "$want" "$root/err"; then
            die "should say only: $want; said: $(cat "$root/err")"
        fi
        printf 'bare_root: refused as it should: %s\n' "$(cut -c1-100 "$root/err")"
    }
    do_setup='cd /srv/pidtrail && exec ./do setup'
    must_fail 'not root' bare chroot --userspec=65534:65534 "$root" /bin/sh -c "$do_setup"
    mv "$root/etc/os-release" "$root/etc/os-release.real"
    echo ID=plan9 >"$root/etc/os-release"
    must_fail 'plan9.* is not a distribution' bare chroot "$root" /bin/sh -c "$do_setup"
    mv "$root/etc/os-release.real" "$root/etc/os-release"
    must_fail 'no network' bare unshare --net chroot "$root" /bin/sh -c "$do_setup"

    for target; do
        started=$(date +%s)
        # shellcheck disable=SC2016
        bare chroot "$root" /bin/sh -c 'cd /srv/pidtrail && exec ./do $1' sh "$target" ||
            die "./do $target failed"
        printf 'bare_root: ./do %s took %s s\n' "$target" "$(($(date +%s) - started))"
    done
    # With everything there, an unknown distribution and no network are no obstacle.
    echo ID=plan9 >"$root/etc/os-release"
    bare unshare --net chroot "$root" /bin/sh -c "$do_setup" || die "refused to go on"
    exit
fi

suite=${1:?usage: bare_root.sh SUITE [TARGET...]}
shift
if [ $# = 0 ]; then set -- setup; fi
if [ "$1" = setup ]; then
    shift
    set -- setup setup "$@"
fi
[ "$(id -u)" = 0 ] || die "needs root, for debootstrap and chroot"
command -v debootstrap >/dev/null || die "debootstrap is not installed: apt-get install debootstrap"

case $suite in
bookworm | trixie) archive=/debian components=main ;;
noble) archive=/ubuntu components=main,universe ;;
*) die "unknown suite $suite: bookworm, trixie or noble" ;;
esac
if [ -z "${MIRROR-}" ]; then
    # shellcheck disable=SC2016
    MIRROR=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep "$archive/*$" | head -n1)
fi
[ -n "$MIRROR" ] || die "this host's apt names no archive that has $suite; name one in MIRROR"

here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${ROOTS:=/tmp/pidtrail-roots}"
root=$(mktemp -d "$ROOTS/$suite.XXXXXX")
chmod 755 "$root"
cleanup() {
    if [ -n "${KEEP-}" ]; then
        echo "bare_root: kept $root"
    else
        rm -rf --one-file-system "$root"
        rmdir "$ROOTS" 2>/dev/null || true
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "bare_root: making $root"
debootstrap --variant=minbase --components="$components" "$suite" "$root" "$MIRROR" >"$root.log" 2>&1 ||
    die "debootstrap failed: $(tail -n1 "$root.log") (log: $root.log)"
rm -f "$root.log"
for tool in make git python3 gcc clang curl; do
    if chroot "$root" /bin/sh -c "command -v $tool" >/dev/null; then die "not bare: it has $tool"; fi
done

# How this host reaches its archive and its package index.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf "$HOME/.config/pip/pip.conf" \
    $(grep -lsriE 'proxy|cainfo' /etc/apt/apt.conf /etc/apt/apt.conf.d || true); do
    if [ -f "$file" ]; then
        mkdir -p "$root$(dirname "$file")"
        cp "$file" "$root$file"
    fi
done
bundle=${PIP_CERT:-${SSL_CERT_FILE-}}
if [ -f "$bundle" ]; then cp "$bundle" "$root/root/certificates.crt"; fi
# A daemon that a package brings must not start: it would outlive the root.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"

mkdir -p "$root/srv/pidtrail"
git -C "$here" archive HEAD | tar -x -C "$root/srv/pidtrail"
# As if it were anybody's checkout, so that "not root" is what somebody else is told.
chmod 777 "$root/srv/pidtrail"
unshare --mount --propagation slave sh "$here/tests/packaging/bare_root.sh" --inside "$root" "$@"
