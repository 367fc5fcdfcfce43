#!/bin/bash
# A batch job's cpuset bounds what its processes may ask for: refused, not clipped, and refused where it cannot be read.
# needs: image
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

if [ -e /sys/fs/cgroup/cpuset/cpuset.effective_cpus ]; then
    job=/sys/fs/cgroup/cpuset/job
    effective=cpuset.effective_cpus
    nodes=$(cat /sys/fs/cgroup/cpuset/cpuset.effective_mems)
else
    job=/sys/fs/cgroup/job
    effective=cpuset.cpus.effective
    nodes=$(cat /sys/fs/cgroup/cpuset.mems.effective 2>/dev/null)
    echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control
fi
mkdir "$job" && [ -e "$job/$effective" ] || bail "no cpuset cgroup can be made in the sandbox"
# The last core that the configuration leaves to guests: first fit would take another.
pu=$(lscpu -p=CPU,CORE | grep -v '^#' | awk -F, -v cores=$cores '!($2 in core) { core[$2] = n++; if (n <= cores) pu = $1 } END { print pu }')
echo "$pu" >"$job/cpuset.cpus"
echo "$nodes" >"$job/cpuset.mems"
is "a job has one PU" "$(cat "$job/$effective")" "$pu"

# in_job COMMAND...: as a process of the job's.
in_job() { sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$job" "$@"; }

few="the caller's CPUs and memory nodes have 1"
refuses "a job of one PU gets no guest of two vCPUs" 7 "^hvm: guest 'two' could never fit this node: needs 2 .*; $few" in_job hvm create two --template debian12 --cpus 2 --smt any
is "nothing of it is made" "$(hvm list --json | json 'len(x["guests"])')" 0
refuses "nor one for a command" 125 "needs 2 .*; $few" in_job hvm run debian12 --cpus 2 --smt any -- true
t "from outside the job it is created" hvm create two --template debian12 --cpus 2 --memory 512M --pages 4K --smt any
refuses "but does not start from inside" 7 "^hvm: guest 'two': needs 2 free .*; $few" in_job hvm start two --no-wait
t "it is destroyed from inside" in_job hvm destroy two

t "one vCPU is what the job has" in_job hvm create one --template debian12 --cpus 1 --memory 512M --pages 4K --smt any
t "it starts" in_job hvm start one --no-wait
is "it is placed on the job's PU" "$(field one placed)" "$pu"
is "and runs there" "$(awk '/^Cpus_allowed_list/ { print $2 }' "$(grep -l '^CPU 0' /proc/"$(qemu_pid one)"/task/*/comm | sed 's/comm$/status/')")" "$pu"
refuses "the job is full then" 7 "^hvm: guest 'more': needs 1 free" sh -c 'hvm create more --template debian12 --cpus 1 --memory 512M --pages 4K --smt any &&
    echo $$ >"$0/cgroup.procs" && exec hvm start more --no-wait' "$job"
t "the rest of the node is not" hvm start more --no-wait
hvm destroy more >/dev/null
t "it is destroyed" in_job hvm destroy one

# A cpuset that says nothing is not taken for one that allows everything.
: >"$work/nothing"
mount --bind "$work/nothing" "$job/$effective"
why="cannot tell which CPUs and memory nodes the caller may use: .*/job/$effective: wanted a list of numbers such as 0-3,8, found nothing"
refuses "a caller whose cpuset cannot be read creates nothing" 5 "^hvm: guest 'none': $why" in_job hvm create none --template debian12 --cpus 1 --memory 512M --pages 4K
t "but looks" in_job hvm list
t "from outside the job a guest is created" create kept --pages 4K
refuses "such a caller does not start it" 5 "^hvm: guest 'kept': $why" in_job hvm start kept --no-wait
t "but destroys it" in_job hvm destroy kept
umount "$job/$effective"
no_leaks "nothing is left"
done_testing
