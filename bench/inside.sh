#!/bin/bash
# The inside of bench/run, in the sandbox of the end-to-end tests: libvirtd and hvmd, then measure.py.
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"

# Everybody's hvmd puts disks into /dev/shm: on a file system of our own, as large as the machine's, what is left there is ours.
private_memory() {
    local blocks bytes

    [ "$(stat -f -c %T /dev/shm)" = tmpfs ] || return 0
    read -r blocks bytes < <(stat -f -c '%b %S' /dev/shm)
    mount -t tmpfs -o "mode=1777,size=$((blocks * bytes))" tmpfs /dev/shm
}

# Lines "KIND NAME" of what is there of guests; measure.py asks too.
left() {
    leaks
    find /dev/shm -mindepth 2 -path '/dev/shm/hvm-*' | sed 's/^/disk in memory /'
}
export -f left leaks vsh gone json pages_taken
export store work

private_memory
begin
python3 -B "$HVM_TEST_SOURCE/bench/measure.py" --pid "$hvmd_pid" --build "$build" --store "$store" --work "$work" "$@"
status=$?
[ $status = 0 ] || show_log
wait_for 10 eval '[ -z "$(left)" ]'
is "nothing is left" "$(left)" "" || status=1
exit $status
