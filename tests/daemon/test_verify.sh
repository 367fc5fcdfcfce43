#!/bin/bash
# hvm verify on a real guest: what the kernel does is what was promised, and what somebody changes behind hvm's back is found.
# needs: image pages=160
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

# rows FILTER: the findings for which it is true, as "WHAT: FOUND".
rows() { hvm verify --all --json | json "['%s: %s' % (r['what'], r['found']) for r in x['findings'] if $1]"; }
# vcpu FILE: of vCPU 0's thread in /proc.
vcpu() { grep -l '^CPU 0' /proc/"$(qemu_pid g1)"/task/*/comm | sed "s|comm\$|$1|"; }

t "verify of no guest finds nothing" hvm verify --all
t "a guest starts on huge pages" create g1 --cpus 1 --memory 256M --pages 2M --smt any --start
pu=$(field g1 placed)
t "what the kernel does is what was promised" hvm verify --all
is "no line differs" "$(rows "r['state'] != 'ok'")" ""
is "its vCPU is where it says" "$(rows "r['what'] == 'vCPU 0'")" "vCPU 0: PU $pu"
like "its I/O thread was looked at" "$(rows "r['what'].startswith('I/O thread')")" '^I/O thread [0-9]+: PU'
like "its memory is in 2M pages" "$(rows "r['what'] == 'cell 0 memory'")" '^cell 0 memory: 256M on node [0-9]+ in 2M pages$'
like "its memory nodes were looked at" "$(rows "r['what'] == 'allocations'")" '^allocations: node [0-9]+$'

# differs WHAT REGEX: the table has such a line, and the exit status says that something differs.
differs() {
    local what=$1 regex=$2 status=0 table

    table=$(hvm verify g1) || status=$?
    like "$what" "$table" "$regex" && is "$what: the exit status" "$status" 8
}

# Beside the vCPU's thread another PU: of the sandbox's own, so that a cgroup can allow it.
other=$(lscpu -p=CPU | grep -v '^#' | awk -v pu="$pu" '$1 != pu { print; exit }')
group=$(sed -n 's/^[0-9]*:cpuset://p' "$(vcpu cgroup)")
group=${group:+/sys/fs/cgroup/cpuset$group}
[ -n "$group" ] || group=/sys/fs/cgroup$(sed -n 's/^0:://p' "$(vcpu cgroup)")
if [ -w "$group/cpuset.cpus" ]; then
    like "its vCPU's cgroup was looked at" "$(rows "r['what'] == 'vCPU 0 cgroup'")" "^vCPU 0 cgroup: PU $pu, node [0-9]+\$"
    echo "$pu,$other" >"$group/cpuset.cpus"
    differs "a cgroup made wider is found" "vCPU 0 cgroup +differs +PU $pu, node [0-9]+ +PUs [0-9,-]+, node [0-9]+"
else
    like "that libvirt has no cpuset is said" "$(rows "r['what'] == 'vCPU 0 cgroup'")" "no cpuset"
fi
tid=$(vcpu '')
t "a vCPU is moved away" taskset -pc "$other" "$(basename "$tid")"
differs "that is found" "vCPU 0 +differs +PU $pu +PU $other"
t "it is moved back" taskset -pc "$pu" "$(basename "$tid")"
[ ! -w "$group/cpuset.cpus" ] || echo "$pu" >"$group/cpuset.cpus"
t "and all is as promised" hvm verify --all

t "it stops" hvm stop --hard g1
refuses "nothing is promised to a guest that is off" 6 "g1.*off" hvm verify g1
t "verify of all passes it over" hvm verify --all
hvm destroy g1 >/dev/null
no_leaks "nothing is left"
done_testing
