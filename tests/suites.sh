# shellcheck shell=bash
# The suites of `./setup test`, and how each is run. Sourced by ./setup, from the root of the tree.
#
#   unit    unit tests, under AddressSanitizer and UBSan          build-asan
#   golden  requests and hosts -> placement and domain XML        build-test
#   cli     hvm and its client against a small hvmd              build-test
#   layers  each library links against those above it alone       build-test
#   nodes   NAT and reconnection on a libvirtd of their own     build-test
#   docs    --help against the manual pages, the README           build-test
#   fuzz    each fuzzer for a short while                         build-fuzz
#   e2e     hvmd against real libvirt, QEMU and guests            build-test
#
# Results are TAP, or Meson's log of TAP; tests/tap_total.py adds them up.

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

run_suites() {
    local suite wanted="$*" e2e began=$SECONDS

    e2e=$(all_e2e)
    case $wanted in
    '') wanted="unit golden cli layers nodes docs fuzz e2e" ;;
    quick) wanted="unit golden cli layers docs e2e" e2e=$quick_e2e ;;
    esac
    for suite in $wanted; do
        case $suite in
        unit | golden | cli | layers | nodes | docs | fuzz | e2e) ;;
        *) die "there is no suite '$suite': unit, golden, cli, layers, nodes, docs, fuzz, e2e, or quick" ;;
        esac
    done
    # The topologies recorded on real machines lie beside the tree where there are any.
    if [ -z "${HVM_TEST_HOSTS:-}" ] && [ -d ../shared/hosts ]; then
        HVM_TEST_HOSTS=$(readlink -f ../shared/hosts)
        export HVM_TEST_HOSTS
    fi
    case " $wanted " in *" unit "*)
        build_in build-asan --werror -Dfault_injection=true -Db_sanitize=address,undefined -Db_lundef=false
        meson_suite build-asan unit
        ;;
    esac
    case " $wanted " in *" golden "* | *" cli "* | *" layers "* | *" nodes "* | *" docs "* | *" e2e "*)
        build_in build-test --werror -Dfault_injection=true
        mkdir -p build-test/e2e
        ;;
    esac
    for suite in golden cli layers nodes docs; do
        case " $wanted " in *" $suite "*) meson_suite build-test $suite ;; esac
    done
    case " $wanted " in *" fuzz "*)
        CC=clang build_in build-fuzz -Dfuzz=true -Db_lundef=false
        run_fuzz
        ;;
    esac
    case " $wanted " in *" e2e "*) run_e2e $e2e ;; esac

    printf '\n'
    say "tests took $((SECONDS - began)) s"
    python3 tests/tap_total.py "${results[@]}"
}
