#include "accel.h"

#include "sysroot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Where things lie in the guest's memory. */
enum { CODE = 0x1000, PML4 = 0x2000, PDPT = 0x3000, PAGE_DIRECTORY = 0x4000, MEMORY_BYTES = 0x10000 };

enum {
    API_VERSION = 12,        /* the only one since Linux 2.6.22, Documentation/virt/kvm/api.rst */
    MSR_ARCH_CAPABILITIES = 0x10a, /* Intel SDM volume 4, table 2-2 */
    CPUID_ENTRIES_MAX = 256,
    TRIES = 3,               /* the fastest counts: interrupts and other processes only ever make it slower */
    SMALL_COUNT = 20 * 1000, /* 10 us natively; an interpreter of a million instructions a second needs 40 ms */
    WATCHDOG_MS = 2000,
};

#define NATIVE_TARGET_NS 1e6 /* how long the large loop takes natively */
/* Under KVM the loop takes as long as natively, nested in another hypervisor at most a few times that (what exits is
 * slow there, and the loop does not exit); interpreted, over a thousand times. */
#define SLOW_RATIO 20.0

typedef struct {
    int kvm, vm, vcpu;
    guint8 *memory;
    struct kvm_run *run;
    size_t run_bytes;
    gint64 deadline_us;
    gboolean timed_out;
    AccelProbe *probe;
} Guest;

/* ---- Setting up ---- */

static gboolean G_GNUC_PRINTF(2, 3) broken(Guest *guest, const char *format, ...)
{
    va_list arguments;

    guest->probe->state = ACCEL_KVM_BROKEN;
    va_start(arguments, format);
    g_vsnprintf(guest->probe->detail, sizeof guest->probe->detail, format, arguments);
    va_end(arguments);
    return FALSE;
}

static gboolean open_kvm(Guest *guest)
{
    g_autofree char *path = sysroot_path("/dev/kvm");

    guest->kvm = open(path, O_RDWR | O_CLOEXEC);
    if (guest->kvm >= 0)
        return TRUE;
    broken(guest, "cannot open /dev/kvm: %s", g_strerror(errno));
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        guest->probe->state = ACCEL_KVM_MISSING;
    else if (errno == EACCES || errno == EPERM)
        guest->probe->state = ACCEL_KVM_DENIED;
    return FALSE;
}

static gboolean create_vm(Guest *guest)
{
    int version = ioctl(guest->kvm, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return broken(guest, "/dev/kvm is not KVM: %s", g_strerror(errno));
    if (version != API_VERSION)
        return broken(guest, "KVM's interface has version %d instead of %d", version, API_VERSION);
    guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
    if (guest->vm < 0)
        return broken(guest, "KVM cannot create a virtual machine: %s", g_strerror(errno));
    /* Older Intel processors need three pages for themselves; others ignore or refuse it. */
    (void)ioctl(guest->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);

    guest->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (guest->memory == MAP_FAILED)
        return broken(guest, "no memory for the guest: %s", g_strerror(errno));
    struct kvm_userspace_memory_region region = {
        .memory_size = MEMORY_BYTES, .userspace_addr = (guint64)(gsize)guest->memory};

    if (ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return broken(guest, "KVM refuses the guest's memory: %s", g_strerror(errno));
    return TRUE;
}

/* The guest's processor is the host's: without the long mode bit KVM would refuse EFER.LME. */
static gboolean set_cpuid(Guest *guest)
{
    g_autofree struct kvm_cpuid2 *cpuid =
        g_malloc0(sizeof(struct kvm_cpuid2) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

    cpuid->nent = CPUID_ENTRIES_MAX;
    if (ioctl(guest->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 || ioctl(guest->vcpu, KVM_SET_CPUID2, cpuid) < 0)
        return broken(guest, "KVM refuses the guest's CPUID: %s", g_strerror(errno));
    return TRUE;
}

/* The node's own value as QEMU's `-cpu host` will set it: a KVM in a virtual machine may offer what it does not take. */
static void try_arch_capabilities(Guest *guest)
{
    g_autofree struct kvm_msrs *msrs = g_malloc0(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry));

    msrs->nmsrs = 1;
    msrs->entries[0].index = MSR_ARCH_CAPABILITIES;
    if (ioctl(guest->kvm, KVM_GET_MSRS, msrs) == 1)
        guest->probe->no_arch_capabilities = ioctl(guest->vcpu, KVM_SET_MSRS, msrs) != 1;
}

static gboolean create_vcpu(Guest *guest)
{
    int bytes = ioctl(guest->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    guest->vcpu = ioctl(guest->vm, KVM_CREATE_VCPU, 0);
    if (guest->vcpu < 0 || bytes < (int)sizeof(struct kvm_run))
        return broken(guest, "KVM cannot create a vCPU: %s", g_strerror(errno));
    guest->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu, 0);
    if (guest->run == MAP_FAILED)
        return broken(guest, "KVM cannot map a vCPU: %s", g_strerror(errno));
    guest->run_bytes = (size_t)bytes;
    if (!set_cpuid(guest))
        return FALSE;
    try_arch_capabilities(guest);
    return TRUE;
}

/* One 2 MiB page from 0 to 0; present and writable everywhere. */
static void write_page_tables(Guest *guest)
{
    const guint64 present_writable = 3, large = 1 << 7;
    const guint64 entries[][2] = {{PML4, PDPT | present_writable},
                                  {PDPT, PAGE_DIRECTORY | present_writable},
                                  {PAGE_DIRECTORY, large | present_writable}};

    for (gsize i = 0; i < G_N_ELEMENTS(entries); i++)
        memcpy(guest->memory + entries[i][0], &entries[i][1], sizeof entries[i][1]);
}

/* 64-bit mode: Intel SDM volume 3, 9.8.5; there is no interrupt table, so that any fault ends the guest. */
static gboolean enter_long_mode(Guest *guest)
{
    const struct kvm_segment code = {
        .limit = G_MAXUINT32, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    const struct kvm_segment data = {
        .limit = G_MAXUINT32, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs registers;

    if (ioctl(guest->vcpu, KVM_GET_SREGS, &registers) < 0)
        return broken(guest, "KVM does not show a vCPU's registers: %s", g_strerror(errno));
    write_page_tables(guest);
    registers.cr3 = PML4;
    registers.cr4 = 1 << 5;                                          /* PAE */
    registers.cr0 = 1U << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1; /* PG WP NE ET MP PE */
    registers.efer = 1 << 8 | 1 << 10;                               /* LME LMA */
    registers.cs = code;
    registers.ds = registers.es = registers.fs = registers.gs = registers.ss = data;
    registers.idt.limit = 0;
    if (ioctl(guest->vcpu, KVM_SET_SREGS, &registers) < 0)
        return broken(guest, "KVM refuses 64-bit mode: %s", g_strerror(errno));
    return TRUE;
}

/* ---- The watchdog: a signal which stays blocked in this thread except inside KVM_RUN, and is never delivered; so no
 * handler is set, and no other thread or library is disturbed. ---- */

static int watchdog_signal(void)
{
    return SIGRTMAX - 1;
}

static gboolean start_watchdog(Guest *guest, timer_t *ret_timer)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = watchdog_signal()};
    /* Repeats, because one that fires just before KVM_RUN's first look at signals is still pending, but one that is
     * lost (a debugger) would hang the node's doctor. */
    struct itimerspec when = {
        .it_value = {WATCHDOG_MS / 1000, WATCHDOG_MS % 1000 * 1000000}, .it_interval = {0, 100 * 1000000}};
    guint64 blocked = ~(G_GUINT64_CONSTANT(1) << (watchdog_signal() - 1));
    g_autofree struct kvm_signal_mask *mask = g_malloc0(sizeof *mask + sizeof blocked);

    mask->len = sizeof blocked; /* the kernel's sigset_t, not the C library's */
    memcpy(mask->sigset, &blocked, sizeof blocked);
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    guest->deadline_us = g_get_monotonic_time() + WATCHDOG_MS * 1000;
    if (ioctl(guest->vcpu, KVM_SET_SIGNAL_MASK, mask) < 0)
        return broken(guest, "KVM refuses a signal mask: %s", g_strerror(errno));
    if (timer_create(CLOCK_MONOTONIC, &event, ret_timer) < 0)
        return broken(guest, "no timer for the watchdog: %s", g_strerror(errno));
    timer_settime(*ret_timer, 0, &when, NULL);
    return TRUE;
}

/* ---- Measuring ---- */

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double run_natively(guint32 count)
{
    double start = now_ns();

    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(count) : : "cc");
    return now_ns() - start;
}

static void write_code(Guest *guest, guint32 count)
{
    guint8 code[] = {0xb9, 0, 0, 0, 0, /* mov ecx, count */
                     0xff, 0xc9,       /* dec ecx */
                     0x75, 0xfc,       /* jnz -4 */
                     0xf4};            /* hlt */

    memcpy(code + 1, &count, sizeof count);
    memcpy(guest->memory + CODE, code, sizeof code);
}

/* Runs the loop once to its hlt. FALSE with timed_out, or broken. */
static gboolean run_guest(Guest *guest, guint32 count, double *ret_ns)
{
    const struct kvm_regs registers = {.rip = CODE, .rflags = 2};

    write_code(guest, count);
    if (ioctl(guest->vcpu, KVM_SET_REGS, &registers) < 0)
        return broken(guest, "KVM refuses a vCPU's registers: %s", g_strerror(errno));

    double start = now_ns();

    while (ioctl(guest->vcpu, KVM_RUN, 0) < 0) {
        if (errno != EINTR && errno != EAGAIN)
            return broken(guest, "KVM cannot run the guest: %s", g_strerror(errno));
        if (g_get_monotonic_time() >= guest->deadline_us) {
            guest->timed_out = TRUE;
            return broken(guest, "a loop of %u does not end within %d s", count, WATCHDOG_MS / 1000);
        }
    }
    *ret_ns = now_ns() - start;
    if (guest->run->exit_reason != KVM_EXIT_HLT)
        return broken(guest, "the guest ended with KVM's exit reason %u instead of hlt", guest->run->exit_reason);
    return TRUE;
}

static double fastest_native(guint32 count)
{
    double best = G_MAXDOUBLE;

    for (int i = 0; i < TRIES; i++)
        best = MIN(best, run_natively(count));
    return MAX(best, 1);
}

static gboolean fastest_guest(Guest *guest, guint32 count, double *ret_ns)
{
    double best = G_MAXDOUBLE, once = 0;

    for (int i = 0; i < TRIES; i++) {
        if (!run_guest(guest, count, &once))
            return FALSE;
        best = MIN(best, once);
    }
    *ret_ns = best;
    return TRUE;
}

/* Ratio of the time that `count` rounds take, less what entering and leaving the guest costs. */
static gboolean measure_ratio(Guest *guest, guint32 count, double overhead_ns, double *ret_ratio)
{
    double native_ns = fastest_native(count), guest_ns = 0;

    if (fastest_guest(guest, count, &guest_ns)) {
        *ret_ratio = MAX(guest_ns - overhead_ns, 0) / native_ns;
        return TRUE;
    }
    if (guest->timed_out) /* it does run, for it ended before: at least this slow */
        *ret_ratio = WATCHDOG_MS * 1e6 / native_ns;
    return guest->timed_out && *ret_ratio >= SLOW_RATIO;
}

static void describe_ratio(AccelProbe *probe)
{
    if (probe->ratio < 1000)
        g_snprintf(probe->detail, sizeof probe->detail, "a loop takes %.3g times as long as natively", probe->ratio);
    else
        g_snprintf(probe->detail, sizeof probe->detail, "a loop takes %.0f,%03u times as long as natively",
                   (double)(guint64)(probe->ratio / 1000), (unsigned)((guint64)probe->ratio % 1000));
}

static void measure(Guest *guest)
{
    double overhead_ns = 0, ratio = 0;

    if (!fastest_guest(guest, 1, &overhead_ns) || !measure_ratio(guest, SMALL_COUNT, overhead_ns, &ratio))
        return;
    /* So short a loop drowns in the noise of a nested exit: only an interpreter is told by it for certain. */
    if (ratio < 10 * SLOW_RATIO) {
        double large = SMALL_COUNT * (NATIVE_TARGET_NS / fastest_native(SMALL_COUNT));

        if (!measure_ratio(guest, (guint32)CLAMP(large, SMALL_COUNT, 100e6), overhead_ns, &ratio))
            return;
    }
    guest->probe->state = ratio < SLOW_RATIO ? ACCEL_KVM : ACCEL_KVM_SLOW;
    guest->probe->ratio = ratio;
    describe_ratio(guest->probe);
}

static void close_guest(Guest *guest)
{
    if (guest->run != MAP_FAILED)
        munmap(guest->run, guest->run_bytes);
    if (guest->vcpu >= 0)
        close(guest->vcpu);
    if (guest->vm >= 0)
        close(guest->vm);
    if (guest->kvm >= 0)
        close(guest->kvm);
    if (guest->memory != MAP_FAILED)
        munmap(guest->memory, MEMORY_BYTES);
}

static gpointer probe_thread(gpointer data)
{
    Guest guest = {.kvm = -1, .vm = -1, .vcpu = -1, .memory = MAP_FAILED, .run = MAP_FAILED, .probe = data};
    timer_t timer;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (open_kvm(&guest) && create_vm(&guest) && create_vcpu(&guest) && enter_long_mode(&guest) &&
        start_watchdog(&guest, &timer)) {
        measure(&guest);
        timer_delete(timer);
    }
    close_guest(&guest);
    return NULL;
}

void accel_probe(AccelProbe *ret_probe)
{
    AccelProbe probe = {.state = ACCEL_KVM_BROKEN};

    /* A thread of its own, because its signal mask is changed and a signal of the watchdog's may be left pending. */
    g_thread_join(g_thread_new("kvm-probe", probe_thread, &probe));
    *ret_probe = probe;
}
