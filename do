#!/bin/sh
# One script for everything that is done in a checkout of pidtrail; `make TARGET` calls it too.
#
# It needs a shell to start with and installs what else a target needs: packages of the
# distribution with apt (only what is missing, and only as root), Python packages into .venv.
# Every step looks first whether it is done already. Logs of the quiet steps: build/log/.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

PYTHON=.venv/bin/python
SYSTEM_PYTHON=/usr/bin/python3 # the distribution's: its bcc module belongs to no other
LOGS=build/log

help() {
    cat <<'HELP'
usage: ./do TARGET [ARGUMENT...]        (or: make TARGET ARGS="ARGUMENT...")

  setup           install what is needed and make .venv/bin/pidtrail
  demo            trace a real Airflow and explain every PID (root; a few minutes)
  test            lint, types and all tests, real Airflow included (root)
  test ARGUMENT.. only pytest, with these arguments, e.g. ./do test tests/unit -k tree
  test-matrix     the releases of Airflow from 2.7.3 on, each traced for a minute (root)
  check           lint, types and the tests that need no privileges (under 2 minutes)
  lint            ruff, mypy, shellcheck
  format          let ruff lay out the Python files
  bench           measure pidtrail beside forkstat and bpftrace, as JSON (root)
  fuzz [SECONDS]  look for inputs that break a parser, some seconds for each
  endure [N [SOURCE..]]
                  a million processes under core, or N under others, memory watched (root)
  bpf             compile the BPF programs into agent/pidtrail/bpf/
  wheel           build dist/pidtrail-VERSION-py3-none-any.whl
  bare SUITE ..   run targets in a new, empty Debian or Ubuntu root, e.g. ./do bare trixie setup
  clean           remove what these targets made in this directory
  help            this text
HELP
}

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'do: %s\n' "$*" >&2
    exit 1
}

# --- packages of the distribution ------------------------------------------------------------

# A need is a name. `have` tells whether it is met, however it got there; `package_of` what apt
# would install for it; `words_for` what to tell a person whose distribution we do not know.
SETUP_NEEDS="python libbpf clang llvm-strip bpf-headers cc libc-headers util-linux"
TEST_NEEDS="postgresql redis-server mariadb mysqlclient systemd-analyze sudo bcc kernel-headers
    podman crun runc dumb-init"
BENCH_NEEDS="forkstat bpftrace"

any_file() {
    for file; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

have() {
    case $1 in
    python)
        "$SYSTEM_PYTHON" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null
        ;;
    libbpf) any_file /usr/lib/*/libbpf.so.1 /usr/lib64/libbpf.so.1 /usr/lib/libbpf.so.1 ;;
    clang) any_file /usr/bin/clang /usr/bin/clang-[1-9]* || command -v clang >/dev/null ;;
    llvm-strip) any_file /usr/bin/llvm-strip /usr/bin/llvm-strip-[1-9]* ;;
    bpf-headers) any_file /usr/include/bpf/bpf_helpers.h ;;
    cc) command -v gcc >/dev/null ;;
    libc-headers) any_file /usr/include/stdio.h ;;
    util-linux) command -v unshare >/dev/null && command -v setpriv >/dev/null ;;
    bcc) "$SYSTEM_PYTHON" -c 'from bcc import BPF; BPF.get_syscall_fnname' 2>/dev/null ;;
    # Of any kernel: bcc's own includes want some, and pidtrail's programs read nothing by them.
    kernel-headers)
        any_file "/lib/modules/$(uname -r)/build" /usr/src/linux-headers-*/include/generated \
            /usr/src/kernels/*/include
        ;;
    mariadb) command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null ;;
    mysqlclient) any_file /usr/lib/python3/dist-packages/MySQLdb/__init__.py ;;
    postgresql) any_file /usr/lib/postgresql/*/bin/initdb /usr/bin/initdb ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

package_of() {
    case $1 in
    python) echo python3 python3-venv ;;
    libbpf) echo libbpf1 ;;
    llvm-strip) echo llvm ;;
    bpf-headers) echo libbpf-dev ;;
    cc) echo gcc ;;
    libc-headers) echo libc6-dev ;;
    systemd-analyze) echo systemd ;;
    mariadb) echo mariadb-server ;;
    mysqlclient) echo python3-mysqldb ;;
    bcc) echo python3-bpfcc ;;
    kernel-headers)
        case $(distribution) in
        ubuntu*) echo linux-headers-generic ;;
        *) echo "linux-headers-$(dpkg --print-architecture)" ;;
        esac
        ;;
    *) echo "$1" ;;
    esac
}

words_for() {
    case $1 in
    python) echo "Python 3.11 or newer with venv as $SYSTEM_PYTHON" ;;
    libbpf) echo "libbpf.so.1" ;;
    bpf-headers) echo "bpf/bpf_helpers.h (libbpf's headers)" ;;
    cc) echo "gcc" ;;
    libc-headers) echo "the C library's headers" ;;
    bcc) echo "the BPF compiler collection's Python module (python3-bpfcc, python3-bcc)" ;;
    mariadb) echo "a MariaDB server (mariadbd)" ;;
    mysqlclient) echo "mysqlclient for $SYSTEM_PYTHON (python3-mysqldb)" ;;
    kernel-headers) echo "kernel headers, of any kernel" ;;
    *) echo "$1" ;;
    esac
}

distribution() (
    ID=unknown VERSION_ID=
    # shellcheck source=/dev/null
    if [ -r /etc/os-release ]; then . /etc/os-release; fi
    printf '%s' "$ID${VERSION_ID:+ $VERSION_ID}"
)

# Print the needs among the arguments that are not met.
unmet() {
    for need; do
        if ! have "$need"; then printf '%s ' "$need"; fi
    done
}

install_packages() {
    missing=$(unmet "$@")
    if [ -z "$missing" ]; then return; fi
    packages='' words=''
    for need in $missing; do
        packages="$packages$(package_of "$need") "
        words="$words${words:+, }$(words_for "$need")"
    done
    case $(distribution) in
    "debian 12" | "debian 13" | "ubuntu 24.04") ;;
    *) die "$(distribution) is not a distribution we install packages on; missing here: $words" ;;
    esac
    if [ "$(id -u)" != 0 ]; then
        die "not root, and missing here: $words; as root: apt-get install ${packages% }"
    fi
    say "installing with apt: ${packages% } (a minute or two)"
    log=$LOGS/apt.log
    # A list that cannot be had (a foreign source that is down) is no reason to stop: what
    # counts is whether the packages can be installed.
    apt_get update >"$log" || true
    # shellcheck disable=SC2086
    if ! apt_get install --yes --no-install-recommends $packages >>"$log"; then
        die "$(reason_in "$log" "apt could not install ${packages% }")"
    fi
    missing=$(unmet "$@")
    if [ -n "$missing" ]; then die "still missing after apt installed its package: $missing"; fi
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1 \
        apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" \
        2>&1 </dev/null 9>&-
}

# One line for a failure: no network or no trust, where that is what the log speaks of, or else
# the first error in it.
reason_in() {
    if grep -qi 'certificate.verify.failed\|invalid peer certificate' "$1"; then
        printf "%s: the package index's certificate is not trusted here; name a bundle in PIP_CERT (log: %s)" "$2" "$1"
    elif grep -qiE 'could ?n.t resolve|temporary failure|name resolution|network is unreachable|dns error|could not connect|connection (refused|timed out)|unable to connect|error sending request' "$1"; then
        printf 'no network: %s (log: %s)' "$2" "$1"
    else
        cause=$(grep -m1 'bpf: ' "$1" || grep -iE -m1 '^E:|error' "$1" || tail -n1 "$1")
        printf '%s: %s (log: %s)' "$2" "${cause#"${cause%%[! ]*}"}" "$1"
    fi
}

# --- .venv and the BPF objects ---------------------------------------------------------------

fingerprint() { sha256sum | cut -d' ' -f1; }

make_environment() {
    # Another place or another Python: made anew. Other packages: brought up to date.
    place=$({
        pwd
        "$SYSTEM_PYTHON" -VV
    } | fingerprint)
    content=$(cat pyproject.toml constraints.txt | fingerprint)
    stamp=.venv/pidtrail.stamp
    made=$(cat "$stamp" 2>/dev/null || true)
    if [ "$made" = "$place $content" ] && [ -x .venv/bin/pidtrail ]; then return; fi
    if [ "${made%% *}" != "$place" ] || ! [ -x $PYTHON ]; then
        say "making .venv with $("$SYSTEM_PYTHON" -V)"
        "$SYSTEM_PYTHON" -m venv --clear .venv >"$LOGS/venv.log" 2>&1 ||
            die "$(reason_in "$LOGS/venv.log" "$SYSTEM_PYTHON could not make .venv")"
    fi
    echo "$place unfinished" >"$stamp"
    say "installing Python packages into .venv"
    log=$LOGS/python.log
    $PYTHON -m pip install --quiet --constraint constraints.txt uv >"$log" 2>&1 ||
        die "$(reason_in "$log" "pip could not install uv")"
    tell_uv
    .venv/bin/uv pip install --python $PYTHON --constraints constraints.txt --compile-bytecode \
        --build-constraints constraints.txt --group dev --editable '.[airflow-db]' \
        >"$log" 2>&1 || die "$(reason_in "$log" "uv could not install pidtrail's packages")"
    echo "$place $content" >"$stamp"
}

# What the user told pip about indexes and certificates holds for uv too, which reads
# settings of its own only. What the user told uv itself stays.
tell_uv() {
    pip_says index-url
    if [ -n "$said" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$said}"; fi
    pip_says find-links
    if [ -n "$said" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$said}"; fi
    pip_says cert
    if [ -n "$said" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$said}"; fi
    pip_says extra-index-url
    if [ -n "$said" ]; then
        # As pip does: the best version of all indexes, not the first index that has the name.
        export UV_INDEX="${UV_INDEX:-$said}" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    fi
}

pip_says() {
    said=''
    # As pip does: a local directory that is not there is passed over.
    for entry in $(pip_setting "$1"); do
        case $entry in
        file://* | /*) [ -e "${entry#file://}" ] || continue ;;
        esac
        said="$said${said:+ }$entry"
    done
}

# Not `pip config get`: of the files it reads the user's alone, and /etc/pip.conf may say it.
pip_setting() {
    $PYTHON -m pip config list 2>/dev/null | $PYTHON -c '
import ast, sys
pairs = dict(line.rstrip().partition("=")[::2] for line in sys.stdin)
for scope in (":env:", "install", "global"):
    if f"{scope}.{sys.argv[1]}" in pairs:
        print(ast.literal_eval(pairs[f"{scope}.{sys.argv[1]}"]))
        break
' "$1"
}

# Everything that `.venv/bin/pidtrail` needs, and the further needs in the arguments.
prepare() {
    mkdir -p $LOGS
    # One at a time in one checkout; the lock goes with the process that holds it.
    exec 9>build/setup.lock
    if command -v flock >/dev/null; then flock 9; fi
    # The lists are words of their own on purpose.
    # shellcheck disable=SC2086
    install_packages $SETUP_NEEDS ${1-}
    make_environment
    $PYTHON bpf/build_hook.py
    # Where PYTHONDONTWRITEBYTECODE is set every start would compile all of it again: 0.1 s.
    $PYTHON -m compileall -q agent/pidtrail
    exec 9>&-
}

# --- targets ---------------------------------------------------------------------------------

lint() {
    say "ruff"
    .venv/bin/ruff check --quiet .
    .venv/bin/ruff format --quiet --check .
    say "mypy"
    .venv/bin/mypy
    say "shellcheck"
    .venv/bin/shellcheck ./do .ci/run tests/packaging/bare_root.sh tests/airflow/own_sudoers.sh \
        tests/programs/open_checkout.sh tests/programs/boot.sh tests/agent/machine.sh tests/trace/service_manager.sh tests/trace/runtime_host.sh \
        tests/programs/downwards.sh
}

run_tests() {
    say "tests: $*"
    $PYTHON -m pytest "$@"
}

target=${1:-help}
if [ $# -gt 0 ]; then shift; fi
case $target in
setup)
    prepare
    say "ready: .venv/bin/pidtrail"
    ;;
demo)
    prepare
    tell_uv
    $PYTHON -m demo.run "$@"
    ;;
test)
    if [ $# -gt 0 ]; then
        prepare
        run_tests "$@"
        exit
    fi
    prepare "$TEST_NEEDS"
    tell_uv
    # Here a test that cannot run has failed: no skip goes unseen.
    export REQUIRE="${REQUIRE-root,bpf,bcc,tracefs,postgres,airflow,mariadb,systemd,podman}"
    lint
    run_tests tests/unit -n 2
    say "installing Airflow 3 and Airflow 2, each into an environment of its own"
    $PYTHON -m demo.environment 3.3.2 2.11.2
    run_tests tests --ignore=tests/unit --ignore=tests/airflow
    # Real Airflows wait more than they work, so two at a time.
    run_tests tests/airflow -n 2
    ;;
test-matrix)
    prepare "$TEST_NEEDS"
    tell_uv
    export REQUIRE="${REQUIRE-root,bpf,postgres}"
    run_tests tests/airflow/test_versions.py tests/airflow/test_plugin.py --every-airflow "$@"
    ;;
check)
    prepare
    lint
    run_tests tests/unit -n 2 "$@"
    ;;
lint)
    prepare
    lint
    ;;
format)
    prepare
    .venv/bin/ruff format "${@:-.}"
    ;;
bench)
    prepare "$BENCH_NEEDS"
    $PYTHON -m benchmarks.storm "$@"
    ;;
fuzz)
    prepare
    tell_uv
    # It has wheels for some interpreters only; without it, inputs are made by chance alone.
    .venv/bin/uv pip install --quiet --python $PYTHON atheris 2>"$LOGS/atheris.log" ||
        say "no atheris here (log: $LOGS/atheris.log)"
    $PYTHON -m tests.fuzz "$@"
    ;;
endure)
    prepare
    $PYTHON -m tests.endurance "$@"
    ;;
bpf)
    prepare
    ls -l agent/pidtrail/bpf/*.bpf.o
    ;;
wheel)
    prepare
    $PYTHON -m hatchling build -t wheel
    ;;
bare)
    mkdir -p $LOGS
    install_packages debootstrap git
    sh tests/packaging/bare_root.sh "$@"
    ;;
clean)
    say "removing .venv, build, dist, caches and the BPF objects"
    rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis agent/*.egg-info
    rm -f agent/pidtrail/bpf/*.bpf.o
    find agent bpf tests demo benchmarks -name __pycache__ -prune -exec rm -rf {} +
    ;;
help | -h | --help) help ;;
*) die "no target '$target'; ./do help lists them" ;;
esac
