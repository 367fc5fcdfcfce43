#include "guest_files.h"

#include <string.h>

#define MASKED "/dev/null"
#define UNITS "etc/systemd/system/"

const GuestFile guest_files_early[] = {
    /* The disk and the agent's port, and nothing else: 10 MB less to unpack than MODULES=most. */
    {"etc/initramfs-tools/conf.d/hvm", 0644, "MODULES=list\nBUSYBOX=n\nFSTYPE=ext4\nRESUME=none\nCOMPRESS=gzip\n"},
    {"usr/share/initramfs-tools/modules.d/hvm", 0644, "virtio_pci\nvirtio_blk\nvirtio_console\npvpanic_mmio\n"},
    {0},
};

const char *const guest_dpkg_options[] = {
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    NULL,
};

const GuestFile guest_files[] = {
    /*
     * The agent starts long before the network, but after /tmp has been emptied (tmpfiles.d(5)); it waits for its port
     * itself, and grows the root file system before it answers.
     * SIGPIPE and the limits are what its commands inherit: those of a login, and locked memory for RDMA.
     */
    {"usr/lib/systemd/system/hvm-agent.service", 0644,
     "[Unit]\n"
     "Description=hvm guest agent\n"
     "DefaultDependencies=no\n"
     "After=systemd-remount-fs.service systemd-tmpfiles-setup.service\n"
     "Conflicts=shutdown.target\n"
     "Before=shutdown.target\n"
     "StartLimitIntervalSec=0\n"
     "\n"
     "[Service]\n"
     "ExecStart=/usr/lib/hvm/hvm-agent --grow-root\n"
     "Restart=always\n"
     "RestartSec=500ms\n"
     "IgnoreSIGPIPE=no\n"
     "LimitMEMLOCK=infinity\n"
     "TasksMax=infinity\n"
     "\n"
     "[Install]\n"
     "WantedBy=sysinit.target\n"},

    /* Names differ with the devices (enp1s0, enp2s0); the lease goes by MAC so that dnsmasq's reservations hold. */
    {"etc/systemd/network/80-hvm.network", 0644,
     "[Match]\n"
     "Name=en* eth*\n"
     "\n"
     "[Network]\n"
     "DHCP=yes\n"
     "LLMNR=no\n" /* names are the network's to give, not a neighbour's */
     "\n"
     "[DHCPv4]\n"
     "ClientIdentifier=mac\n"
     "UseDomains=yes\n"},

    /* The first connection makes the keys: under emulation they would cost each boot a second or more. */
    {"usr/lib/systemd/system/hvm-ssh-keys.service", 0644,
     "[Unit]\n"
     "Description=Make this guest's ssh host keys\n"
     "ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n"
     "Before=ssh.service\n"
     "\n"
     "[Service]\n"
     "Type=oneshot\n"
     "RemainAfterExit=yes\n"
     "ExecStart=/usr/bin/ssh-keygen -q -t ecdsa -N \"\" -f /etc/ssh/ssh_host_ecdsa_key\n"
     "ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -f /etc/ssh/ssh_host_ed25519_key\n"},
    {UNITS "ssh.service.d/hvm.conf", 0644, "[Unit]\nRequires=hvm-ssh-keys.service\nAfter=hvm-ssh-keys.service\n"},
    {UNITS "ssh@.service.d/hvm.conf", 0644, "[Unit]\nRequires=hvm-ssh-keys.service\nAfter=hvm-ssh-keys.service\n"},

    {"etc/systemd/journald.conf.d/hvm.conf", 0644, "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n"},
    {"etc/systemd/system.conf.d/hvm.conf", 0644, "[Manager]\nDefaultTimeoutStopSec=20s\n"},
    {"etc/hosts", 0644, "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n"},
    {"etc/default/locale", 0644, "LANG=C.UTF-8\n"},
    /* Empty, not missing: systemd takes a missing one for a first boot and resets what units are enabled (machine-id(5)). */
    {"etc/machine-id", 0444, ""},
    /* The kernel comes from outside the image: an initrd made inside would never be booted. */
    {"etc/initramfs-tools/update-initramfs.conf", 0644, "update_initramfs=no\nbackup_initramfs=no\n"},
    {0},
};

const GuestLink guest_links[] = {
    {UNITS "default.target", "/lib/systemd/system/multi-user.target", NULL},
    {UNITS "sysinit.target.wants/hvm-agent.service", "/usr/lib/systemd/system/hvm-agent.service", NULL},
    {UNITS "multi-user.target.wants/systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service", NULL},
    {UNITS "sockets.target.wants/systemd-networkd.socket", "/lib/systemd/system/systemd-networkd.socket", NULL},
    {UNITS "multi-user.target.wants/systemd-resolved.service", "/lib/systemd/system/systemd-resolved.service",
     "lib/systemd/system/systemd-resolved.service"},
    {UNITS "sockets.target.wants/ssh.socket", "/lib/systemd/system/ssh.socket", "lib/systemd/system/ssh.socket"},
    {"etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf", "lib/systemd/system/systemd-resolved.service"},

    {UNITS "apt-daily.timer", MASKED, NULL},
    {UNITS "apt-daily-upgrade.timer", MASKED, NULL},
    {UNITS "dpkg-db-backup.timer", MASKED, NULL},
    {UNITS "e2scrub_all.timer", MASKED, NULL},
    {UNITS "e2scrub_reap.service", MASKED, NULL},
    {UNITS "fstrim.timer", MASKED, NULL}, /* the root is mounted with discard */
    {UNITS "man-db.timer", MASKED, NULL},
    {UNITS "getty-static.service", MASKED, NULL},
    {UNITS "systemd-firstboot.service", MASKED, NULL},
    {UNITS "systemd-sysusers.service", MASKED, NULL},  /* packages made their users when they were installed */
    {UNITS "systemd-networkd-wait-online.service", MASKED, NULL},
    {UNITS "systemd-journal-flush.service", MASKED, NULL}, /* the journal is volatile */
    {UNITS "systemd-pstore.service", MASKED, NULL},
    {0},
};

const GuestRemoval guest_removals[] = {
    {"etc/systemd/system/getty.target.wants", "*"},
    {"etc/systemd/system/multi-user.target.wants", "ssh.service"},
    {"etc/systemd/system/multi-user.target.wants", "remote-fs.target"},
    {"etc/systemd/system/sysinit.target.wants", "systemd-resolved.service"},
    {"etc", "hostname"},
    {"etc/ssh", "ssh_host_*"},
    {"etc/apt/apt.conf.d", "99mmdebstrap"}, /* the node's proxies */
    {"etc/dpkg/dpkg.cfg.d", "99mmdebstrap"},
    {"var/lib/dbus", "machine-id"},
    {"var/lib/systemd", "random-seed"},
    {"var/cache/ldconfig", "aux-cache"},
    {"var/cache/debconf", "*-old"},
    {"var/lib/dpkg", "*-old"},
    {"var/log", "*.log"},
    {"var/log/apt", "*"},
    {"boot", "vmlinuz-*"}, /* they lie beside the image */
    {"boot", "initrd.img-*"},
    {"", "vmlinuz*"},
    {"", "initrd.img*"},
    {0},
};
