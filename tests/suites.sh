# shellcheck shell=bash
# The suites of `./setup test`, and how each is run. Sourced by ./setup, from the root of the tree.
#
#   unit    unit tests, under AddressSanitizer and UBSan          build-asan
#   cli     hvm against an hvmd that answers as it is told        build-test
#   golden  requests and hosts -> placement and domain XML        build-test
#   layers  each library links against those above it alone       build-test
#   nodes   NAT and reconnection on a libvirtd of their own       build-test
#   docs    --help against the manual pages, the README           build-test
#   fuzz    each fuzzer for a short while, under both sanitizers  build-fuzz
#   e2e     hvmd against real libvirt, QEMU and guests            build-test
#
# Results are TAP, or Meson's log of TAP; tests/tap_total.py adds them up.

# Those that `meson test` runs in build-test.
meson_suites="cli golden layers nodes docs"
all_suites="unit $meson_suites fuzz e2e"
fuzz_seconds=${HVM_TEST_FUZZ_SECONDS:-10}
results=()
# The long ones are left out of `quick`; of e2e then only these run.
quick_e2e="lifecycle badinput rights"

# Meson's tests of one suite, in the given build folder.
meson_suite() {
    local dir=$1 suite=$2 log=$1/meson-logs/testlog-$2.json

    say "suite $suite"
    rm -f "$log"
    # The total decides, not Meson's status: it counts programs, not tests.
    meson test -C "$dir" --no-rebuild --suite "$suite" --logbase "testlog-$suite" --print-errorlogs || true
    [ ! -s "$log" ] || results+=("$log")
}

# tap_run FILE COMMAND...: runs it, shows its TAP as it comes and keeps it with the status.
tap_run() {
    local file=$1 status=0

    shift
    { "$@" 2>&1 || status=$?; echo "# status $status"; } </dev/null | tee "$file" | grep -v '^# status' || true
    results+=("$file")
}

fuzz_one() {
    local name corpus seeds

    name=$(basename "$1")
    corpus=$(mktemp -d)
    seeds=tests/fuzz/${name#fuzz_}
    if "$1" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$(dirname "$1")/$name-" "$corpus" $([ ! -d "$seeds" ] || echo "$seeds") >"$1.log" 2>&1; then
        echo "ok 1 - $name: $(awk '/number_of_executed_units/ { print $2 }' "$1.log") inputs in $fuzz_seconds s"
    else
        tail -n 40 "$1.log" | sed 's/^/# /'
        echo "not ok 1 - $name"
    fi
    echo 1..1
    rm -rf "$corpus"
}

run_fuzz() {
    local fuzzer

    say "suite fuzz"
    while read -r fuzzer; do
        tap_run "build-fuzz/$(basename "$fuzzer").tap" fuzz_one "$fuzzer"
    done < <(find build-fuzz -type f -name 'fuzz_*' -perm -u+x | sort)
}

run_e2e() {
    local test

    say "suite e2e"
    for test in "$@"; do
        tap_run "build-test/e2e/$test.tap" tests/daemon/run "$test"
    done
}

all_e2e() {
    local file

    for file in tests/daemon/test_*.sh; do
        file=${file##*/test_}
        printf '%s ' "${file%.sh}"
    done
}

wants() { case " $wanted " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# A suite that somebody adds to Meson and not here would never run.
check_suites() {
    local suite

    for suite in $(meson introspect build-test --tests | python3 -c '
import json, sys
print(*sorted({suite.split(":")[-1] for test in json.load(sys.stdin) for suite in test["suite"]}))'); do
        case " $all_suites " in *" $suite "*) ;; *) die "Meson has a suite '$suite' that tests/suites.sh does not know" ;; esac
    done
}

run_suites() {
    local suite wanted="$*" e2e began=$SECONDS

    e2e=$(all_e2e)
    case $wanted in
    '') wanted=$all_suites ;;
    quick) wanted="unit $meson_suites e2e" e2e=$quick_e2e ;;
    esac
    for suite in $wanted; do
        case " $all_suites " in *" $suite "*) ;; *) die "there is no suite '$suite': ${all_suites// /, }, or quick" ;; esac
    done
    # The topologies recorded on real machines lie beside the tree where there are any.
    if [ -z "${HVM_TEST_HOSTS:-}" ] && [ -d ../shared/hosts ]; then
        HVM_TEST_HOSTS=$(readlink -f ../shared/hosts)
        export HVM_TEST_HOSTS
    fi
    if wants unit; then
        build_in build-asan --werror -Dfault_injection=true -Db_sanitize=address,undefined -Db_lundef=false
        meson_suite build-asan unit
    fi
    if [ "$wanted" != unit ] && [ "$wanted" != fuzz ]; then
        build_in build-test --werror -Dfault_injection=true
        mkdir -p build-test/e2e
        check_suites
    fi
    for suite in $meson_suites; do
        ! wants "$suite" || meson_suite build-test "$suite"
    done
    if wants fuzz; then
        CC=clang build_in build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
        run_fuzz
    fi
    ! wants e2e || run_e2e $e2e

    printf '\n'
    say "tests took $((SECONDS - began)) s"
    python3 tests/tap_total.py "${results[@]}"
}
