# shellcheck shell=bash
# What the end-to-end tests share: a private hvmd, users, TAP, and the list of what was left behind.
#
# A test sources this file in the sandbox (see run), calls these functions and ends with `done_testing`. No `set -e`: a test says
# what it expects. The store, the sockets and the configuration lie in $work and /run, which die with the sandbox.
#
# Times are never asserted: wait_for has generous limits, only to end a test that hangs.

set -u
set -o pipefail
work=$HVM_TEST_WORK
build=$HVM_TEST_BUILD
source=$HVM_TEST_SOURCE
store=$work/store
conf=/etc/hvm/hvmd.conf
fault=$work/fault
log=$work/hvmd.log
hvmd_pid=
# Two cores are what every machine has; the rest is housekeeping, so that the tests are alike on all machines.
cores=2

# Other users must reach hvm, wherever the tree lies.
mkdir -p "$work/bin" "$work/templates"
cp "$build/hvm" "$work/bin/hvm"
cp "$build/tests/daemon/raw" "$work/bin/raw"
cp "$source"/guest-templates/*.conf "$work/templates/" 2>/dev/null
export PATH=$work/bin:$PATH
export HVM_TEMPLATE_PATH=$work/templates
export XDG_RUNTIME_DIR=/run NO_COLOR=1 HVM_FAULT_FILE=$fault

# --- TAP --------------------------------------------------------------------------------------------------------------

tests=0
failed=0
diag() { sed 's/^/#   /'; }
pass() { tests=$((tests + 1)) && echo "ok $tests - $*"; }
fail() { tests=$((tests + 1)) && failed=$((failed + 1)) && echo "not ok $tests - $*"; }
skip() { tests=$((tests + 1)) && echo "ok $tests - $1 # SKIP $2"; }
bail() { echo "Bail out! $*"; show_log; exit 1; }
show_log() { tail -n 15 "$log" 2>/dev/null | sed 's/^/#   hvmd: /'; }

done_testing() {
    echo "1..$tests"
    [ $failed = 0 ] || show_log
    exit $((failed > 0))
}

# t WHAT COMMAND...: passes where it ends with 0. What it printed is in $out.
t() {
    local what=$1 status=0

    shift
    out=$("$@" 2>&1) || status=$?
    if [ $status = 0 ]; then
        pass "$what"
    else
        fail "$what"
        printf '%s\n' "status $status of: $*" "$out" | diag
        return 1
    fi
}

# is WHAT FOUND WANTED
is() {
    [ "$2" = "$3" ] && pass "$1" && return
    fail "$1"
    printf '%s\n' "wanted: $3" "found:  $2" | diag
    return 1
}

# like WHAT FOUND REGEX
like() {
    [[ $2 =~ $3 ]] && pass "$1" && return
    fail "$1"
    printf '%s\n' "wanted: $3" "found:  $2" | diag
    return 1
}

# refuses WHAT STATUS REGEX COMMAND...: that exit status, and one line on standard error that matches.
refuses() {
    local what=$1 status=$2 regex=$3 found=0 errors

    shift 3
    errors=$("$@" 2>&1 >/dev/null </dev/null) || found=$?
    if [ "$found" = "$status" ] && [[ $errors =~ $regex ]] && [[ $errors != *$'\n'* ]]; then
        pass "$what"
    else
        fail "$what"
        printf '%s\n' "of: $*" "wanted: status $status, one line like: $regex" "found:  status $found: $errors" | diag
        return 1
    fi
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local end=$((SECONDS + $1))

    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# json FILTER: reads JSON from standard input as x and prints the Python expression, each element of a list on a line.
json() {
    python3 -c '
import json, sys
text = sys.stdin.read()
if not text:
    sys.exit("no JSON")
x = json.loads(text)
value = eval(sys.argv[1])
for item in value if isinstance(value, (list, tuple)) else [value]:
    print(item)' "$1" 2>/dev/null
}

# --- libvirt and hvmd -------------------------------------------------------------------------------------------------

vsh() { virsh -q -c qemu:///system "$@"; }

libvirt_start() {
    virtlogd -d && libvirtd -d && wait_for 30 vsh uri || bail "libvirtd does not start in the sandbox"
}

# libvirt_kill [-9]
libvirt_kill() {
    local pid

    pid=$(cat /run/libvirtd.pid)
    kill "$@" "$pid" && wait_for 20 gone "$pid"
}

# The CPUs that are no guest's: all but the first $cores.
housekeeping() {
    lscpu -p=CPU,CORE | grep -v '^#' | awk -F, -v cores=$cores '
        !($2 in core) { core[$2] = n++ }
        core[$2] >= cores { printf "%s%s", sep, $1; sep = "," }'
}

write_conf() {
    cat >$conf <<END
[storage]
path=$store

[cpu]
housekeeping=$(housekeeping)
END
    [ $# = 0 ] || printf '%s\n' "" "$@" >>$conf
}

# A process is gone, or is a zombie that nobody waits for.
gone() { ! [ -e "/proc/$1/stat" ] || [ "$(awk '{ sub(/.*\) /, ""); print $1 }' "/proc/$1/stat" 2>/dev/null)" = Z ]; }

# If only that libvirt does not.
hvmd_answers() { hvm list || [ $? = 9 ]; }

# Starts hvmd and waits until it answers and has found libvirt.
hvmd_start() {
    [ -e $conf ] || write_conf
    setsid "$build/hvmd" --config $conf >>"$log" 2>&1 </dev/null &
    hvmd_pid=$!
    disown
    wait_for 30 hvmd_answers || bail "hvmd does not answer"
}

hvmd_kill() {
    kill -9 "$hvmd_pid"
    wait_for 10 gone "$hvmd_pid"
}

hvmd_stop() {
    kill "$hvmd_pid"
    wait_for 20 gone "$hvmd_pid"
}

hvmd_running() { ! gone "$hvmd_pid"; }

# The next time the step is reached: fail, kill or wait. `fault_reached` waits until it waits there, `fault_clear` ends that.
fault_set() { rm -f "$fault.reached" && echo "$1 $2" >"$fault.new" && mv "$fault.new" "$fault"; }
fault_reached() { wait_for 60 test -e "$fault.reached"; }
fault_clear() { rm -f "$fault"; }

# as USER COMMAND...: alice and bob are in the group hvm, eve is not.
as() {
    local user=$1

    shift
    setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all "$@"
}

# raw_call METHOD [REQUEST]: one call past hvm. Prints the reply, or the name of the error and its message.
raw_call() { raw /run/hvm/hvmd.sock "io.hvm1.$1" "${2:-@a{sv\} {\}}" 2>&1; }
connected() { raw_call Hello | grep -q "'connected': <true>"; }

# --- images and guests ------------------------------------------------------------------------------------------------

# Puts the image that all tests share into the store: bound, or with `copy` as an own copy.
use_image() {
    [ -e "$HVM_TEST_STORE/whole" ] || bail "there is no image in $HVM_TEST_STORE"
    mkdir -p -m 711 "$store/images"
    if [ "${1:-}" = copy ]; then
        cp -a --sparse=always "$HVM_TEST_STORE/images/." "$store/images/"
    else
        mount --bind "$HVM_TEST_STORE/images" "$store/images"
    fi
}

# The first start of a sandbox: image, libvirt, hvmd.
begin() {
    use_image "$@"
    libvirt_start
    write_conf
    hvmd_start
}

# create NAME [OPTION...]: a small guest, of one vCPU unless said otherwise.
create() {
    local name=$1

    shift
    case " $* " in *" --cpus "*) ;; *) set -- --cpus 1 "$@" ;; esac
    case " $* " in *" --memory "*) ;; *) set -- --memory 512M "$@" ;; esac
    case " $* " in *" --template "*) ;; *) set -- --template debian12 "$@" ;; esac
    hvm create "$name" "$@"
}

state_of() { hvm show "$1" --json | json 'x["state"]'; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }
field() { hvm show "$1" --json | json "x['$2']"; }
uuid_of() { field "$1" uuid; }
# The pid of a guest's QEMU.
qemu_pid() { cat "/run/libvirt/qemu/$1.pid" 2>/dev/null; }

# start_nowait NAME: starts it and does not wait for its agent: for tests that want a domain, not a system.
start_nowait() { hvm start "$1" --no-wait >/dev/null; }

# --- what is left -----------------------------------------------------------------------------------------------------

# Huge pages that the sandbox's guests hold.
pages_taken() { stat -f -c '%b %f' /dev/hugepages | awk '{ print $1 - $2 }'; }

# Lines "KIND NAME" of everything that hvm, libvirt or QEMU left; empty where all is gone. With `off`, guests that are defined but off
# may be: what a guest keeps while it is off is not listed.
leaks() {
    local comm path name

    {
        if [ "${1:-}" = off ]; then
            vsh list --name | sed 's/^/domain /'
        else
            vsh list --all --name | sed 's/^/domain /'
            vsh net-list --all --name | sed 's/^/network /'
            ls "$store/guests" 2>/dev/null | sed 's/^/guest folder /'
            ls "$store/unfinished" 2>/dev/null | sed 's/^/mark of /'
            for path in "$work"/store/images/.staging*; do [ ! -e "$path" ] || echo "staging $path"; done
            ip -o link | sed -n 's/^[0-9]*: \(\(hvm-\|vnet\|virbr\)[^:@]*\).*/link \1/p'
            ip rule list | sed -n 's/.*iif \(hvm-[^ ]*\).*/routing rule of \1/p'
            find /dev/shm -path '/dev/shm/hvm-*/*' | sed 's/^/disk in memory /'
            find /run/hvm/guests -mindepth 1 2>/dev/null | sed 's/^/runtime file /'
            find /etc/libvirt/qemu -name '*.xml' -o -path '*autostart/*' | sed 's/^/libvirt file /'
        fi
        find /dev/hugepages -mindepth 3 2>/dev/null | sed 's/^/huge page file /'
        for path in /proc/[0-9]*; do
            comm=$(cat "$path/comm" 2>/dev/null) || continue
            gone "${path#/proc/}" && continue
            case $comm in
            qemu-* | mmdebstrap | mke2fs | hvm-osinfo) echo "process ${path#/proc/} $comm" ;;
            dnsmasq) [ "${1:-}" = off ] || echo "process ${path#/proc/} $comm" ;;
            esac
        done
        hvm host --json | json '["promise of %s to %s" % (p["cpus"], p["guest"]) for p in x["promises"]]'
        [ "$(pages_taken)" = 0 ] || echo "huge pages: $(pages_taken)"
    } 2>&1 | grep -v '^domain $\|^network $\|^$' || true
}

# no_leaks WHAT [off]: some things (dnsmasq, a socket) take a moment to be gone.
no_leaks() {
    wait_for 10 eval '[ -z "$(leaks '"${2:-}"')" ]'
    is "$1" "$(leaks "${2:-}")" ""
}
