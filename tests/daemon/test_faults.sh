#!/bin/bash
# Every step of create, start, stop, destroy and of leaving a network is made to fail, and hvmd is killed there. Nothing may leak.
# needs: image pages=320
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin

# The steps are those in the source: a new one is tested without being named here.
steps() { grep -rhoE "step_reached\(\"$1\.[a-z-]+\"" "$source"/vmm/guest "$source"/vmm/runtime "$source"/storage "$source"/network | cut -d'"' -f2 | sort -u; }

# Whatever was left half made is cleared or whole: then the guest can be destroyed, or is not there.
clean_up() {
    local what=$1

    fault_clear
    hvmd_running || hvmd_start
    hvm list --json | json '[g["name"] for g in x["guests"]]' | grep -qx g && t "$what: what is there can be destroyed" hvm destroy g
    no_leaks "$what: nothing is left"
}

# fault STEP ACTION COMMAND...: the command must fail there.
run_fault() {
    local step=$1 action=$2 status=0

    shift 2
    fault_set "$step" "$action"
    out=$("$@" 2>&1) || status=$?
    fault_clear
    if [ "$action" = fail ]; then
        like "$step fails: the command says so" "$status $out" "^14 .*$step"
        hvmd_running || fail "$step fails: hvmd lives"
    else
        wait_for 10 gone "$hvmd_pid"
        is "$step: hvmd is killed" "$(hvmd_running && echo alive || echo dead)" dead
        is "$step: the command tells that hvmd is gone" "$([ $status != 0 ] && echo failed)" failed
        hvmd_start
    fi
}

all=
for action in fail kill; do
    for step in $(steps create); do
        all="$all $step"
        run_fault "$step" $action create g --pages 2M
        [ $action = kill ] || is "$step fails: there is no guest" "$(hvm list --json | json '[g["name"] for g in x["guests"]]')" ""
        clean_up "$step $action"
    done
    for step in $(steps start); do
        all="$all $step"
        create g --pages 2M >/dev/null || bail "no guest"
        run_fault "$step" $action hvm start g --no-wait
        if [ $action = fail ]; then
            is "$step fails: the guest is off" "$(state_of g)" off
            no_leaks "$step fails: nothing of it runs" off
        else
            like "$step, hvmd killed: the guest is off or runs" "$(state_of g)" '^(off|running)$'
            [ "$(state_of g)" = running ] || no_leaks "$step, hvmd killed: nothing of it runs" off
        fi
        clean_up "$step $action"
    done
    for step in $(steps stop); do
        all="$all $step"
        create g --pages 2M >/dev/null && start_nowait g || bail "no running guest"
        run_fault "$step" $action hvm stop --hard g
        like "$step $action: the guest is off or runs" "$(state_of g)" '^(off|running)$'
        [ "$(state_of g)" = running ] || no_leaks "$step $action: nothing of it runs" off
        clean_up "$step $action"
    done
    for step in $(steps destroy); do
        all="$all $step"
        create g --pages 2M >/dev/null && start_nowait g || bail "no running guest"
        run_fault "$step" $action hvm destroy g
        clean_up "$step $action"
    done
done
# The network goes after its owner's last guest: destroy has done its work, and what stays is the next hvmd's to clear.
for step in $(steps release); do
    all="$all $step"
    create g >/dev/null && start_nowait g || bail "no running guest"
    fault_set "$step" fail
    t "$step fails: the guest is destroyed" hvm destroy g
    fault_clear
    like "$step fails: hvmd says what stays" "$(tail -n1 "$log")" "network of user 0 stays.*$step"
    hvmd_kill
    hvmd_start
    no_leaks "$step fails: nothing is left after a restart"
    create g >/dev/null && start_nowait g || bail "no running guest"
    run_fault "$step" kill hvm destroy g
    clean_up "$step kill"
done
is "there were steps of each kind" "$(printf '%s\n' $all | cut -d. -f1 | sort -u | paste -sd' ')" "create destroy release start stop"
t "after all that a guest can be made" create g
t "and started" start_nowait g
t "and destroyed" hvm destroy g
no_leaks "nothing is left"
done_testing
