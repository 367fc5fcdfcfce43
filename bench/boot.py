"""bench/run boot: from nothing to the end of `true` in a guest. See boot.md.

A   hvm run T -- true, the whole process.
B1  a bare QEMU, by the shortest command line that boots the same kernel, initrd and root to the same agent, until `true` has
    ended there (agent_true.c).
B2  what a person does without hvm: virt-install --import with the same kernel, initrd and root, whole system, until
    `ssh guest true` ends with 0, tried ten times a second.
"""
import glob
import os
import re
import subprocess
import sys
import time

ADDRESS, MAC = "192.168.77.9", "52:54:00:77:00:09"
NETWORK = f"""<network><name>bench</name><forward mode='nat'/><bridge name='virbr77' stp='off' delay='0'/>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.9' end='192.168.77.9'/>
<host mac='{MAC}' ip='{ADDRESS}'/></dhcp></ip></network>"""
MEMORY = "1024"


class Image:
    """The newest image of the template."""

    def __init__(self, m):
        self.folder = sorted(glob.glob(f"{m.options.store}/images/{m.TEMPLATE}/*"))[-1]
        self.root, self.kernel, self.initrd, self.quick, self.vmlinux = (
            f"{self.folder}/{name}" for name in ("root.raw", "vmlinuz", "initrd", "initrd-agent", "vmlinux"))


def planned(m):
    """Accelerator and kernel arguments of `hvm run`, as its plan tells them."""
    xml = m.output("hvm", "plan", "bare", "--template", m.TEMPLATE, "--init", "agent", "--xml")
    return "kvm" if re.match('<domain type="kvm"', xml) else "tcg", re.search("<cmdline>(.*)</cmdline>", xml).group(1)


def wait_idle(m):
    """Until nothing of the last guest is left; milliseconds."""
    begin = time.perf_counter()
    while glob.glob(f"{m.options.store}/guests/*"):
        if time.perf_counter() - begin > 60:
            sys.exit("bench: a guest stays behind")
        time.sleep(0.002)
    return (time.perf_counter() - begin) * 1000


def bare_qemu(m, image, accel, arguments):
    """Milliseconds until the agent of a bare QEMU has run `true`."""
    sock = f"{m.options.work}/bare.sock"
    if os.path.exists(sock):
        os.unlink(sock)
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", accel, "-cpu", "max" if accel == "tcg" else "host", "-m", MEMORY,
            "-nodefaults", "-display", "none", "-kernel", image.vmlinux, "-initrd", image.quick, "-append", arguments,
            "-drive", f"file={image.root},format=raw,if=virtio,snapshot=on", "-device", "virtio-serial",
            "-chardev", f"socket,id=a,path={sock},server=on,wait=off", "-device", "virtserialport,chardev=a,name=io.hvm1.agent"]
    begin = time.perf_counter()
    qemu = m.spawn(argv)
    m.timed([f"{m.options.build}/bench/agent_true", sock, "120"])
    end = time.perf_counter()
    os.kill(qemu, 9)
    os.waitpid(qemu, 0)
    return (end - begin) * 1000


class ByHand:
    """A root whose ssh lets us in, a network that knows the address, and virt-install."""

    def __init__(self, m, image, accel):
        self.m, self.image, self.accel = m, image, accel
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

    def ssh(self):
        return subprocess.run(
            ["ssh", "-F", "none", "-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
             "LogLevel=ERROR", "-o", "ConnectTimeout=2", "-o", "BatchMode=yes", f"root@{ADDRESS}", "true"],
            stdin=self.m.NULL, stdout=self.m.NULL, stderr=self.m.NULL, timeout=60).returncode == 0

    def ms(self):
        m = self.m
        m.output("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.base, self.disk)
        begin = time.perf_counter()
        m.timed(["virt-install", "-q", "--connect", "qemu:///system", "--import", "--name", "byhand", "--memory", MEMORY, "--vcpus", "1",
                 "--virt-type", "qemu" if self.accel == "tcg" else "kvm", "--disk", f"path={self.disk},bus=virtio", "--network",
                 f"network=bench,mac={MAC}", "--graphics", "none", "--noautoconsole", "--osinfo", "debian11", "--boot",
                 f"kernel={self.image.kernel},initrd={self.image.initrd},kernel_args=root=/dev/vda rw console=ttyS0"])
        while not self.ssh():
            if time.perf_counter() - begin > 300:
                sys.exit("bench: no ssh to the guest of virt-install")
            time.sleep(0.1)
        value = (time.perf_counter() - begin) * 1000
        m.output("virsh", "-q", "-c", "qemu:///system", "destroy", "byhand")
        m.output("virsh", "-q", "-c", "qemu:///system", "undefine", "byhand")
        return value

    def close(self):
        self.m.output("virsh", "-q", "-c", "qemu:///system", "net-destroy", "bench")


def phases(m, argv, rounds):
    """Where the time of `hvm run` goes: from its own lines, and the time until nothing is left."""
    names, series = [], {}
    for _ in range(rounds):
        found = subprocess.run(argv[:2] + ["--verbose"] + argv[2:], stdin=m.NULL, stdout=m.NULL, stderr=subprocess.PIPE, text=True,
                               timeout=300)
        if found.returncode:
            sys.exit(f"bench: status {found.returncode}: {found.stderr}")
        gone = wait_idle(m)
        lines = re.findall(r"^ *([0-9.]+) ms  (.*)$", found.stderr, re.M)
        for (at, name), (then, _) in zip(lines, lines[1:]):
            series.setdefault(name, []).append(float(then) - float(at))
            if name not in names:
                names.append(name)
        series.setdefault("teardown, after hvm has ended", []).append(gone)
    for name in names + ["teardown, after hvm has ended"]:
        m.figure(f"phase: {name}", series[name], "", "ms")


def boot(m):
    image = Image(m)
    accel, arguments = planned(m)
    run = ["hvm", "run", "--memory", f"{MEMORY}M", "--pages", "4K"]
    alone = run + ["--network", "none", m.TEMPLATE, "--", "true"]
    connected = run + [m.TEMPLATE, "--", "true"]

    m.compare("run -- true, no network", "bare QEMU to the same agent", *m.alternate(
        m.options.rounds, lambda: m.timed(alone), lambda: bare_qemu(m, image, accel, arguments), lambda: wait_idle(m)), "1.15")
    phases(m, alone, max(m.options.rounds // 2, 1))
    by_hand = ByHand(m, image, accel)
    m.compare("run -- true, with network", "virt-install --import, ssh true", *m.alternate(
        max(m.options.rounds // 2, 1), lambda: m.timed(connected), by_hand.ms, lambda: wait_idle(m)), "0.125")
    by_hand.close()
    m.notes.append("Bare QEMU has no network card, no random device, no console, and a temporary overlay (snapshot=on).")
