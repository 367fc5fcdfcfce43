#!/bin/bash
# `hvm plan` says beforehand what `hvm start` does: beside running guests, with the node's housekeeping, within the caller's cpuset.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

# plan NAME [OPTION...]: as create, for a guest that is not there.
plan() { hvm plan "$1" --template debian12 --memory 512M --accel tcg "${@:2}"; }
# The PUs of a plan's vCPUs, as `placed` of a guest says them.
planned() { plan "$@" --json | json '",".join(str(v["pu"]) for v in x["vcpus"])'; }
# The refusal of a command, and its status.
refusal() { local said status=0; said=$("$@" 2>&1 >/dev/null) || status=$?; echo "$status $said"; }

create a >/dev/null && create b >/dev/null && create c >/dev/null && create both --cpus 2 --smt any >/dev/null || bail "no guests"
first=$(planned a --cpus 1)
start_nowait a || bail "a does not start"
is "a guest starts where it was planned" "$(field a placed)" "$first"
second=$(planned b --cpus 1)
t "of a running guest's core a plan keeps clear" test "$second" != "$first"
is "in the eyes of others too" "$(as eve hvm plan b --template debian12 --memory 512M --accel tcg --cpus 1 --json |
    json '",".join(str(v["pu"]) for v in x["vcpus"])')" "$second"
like "who do not learn whose it is" "$(as bob hvm host --json | json '[(p["owner"], p["guest"], len(p["cells"])) for p in x["promises"]]')" \
    "^\('another user', '', 1\)$"
is "too many are refused in the words of the start" "$(refusal plan both --cpus 2 --smt any)" "$(refusal hvm start both --no-wait)"
like "with the status of want of room" "$(refusal plan both --cpus 2 --smt any)" "^7 hvm: guest 'both': needs 2 free"
start_nowait b || bail "b does not start"
is "the second starts where it was planned" "$(field b placed)" "$second"
is "none are left, in the words of the start" "$(refusal plan c --cpus 1)" "$(refusal hvm start c --no-wait)"

house=$(housekeeping)
if [ -n "$house" ]; then
    hvm stop --hard b >/dev/null
    like "QEMU's own threads are planned on the housekeeping CPUs" "$(plan b --cpus 1)" "QEMU's own threads run on"
    t "and guests are not" python3 -c 'import sys; sys.exit(sys.argv[1] in sys.argv[2].split(","))' "$(planned b --cpus 1)" "$house"
    start_nowait b
fi

# A batch job on the CPU of a guest that is gone.
hvm stop --hard a >/dev/null
job=$(awk -F: '$2 ~ /(^|,)cpuset(,|$)/ { print "/sys/fs/cgroup/cpuset" $3 "/job" }' /proc/self/cgroup)
in_job() { bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$job" "$@"; }
if [ -n "$job" ] && mkdir -p "$job" && echo "$(field b placed)" >"$job/cpuset.cpus" && cat "${job%/job}/cpuset.mems" >"$job/cpuset.mems"; then
    is "a job whose CPUs are taken is refused, though the node has room" "$(refusal in_job hvm plan c --template debian12 \
        --memory 512M --accel tcg --cpus 1)" "$(refusal in_job hvm start c --no-wait)"
    like "and told so" "$(refusal in_job hvm start c --no-wait)" "the caller's CPUs and memory nodes have 0"
    rmdir "$job"
else
    skip "a job's cpuset bounds a plan" "no cpuset controller of cgroup v1 to make a group in"
fi

hvm destroy a b c both >/dev/null
no_leaks "nothing is left"

# Without libvirt hvmd does not know of guests, without hvmd nobody: the plan is made, and says so.
hvmd_kill
like "without hvmd it is planned all the same, and said" "$(plan x --cpus 1)" "hvmd does not answer: planned as if no guest ran"
libvirt_kill
hvmd_start
like "so it is while hvmd has not heard of any guests" "$(plan x --cpus 1)" "hvmd has not heard from libvirt which guests run"
done_testing
