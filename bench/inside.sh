#!/bin/bash
# The inside of bench/run, in the sandbox of the end-to-end tests: libvirtd and hvmd, then measure.py.
. "$HVM_TEST_SOURCE/tests/daemon/lib.sh"
begin
export HVM_BENCH_LOG=$log
leaks >"$work/leaks.before"
python3 -B "$HVM_TEST_SOURCE/bench/measure.py" --pid "$hvmd_pid" --build "$build" --store "$store" --work "$work" "$@"
status=$?
[ $status = 0 ] || show_log
no_leaks "nothing is left" || status=1
exit $status
