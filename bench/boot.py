"""bench/run boot: from nothing to the end of `true` in a guest. See docs/boot.md.

A   hvm run T -- true, the whole process.
B1  a bare QEMU, by the shortest command line that boots the same kernel, initrd and root to the same agent, until `true` has
    ended there (agent_true.c).
B2  what a person does without hvm: virt-install --import with the same kernel, initrd and root, whole system, until
    `ssh guest true` ends with 0, tried from when port 22 is open, for which is looked twenty times a second.
"""
import collections
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

ADDRESS, MAC = "192.168.77.9", "52:54:00:77:00:09"
NETWORK = f"""<network><name>bench</name><forward mode='nat'/><bridge name='virbr77' stp='off' delay='0'/>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.9' end='192.168.77.9'/>
<host mac='{MAC}' ip='{ADDRESS}'/></dhcp></ip></network>"""
MEMORY = "1024"
POLL_S = 0.05
ATTEMPTS = 3  # about one boot in 300 hangs in the kernel under emulation


class Image:
    """The newest image of the template."""

    def __init__(self, m):
        self.folder = sorted(glob.glob(f"{m.options.store}/images/{m.TEMPLATE}/*"))[-1]
        self.root, self.kernel, self.initrd, self.quick, self.vmlinux = (
            f"{self.folder}/{name}" for name in ("root.raw", "vmlinuz", "initrd", "initrd-agent", "vmlinux"))


def planned(m):
    """Accelerator and kernel arguments of `hvm run`, as its plan tells them."""
    xml = m.output("hvm", "plan", "bare", "--template", m.TEMPLATE, "--init", "agent", "--xml")
    return m.accelerator(), re.search("<cmdline>(.*)</cmdline>", xml).group(1)


def remains(m):
    """What hvmd takes away last of a guest: its folders on disk and in memory, its sockets, its owner's network."""
    return [path for pattern in (f"{m.options.store}/guests/*", "/dev/shm/hvm-*/*", "/run/hvm/guests/*", "/sys/class/net/hvm-*",
                                 "/run/libvirt/network/hvm-*.xml", "/etc/libvirt/qemu/networks/hvm-*.xml") for path in glob.glob(pattern)]


def wait_idle(m):
    """Until nothing of the last guest is left, neither a thing nor a promise; milliseconds from the call."""
    begin = time.perf_counter()
    while True:
        while found := remains(m):
            if time.perf_counter() - begin > 60:
                sys.exit(f"bench: a guest stays behind: {', '.join(found)}")
            time.sleep(0.002)
        value = (time.perf_counter() - begin) * 1000
        found = [promise["guest"] for promise in json.loads(m.output("hvm", "host", "--json"))["promises"]]
        if not found:
            return value
        if time.perf_counter() - begin > 60:
            sys.exit(f"bench: cores stay promised to {', '.join(found)}")


def bare_qemu(m, image, accel, arguments):
    """Milliseconds until the agent of a bare QEMU has run `true`."""
    sock = f"{m.options.work}/bare.sock"
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", accel, "-cpu", "max" if accel == "tcg" else "host", "-m", MEMORY,
            "-nodefaults", "-display", "none", "-kernel", image.vmlinux, "-initrd", image.quick, "-append", arguments,
            "-drive", f"file={image.root},format=raw,if=virtio,snapshot=on", "-device", "virtio-serial",
            "-chardev", f"socket,id=a,path={sock},server=on,wait=off", "-device", "virtserialport,chardev=a,name=io.hvm1.agent"]
    for _ in range(ATTEMPTS):
        if os.path.exists(sock):
            os.unlink(sock)
        begin = time.perf_counter()
        qemu = m.spawn(argv)
        _, status = os.waitpid(m.spawn([f"{m.options.build}/bench/agent_true", sock, "120"]), 0)
        end = time.perf_counter()
        os.kill(qemu, 9)
        os.waitpid(qemu, 0)
        if status == 0:
            return (end - begin) * 1000
        m.notes.append("A boot of the bare QEMU did not come up in 120 s: not counted, and done again.")
    sys.exit("bench: the bare QEMU does not boot")


class ByHand:
    """A root whose ssh lets us in, a network that knows the address, and virt-install."""

    def __init__(self, m, image, accel):
        self.m, self.accel = m, accel
        # Copies: libvirt gives what virt-install names to QEMU's user, and the image is shared with other tests.
        self.kernel, self.initrd = (shutil.copy(path, m.options.work) for path in (image.kernel, image.initrd))
        self.key, self.base, self.disk = (f"{m.options.work}/{name}" for name in ("hand-id", "hand-base.qcow2", "hand.qcow2"))
        m.output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        m.create_running("hand")
        with open(f"{self.key}.pub") as file:
            m.output("hvm", "exec", "hand", "--", "sh", "-c", "mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", stdin=file)
        # The keys of the host are there, as in an image that a person made: making them is no part of a boot.
        m.output("hvm", "exec", "hand", "--", "systemctl", "start", "hvm-ssh-keys.service", timeout=120)
        m.output("hvm", "stop", "hand")
        disk = glob.glob(f"{m.options.store}/guests/*/root.qcow2")[0]
        m.output("qemu-img", "convert", "-O", "qcow2", disk, self.base)
        m.output("hvm", "destroy", "hand")
        path = f"{m.options.work}/bench-net.xml"
        with open(path, "w") as file:
            file.write(NETWORK)
        m.output("virsh", "-q", "-c", "qemu:///system", "net-create", path)

    def port_is_open(self):
        """Whether something listens on port 22; an answer that does not come within 50 ms is none."""
        with socket.socket() as sock:
            sock.settimeout(POLL_S)
            begin = time.perf_counter()
            if sock.connect_ex((ADDRESS, 22)) == 0:
                return True
            time.sleep(max(begin + POLL_S - time.perf_counter(), 0))
            return False

    def ssh(self):
        return self.port_is_open() and subprocess.run(
            ["ssh", "-F", "none", "-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
             "LogLevel=ERROR", "-o", "BatchMode=yes", f"root@{ADDRESS}", "true"],
            stdin=self.m.NULL, stdout=self.m.NULL, stderr=self.m.NULL, timeout=60).returncode == 0

    def attempt(self):
        """Milliseconds, or None where the guest did not come up."""
        m = self.m
        m.output("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.base, self.disk)
        begin = time.perf_counter()
        m.timed(["virt-install", "-q", "--connect", "qemu:///system", "--import", "--name", "byhand", "--memory", MEMORY, "--vcpus", "1",
                 "--virt-type", "qemu" if self.accel == "tcg" else "kvm", "--disk", f"path={self.disk},bus=virtio", "--network",
                 f"network=bench,mac={MAC}", "--graphics", "none", "--noautoconsole", "--osinfo", "debian11", "--boot",
                 f"kernel={self.kernel},initrd={self.initrd},kernel_args=root=/dev/vda rw console=ttyS0"])
        up = False
        while not up and time.perf_counter() - begin < 240:
            up = self.ssh()
        value = (time.perf_counter() - begin) * 1000
        m.output("virsh", "-q", "-c", "qemu:///system", "destroy", "byhand")
        m.output("virsh", "-q", "-c", "qemu:///system", "undefine", "byhand")
        return value if up else None

    def ms(self):
        for _ in range(ATTEMPTS):
            if value := self.attempt():
                return value
            self.m.notes.append("A guest of virt-install did not come up in 240 s: not counted, and done again.")
        sys.exit("bench: no ssh to the guest of virt-install")

    def close(self):
        self.m.output("virsh", "-q", "-c", "qemu:///system", "net-destroy", "bench")


# What lasts from a line of `hvm run --verbose` to the next; QEMU's start is the kernel's, from /proc.
START, QEMU_STARTS, END = "hvm starts", "QEMU starts", "hvm has ended"
PHASES = {
    START: "hvm's own start",
    "asking hvmd for a guest": "connecting and asking",
    "looking at the node": "plan",
    "making its disk": "disk",
    "finding cores and pages": "plan",
    "joining its network": "network",
    "starting it on": "libvirt, until QEMU's process is there",
    QEMU_STARTS: "QEMU, until its vCPUs run and its threads are checked",
    "booting": "kernel and agent",
    "starting the command": "command",
    "the command has ended": "hvm's own end",
    END: "teardown, after hvm has ended",
}


def qemu_start():
    """When the QEMU of the one guest there is was started, by perf_counter(): the middle of that tick of 10 ms of the kernel's."""
    with open(glob.glob("/run/libvirt/qemu/run-*.pid")[0]) as file:
        pid = file.read().strip()
    with open(f"/proc/{pid}/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - time.perf_counter()
    return (ticks + 0.5) / os.sysconf("SC_CLK_TCK") - since_boot


def traced(m, argv):
    """One `hvm run --verbose`: {line: seconds by perf_counter()} in their order, and what its command printed: [(seconds, line)]."""
    begin, said, printed = time.perf_counter(), {}, []
    base = qemu = again = None
    process = subprocess.Popen(argv[:2] + ["--verbose"] + argv[2:], stdin=m.NULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    for line in process.stdout:
        now = time.perf_counter()
        found = re.match(r" *([0-9.]+) ms  (.*)$", line)
        if not found:
            printed.append((now, line.strip()))
            continue
        since_s, text = float(found.group(1)) / 1000, found.group(2)
        # Its own times are exact; when they began, the line tells which came through the pipe quickest.
        base = min(base or now, now - since_s)
        key = next((key for key in PHASES if text.startswith(key)), None)
        if not key:
            sys.exit(f"bench: `hvm run --verbose` says what PHASES does not know: {text}")
        if text.startswith("booting it once more"):
            again = text
        elif key == "booting":
            qemu = qemu_start()
        said.setdefault(key, since_s)
    end = time.perf_counter()
    if process.wait():
        sys.exit(f"bench: status {process.returncode}: {printed}")
    if again:
        m.notes.append(f"`hvm run --verbose` was {again}: its phases are not counted.")
        wait_idle(m)
        return traced(m, argv)
    at = {START: begin}
    for key, since_s in said.items():
        if key == "booting":
            at[QEMU_STARTS] = qemu
        at[key] = base + since_s
    return {**at, END: end}, printed


def phases(m, label, options, rounds):
    """Where the time of `hvm run -- true` goes. These add up to all of it, and to what is left to do when it has ended."""
    series = collections.defaultdict(list)
    for _ in range(rounds):
        at, _ = traced(m, [*options, "true"])
        spent = collections.Counter()
        for (key, begin), end in zip(at.items(), list(at.values())[1:]):
            spent[PHASES[key]] += (end - begin) * 1000
        spent[PHASES[END]] = wait_idle(m)
        for name, value in spent.items():
            series[name].append(value)
    for name, values in series.items():
        m.figure(f"phase, {label}: {name}", values, "", "ms")


def guest_phases(m, label, options, rounds):
    """The same boot by the guest's own clock, from QEMU's start to the first that a command of its does: a shell tells the time."""
    series = collections.defaultdict(list)
    for _ in range(rounds):
        at, printed = traced(m, [*options, "sh", "-c", "read -r up idle </proc/uptime; echo $up; exec dmesg"])
        arrived, uptime = printed[0][0], float(printed[0][1])
        found = [re.match(r"\[ *([0-9.]+)\] Run /init as init process", line) for _, line in printed]
        init = next(float(match.group(1)) for match in found if match)
        series["QEMU and firmware, until the kernel's clock begins"].append((arrived - at[QEMU_STARTS] - uptime) * 1000)
        series["kernel, until it runs init"].append(init * 1000)
        series["init and agent, until a command runs"].append((uptime - init) * 1000)
        wait_idle(m)
    for name, values in series.items():
        m.figure(f"in the guest, {label}: {name}", values, "", "ms")


def boot(m):
    image = Image(m)
    accel, arguments = planned(m)
    run = ["hvm", "run", "--memory", f"{MEMORY}M", "--pages", "4K"]
    alone = run + ["--network", "none", m.TEMPLATE, "--"]
    connected = run + [m.TEMPLATE, "--"]
    half = max(m.options.rounds // 2, 1)

    m.compare("run -- true, no network", "bare QEMU to the same agent", *m.alternate(
        m.options.rounds, lambda: m.timed(alone + ["true"]), lambda: bare_qemu(m, image, accel, arguments), lambda: wait_idle(m)), "1.15")
    for label, argv in (("no network", alone), ("with network", connected)):
        phases(m, label, argv, half)
        guest_phases(m, label, argv, half)
    by_hand = ByHand(m, image, accel)
    m.compare("run -- true, with network", "virt-install --import, ssh true", *m.alternate(
        half, lambda: m.timed(connected + ["true"]), by_hand.ms, lambda: wait_idle(m)), "0.125")
    by_hand.close()
    m.notes.append("Bare QEMU has no network card, no random device, no console, and a temporary overlay (snapshot=on).")
    m.notes.append("QEMU's start is known to 5 ms, the guest's uptime to 10 ms.")
