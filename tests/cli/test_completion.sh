#!/bin/bash
# The completion, as bash runs it: test_completion.sh HVM COMPLETION
hvm=$(realpath "$1")
HVM_SOCKET=/nonexistent/hvmd.sock
export HVM_SOCKET
. "$2"
number=0
# completes WANTED WORD...: what is offered for the last word
completes() {
    local wanted=$1
    shift
    COMP_WORDS=("$hvm" "$@")
    COMP_CWORD=$#
    COMPREPLY=()
    _hvm
    number=$((number + 1))
    if [ "${COMPREPLY[*]}" = "$wanted" ]; then
        echo "ok $number - $*"
    else
        echo "not ok $number - $*: wanted '$wanted', found '${COMPREPLY[*]}'"
    fi
}
completes "start stop" st
completes "list show build remove" template ""
completes "--smt" create x --sm
completes "siblings isolate any" create x --smt ""
completes "siblings isolate any" create x --smt "="
completes "isolate" create x --smt = is
completes "" exec g -- ""
completes "console" cons
completes "--read-only" console --re
completes "--cwd --cpus" shell --c
completes "" cp "g:"
echo "1..$number"
