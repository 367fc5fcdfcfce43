"""The benchmarks of bench/run, inside of the sandbox. See run and README.md.

Times are of whole processes (posix_spawn to wait), unless a row says "call": then of single calls over one open connection
(calls.c). A and B alternate, and which of them goes first alternates too.
"""
import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import boot
import execute
import stats

NULL = os.open("/dev/null", os.O_RDWR)
TEMPLATE = "debian12"
# Small, and not of the pool of huge pages, which the sandbox shares with the machine.
GUEST = ["--template", TEMPLATE, "--cpus", "1", "--memory", "512M", "--pages", "4K"]
BLOCKS = 20  # of creates and of defines
rows = []
notes = []
options = None


# --- running things ---------------------------------------------------------------------------------------------------

def spawn(argv, out=NULL):
    actions = [(os.POSIX_SPAWN_DUP2, NULL, 0), (os.POSIX_SPAWN_DUP2, out, 1)]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)


def timed(argv):
    """Milliseconds of a process; it must end with 0."""
    begin = time.perf_counter()
    pid = spawn(argv)
    _, status = os.waitpid(pid, 0)
    end = time.perf_counter()
    if status != 0:
        sys.exit(f"bench: status {os.waitstatus_to_exitcode(status)} of: {' '.join(argv)}")
    return (end - begin) * 1000


def shell(text):
    """Milliseconds of a pipeline, for bulk."""
    return timed(["bash", "-o", "pipefail", "-c", text])


def output(*argv, check=True, **more):
    return subprocess.run(argv, check=check, stdout=subprocess.PIPE, text=True, **more).stdout.strip()


class Calls:
    """calls.c: microseconds of one call."""

    def __init__(self):
        self.process = subprocess.Popen([f"{options.build}/bench/calls"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ms(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().strip()
        if not line.isdigit():
            sys.exit(f"bench: {' '.join(words)}: {line or 'calls ended'}")
        return int(line) / 1000

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def alternate(rounds, a, b, between=lambda: None):
    """Samples of A and of B, in turn, the first of each round in turn too. One round before counts for nothing."""
    series = ([], [])
    for number in range(-1, rounds):
        for which in ((0, 1) if number % 2 else (1, 0)):
            value = (a, b)[which]()
            if number >= 0:
                series[which].append(value)
            between()
    return series


def cpu_ms(rounds, argv, daemon_pid):
    """Milliseconds of processor time of a command and of the daemon that answers it, each: what the machine's load does not touch."""
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    before, own = ticks(daemon_pid), 0
    for _ in range(rounds):
        usage = os.wait4(spawn(argv), 0)[2]
        own += (usage.ru_utime + usage.ru_stime) * 1000
    return (own + (ticks(daemon_pid) - before) * tick_ms) / rounds


# --- results ----------------------------------------------------------------------------------------------------------

def between(low, high):
    """An interval, or that the rounds are too few for one."""
    return f"{low:.2f}-{high:.2f}" if low is not None else "too few rounds"


def keep(row):
    """A row of the table, printed as soon as it is known."""
    if not rows:
        print("| what | against | hvm | other | ratio (95 %) | rounds | aim |\n| --- | --- | --- | --- | --- | --- | --- |")
    rows.append(row)
    unit = row["unit"]
    if "ratio" in row:
        print(f"| {row['what']} | {row['rival']} | {row['hvm_median']:.2f} {unit} | {row['other_median']:.2f} {unit} | "
              f"{row['ratio']:.2f} ({between(row['low'], row['high'])}) | {row['rounds']} | {row['aim']} |", flush=True)
        return
    value = f"{row['value']:.2f}" if isinstance(row["value"], float) else row["value"]
    spread = f" ({between(row['low'], row['high'])})" if "low" in row else ""
    print(f"| {row['what']} | | {value} {unit}{spread} | | | {row.get('rounds', '')} | {row['aim']} |", flush=True)


def compare(what, rival, a, b, aim, unit="ms"):
    """A row of the table: hvm's A against the rival's B."""
    keep({"what": what, "rival": rival, "unit": unit, "hvm": a, "other": b, "hvm_median": stats.median(a),
          "other_median": stats.median(b), "rounds": len(a), "aim": aim, **stats.ratio(a, b)})


def figure(what, value, aim, unit):
    """A row of hvm's alone: one value, or the median and its interval of a list of samples."""
    row = {"what": what, "aim": aim, "unit": unit}
    if isinstance(value, list):
        found = stats.middle(value)
        keep({**row, "value": found["median"], "low": found["low"], "high": found["high"], "samples": value, "rounds": len(value)})
    else:
        keep({**row, "value": value})


def accelerator():
    """kvm or tcg, as hvm would choose for a guest."""
    xml = output("hvm", "plan", "bare", "--template", TEMPLATE, "--xml")
    return "kvm" if xml.startswith('<domain type="kvm"') else "tcg"


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo") as file:
        memory_kib = int(re.search(r"MemTotal:\s*(\d+)", file.read()).group(1))
    return {"cpus": os.cpu_count(), "model": model.group(1) if model else "unknown", "memory_mib": memory_kib // 1024,
            "kernel": platform.release(), "accel": accelerator(),
            "libvirt": output("virsh", "--version"), "qemu": output("qemu-system-x86_64", "--version").splitlines()[0],
            "date": time.strftime("%Y-%m-%d %H:%M"), "load": os.getloadavg()[0]}


def report(began, load_before):
    where = {**machine(), "load_before": load_before}
    print(f"\n{where['cpus']} x {where['model']}, {where['memory_mib']} MiB, Linux {where['kernel']}, libvirt {where['libvirt']}, "
          f"{where['qemu']} on {where['accel'].upper()}; load {load_before:.1f} before, {where['load']:.1f} at the end; "
          f"{time.time() - began:.0f} s")
    for note in notes:
        print(f"\n{note}")
    if options.json_path:
        with open(options.json_path, "w") as file:
            json.dump({"bench": options.name, "machine": where, "rows": rows, "notes": notes}, file, indent=1)


# --- hvmd and guests --------------------------------------------------------------------------------------------------

def memory_kib(kind="Pss"):
    with open(f"/proc/{options.pid}/smaps_rollup") as file:
        return int(re.search(rf"^{kind}:\s+(\d+)", file.read(), re.M).group(1))


def create_running(name, *more):
    output("hvm", "create", name, *GUEST, *more)
    output("hvm", "start", name, timeout=300)


def ticks(*pids):
    """Processor time of processes, in the kernel's ticks."""
    used = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        used += int(fields[11]) + int(fields[12])
    return used


def libvirt_pid():
    with open("/run/libvirtd.pid") as file:
        return int(file.read())


def settle():
    """Until hvmd and libvirtd have done nothing for a third of a second."""
    pids = (options.pid, libvirt_pid())
    used = None
    while used != (used := ticks(*pids)):
        time.sleep(0.3)


def create_against_define(calls):
    """The medians of blocks of hvmd's Create and of libvirt's define, in turn, with as many domains there.

    hvmd stands still while libvirt's are timed, and has all the time it needs afterwards: each tells it of a domain that is not
    hvm's, whereupon it reads all of them back, and would be in the way of what is timed. g0 is there already.
    """
    created, defined = [], []

    def create_block(numbers):
        created.append(stats.median([calls.ms("create", f"g{number}", TEMPLATE) for number in numbers]))

    def define_block(numbers):
        os.kill(options.pid, signal.SIGSTOP)
        try:
            defined.append(stats.median([calls.ms("define", "g0", "bare") for _ in numbers]))
        finally:
            os.kill(options.pid, signal.SIGCONT)

    for number in range(BLOCKS):
        numbers = range(1 + (options.guests - 1) * number // BLOCKS, 1 + (options.guests - 1) * (number + 1) // BLOCKS)
        for block in ((create_block, define_block) if number % 2 else (define_block, create_block)):
            block(numbers)
            settle()
    return created, defined


def control():
    calls = Calls()
    idle_kib = memory_kib()

    output("hvm", "list")
    first_kib = memory_kib()
    calls.ms("create", "g0", TEMPLATE)
    settle()
    own, bare = create_against_define(calls)
    compare("create, a call (in all)", "libvirt's define", own, bare, "")
    figure("create's own cost, a call", [a - b for a, b in zip(own, bare)], "< 2", "ms")
    full_kib = memory_kib()
    figure("hvmd's PSS, no guest", idle_kib / 1024, "15", "MiB")
    figure("hvmd's PSS, no guest, after a list", first_kib / 1024, "15", "MiB")
    figure(f"hvmd's PSS, {options.guests} guests", full_kib / 1024, "", "MiB")
    figure("hvmd's PSS, each guest", (full_kib - first_kib) / options.guests, "50", "KiB")
    compare(f"list of {options.guests}", "virsh list --all", *alternate(
        options.rounds, lambda: timed(["hvm", "list"]), lambda: timed(["virsh", "-c", "qemu:///system", "list", "--all"])), "0.5")
    compare(f"list of {options.guests}, processor time", "virsh list --all", *alternate(
        max(options.rounds // 4, 1), lambda: cpu_ms(20, ["hvm", "list"], options.pid),
        lambda: cpu_ms(20, ["virsh", "-c", "qemu:///system", "list", "--all"], libvirt_pid())), "0.5")
    compare(f"list of {options.guests}, a call", "all domains and states", *alternate(
        options.rounds, lambda: calls.ms("call", "List"), lambda: calls.ms("domains")), "")
    compare("hvm --version", "virsh --version", *alternate(
        options.rounds, lambda: timed(["hvm", "--version"]), lambda: timed(["virsh", "--version"])), "")
    figure(f"hvmd's PSS, {options.guests} guests, after the lists", memory_kib() / 1024, "", "MiB")
    calls.close()
    names = [f"g{number}" for number in range(options.guests)]
    begin = time.perf_counter()
    output("hvm", "destroy", *names)
    figure("destroy, each", (time.perf_counter() - begin) * 1000 / options.guests, "", "ms")
    figure("hvmd's PSS, all destroyed", memory_kib() / 1024, "", "MiB")


def start():
    output("hvm", "create", "a", *GUEST)
    output("hvm", "start", "a", "--no-wait")
    xml = output("virsh", "-c", "qemu:///system", "dumpxml", "--inactive", "a")
    output("hvm", "stop", "a", "--hard")
    xml = re.sub(r"<metadata>.*</metadata>", "", xml, flags=re.S)
    xml = re.sub(r"<uuid>.*?</uuid>", "", xml).replace("<name>a</name>", "<name>b</name>")
    with open(f"{options.work}/b.xml", "w") as file:
        file.write(xml)
    output("virsh", "-c", "qemu:///system", "define", f"{options.work}/b.xml")

    def ours():
        value = timed(["hvm", "start", "a", "--no-wait"])
        output("hvm", "stop", "a", "--hard")
        return value

    def bare():
        value = timed(["virsh", "-c", "qemu:///system", "start", "b"])
        output("virsh", "-c", "qemu:///system", "destroy", "b")
        return value

    a, b = alternate(options.rounds, ours, bare, lambda: time.sleep(0.3))
    compare("start to running vCPUs", "virsh start", a, b, "1.05")
    output("virsh", "-c", "qemu:///system", "undefine", "b")
    output("hvm", "destroy", "a")


# --- soak -------------------------------------------------------------------------------------------------------------

def left():
    """What is there of guests, by lines "KIND NAME" (inside.sh); some things take a moment to be gone."""
    for _ in range(20):
        found = output("bash", "-ec", "left").splitlines()
        if not found:
            break
        time.sleep(0.5)
    return found


def descriptors():
    return len(os.listdir(f"/proc/{options.pid}/fd"))


def soak():
    argv = ["hvm", "run", *GUEST[1:], "--", "true"]
    before = (memory_kib(), descriptors())
    times, failures = [], []
    path = []
    began = time.monotonic()
    for number in range(options.rounds):
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        begin = time.perf_counter()
        found = subprocess.run(argv, stdin=NULL, stdout=NULL, stderr=subprocess.PIPE, text=True, timeout=300)
        times.append((time.perf_counter() - begin) * 1000)
        if found.returncode:
            failures.append(f"run {number}: {found.returncode}: {found.stderr.strip()}")
        if number % max(options.rounds // 8, 1) == 0:
            path.append((number + 1, memory_kib()))
    remaining = left()
    after = (memory_kib(), descriptors())
    figure(f"{len(times)} runs in a row, each", times, "", "ms")
    figure("of them, failed", len(failures), "0", "")
    figure(f"left after {len(times)} in a row", len(remaining), "0", "things")
    figure("hvmd's PSS before", before[0] / 1024, "", "MiB")
    for number, kib in path:
        figure(f"hvmd's PSS after {number}", kib / 1024, "", "MiB")
    figure("hvmd's PSS after all", after[0] / 1024, "no growth", "MiB")
    figure("hvmd's open descriptors, before and after", f"{before[1]}, {after[1]}", "equal", "")

    together = [subprocess.Popen(argv, stdin=NULL, stdout=NULL, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    words = [process.communicate(timeout=300)[1].strip() for process in together]
    statuses = [process.returncode for process in together]
    remaining_together = left()
    figure("8 at once: that ran", statuses.count(0), "", "")
    figure("8 at once: refused", 8 - statuses.count(0), "", "")
    notes.append("Of 8 at once: " + "; ".join(sorted({f"status {s}: {re.sub('run-[0-9a-f]{8}', 'run-N', w)}"
                                                      for s, w in zip(statuses, words) if s})))
    figure("left after 8 at once", len(remaining_together), "0", "things")
    notes.extend(f"left: {line}" for line in remaining + remaining_together)
    notes.extend(failures)


def main():
    global options
    parser = argparse.ArgumentParser()
    for name in ("--name", "--build", "--store", "--work", "--qga", "--no-qga"):
        parser.add_argument(name)
    for name in ("--pid", "--rounds", "--guests", "--seconds"):
        parser.add_argument(name, type=int)
    parser.add_argument("--json", dest="json_path")
    options = parser.parse_args()
    began, load_before = time.time(), os.getloadavg()[0]
    here = sys.modules[__name__]
    {"boot": lambda: boot.boot(here), "control": control, "start": start, "exec": lambda: execute.execute(here),
     "soak": soak}[options.name]()
    report(began, load_before)


main()
