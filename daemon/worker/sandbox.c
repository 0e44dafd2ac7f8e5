#include "daemon/worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"

/* ---- limits ------------------------------------------------------------------------------- */

static int limit(int which, const char *name, uint64_t value, struct qd_error *err)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)which, &now) < 0)
        return err_sys(err, errno, "read limit %s", name);
    rlim_t v = now.rlim_max != RLIM_INFINITY && value > now.rlim_max ? now.rlim_max : (rlim_t)value;
    if (setrlimit((__rlimit_resource_t)which, &(struct rlimit){v, v}) < 0)
        return err_sys(err, errno, "set limit %s", name);
    return 0;
}

/*
 * Memory files count as files and not as DATA, so each is limited in size from the start. Until the
 * plan is known nobody knows the size of the output: the hard limit stays, and who started us sets
 * both from outside (workerproc_limit_file). Behind the filter we cannot: it allows no setrlimit.
 */
static int limit_files(uint64_t bytes, struct qd_error *err)
{
    struct rlimit now;
    if (getrlimit(RLIMIT_FSIZE, &now) < 0)
        return err_sys(err, errno, "read limit FSIZE");
    now.rlim_cur = now.rlim_max < bytes ? now.rlim_max : (rlim_t)bytes; /* RLIM_INFINITY is the largest */
    return setrlimit(RLIMIT_FSIZE, &now) < 0 ? err_sys(err, errno, "set limit FSIZE") : 0;
}

/*
 * DATA counts private writable memory, thread stacks included, and not what is only reserved
 * (malloc's arenas reserve 64 MiB each), so it is the honest form of a memory ceiling; AS is not.
 * NPROC counts all processes of the user, not ours: new processes are seccomp's business.
 */
static int set_limits(const struct sandbox *s, struct qd_error *err)
{
    int r = limit(RLIMIT_CORE, "CORE", 0, err);
    if (r == 0)
        r = limit(RLIMIT_MEMLOCK, "MEMLOCK", 0, err);
    if (r == 0)
        r = limit(RLIMIT_MSGQUEUE, "MSGQUEUE", 0, err);
    if (r == 0)
        r = limit(RLIMIT_NOFILE, "NOFILE", s->n_files, err);
    if (r == 0)
        r = limit_files(s->file_bytes, err);
    if (r == 0 && s->memory_bytes)
        r = limit(RLIMIT_DATA, "DATA", s->memory_bytes, err);
    return r;
}

/* ---- Landlock ----------------------------------------------------------------------------- */

/* The kernel's struct landlock_ruleset_attr of ABI 6; Debian 12's header knows its first member. */
struct landlock_attr {
    uint64_t fs, net, scoped;
};

/* Rights of each ABI, from include/uapi/linux/landlock.h: a right that is handled and granted nowhere is denied. */
static const struct {
    int abi;
    struct landlock_attr rights;
} landlock_abis[] = {
    {1, {.fs = (1u << 13) - 1}},
    {2, {.fs = 1u << 13}}, /* REFER */
    {3, {.fs = 1u << 14}}, /* TRUNCATE */
    {4, {.net = 3}},       /* BIND_TCP, CONNECT_TCP */
    {5, {.fs = 1u << 15}}, /* IOCTL_DEV */
    {6, {.scoped = 3}},    /* ABSTRACT_UNIX_SOCKET, SIGNAL */
};

static size_t landlock_attr_bytes(int abi)
{
    return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self  446
#endif

static int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    return abi < 0 ? 0 : (int)abi;
}

/* 1: in force, 0: the kernel has none. */
static int enter_landlock(struct qd_error *err)
{
    int abi = landlock_abi();
    if (abi == 0)
        return 0;
    struct landlock_attr attr = {0};
    for (size_t i = 0; i < sizeof landlock_abis / sizeof landlock_abis[0] && landlock_abis[i].abi <= abi; i++) {
        attr.fs |= landlock_abis[i].rights.fs;
        attr.net |= landlock_abis[i].rights.net;
        attr.scoped |= landlock_abis[i].rights.scoped;
    }
    CLEANUP(fd_close) int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, landlock_attr_bytes(abi), 0);
    if (ruleset < 0)
        return err_sys(err, errno, "make a Landlock ruleset");
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        return err_sys(err, errno, "enter the Landlock ruleset");
    return 1;
}

/* ---- seccomp ------------------------------------------------------------------------------ */

/* One allowed call; when @op is not 0, only where argument @arg compares so. */
struct rule {
    int call;
    unsigned arg;
    enum scmp_compare op;
    uint64_t a, b; /* MASKED_EQ: mask, value */
};

#define ALLOW(name)                                   \
    {                                                 \
        SCMP_SYS(name), 0, (enum scmp_compare)0, 0, 0 \
    }
#define ALLOW_IF(name, arg, op, a, b) \
    {                                 \
        SCMP_SYS(name), arg, op, a, b \
    }

/* Flags by which pthread_create (glibc, musl) makes a thread and nothing else: same memory, files, signals. */
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define NAMESPACE_FLAGS \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

static const struct rule rules[] = {
    /* descriptors that we were given */
    ALLOW(read),
    ALLOW(pread64),
    ALLOW(pwrite64),
    ALLOW(write),
    ALLOW(writev),
    ALLOW(lseek),
    ALLOW(fstat),
    ALLOW(close),
    ALLOW(ftruncate),
    ALLOW(fsync),
    ALLOW(fdatasync),
    ALLOW(sync_file_range),
    ALLOW(preadv2),
    ALLOW(fadvise64),
    ALLOW(readahead),
    ALLOW_IF(fallocate, 1, SCMP_CMP_EQ, 0, 0), /* no punching, collapsing, inserting */
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_GETFL, 0),
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_GETFD, 0),
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_SETFD, 0),
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_SETFL, 0),
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_ADD_SEALS, 0),
    ALLOW_IF(fcntl, 1, SCMP_CMP_EQ, F_GET_SEALS, 0),
    ALLOW(memfd_create),
    /* the control socket */
    ALLOW(sendmsg),
    ALLOW(recvmsg),
    ALLOW(poll),
    ALLOW(ppoll),
    ALLOW(shutdown),
    /* memory, never executable */
    ALLOW_IF(mmap, 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
    ALLOW_IF(mprotect, 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
    ALLOW(munmap),
    ALLOW(mremap),
    ALLOW(madvise),
    ALLOW(brk),
    ALLOW(sysinfo), /* glibc's qsort asks how much memory there is before it takes some: any model of 128 tensors */
    /* threads */
    ALLOW_IF(clone, 0, SCMP_CMP_MASKED_EQ, THREAD_FLAGS | NAMESPACE_FLAGS, THREAD_FLAGS),
    ALLOW(futex),
    ALLOW(set_robust_list),
    ALLOW(rseq),
    ALLOW(sched_yield),
    ALLOW(sched_getaffinity),
    ALLOW(gettid),
    ALLOW(getpid),
    ALLOW(exit),
    ALLOW(exit_group),
    ALLOW(rt_sigreturn),
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigaction),
    ALLOW(sigaltstack),
    ALLOW(restart_syscall),
    /* time and chance */
    ALLOW(clock_gettime),
    ALLOW(clock_nanosleep),
    ALLOW(nanosleep),
    ALLOW(gettimeofday),
    ALLOW(getrandom),
    ALLOW_IF(prctl, 0, SCMP_CMP_EQ, PR_SET_NAME, 0),
};

/* Calls that the C library tries before another way: told that the kernel lacks them. clone3 hides its flags in memory.
 */
static const int absent[] = {SCMP_SYS(clone3)};

static int add_rules(scmp_filter_ctx ctx)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *r = &rules[i];
        const struct scmp_arg_cmp cmp = {r->arg, r->op, r->a, r->b};
        int rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, r->call, r->op ? 1 : 0, &cmp);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), absent[i], 0);
        if (rc < 0)
            return rc;
    }
    /* abort() raises SIGABRT in the calling thread: to ourselves alone, so that a failed assertion is reported as one.
     */
    return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

static int enter_seccomp(struct qd_error *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!ctx)
        return err_new(err, QD_E_NO_MEMORY, "make a system call filter");
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (rc == 0)
        rc = add_rules(ctx);
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc < 0 ? err_sys(err, -rc, "load the system call filter") : 1;
}

/* The kernel answers EFAULT for a null filter where it has filters, EINVAL or ENOSYS where it has not. */
static int has_seccomp(void)
{
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) < 0 && errno == EFAULT;
}

/* ---- the door ----------------------------------------------------------------------------- */

unsigned sandbox_available(void)
{
    return (has_seccomp() ? SANDBOX_SECCOMP : 0u) | (landlock_abi() > 0 ? SANDBOX_LANDLOCK : 0u);
}

const char *sandbox_name(unsigned layers)
{
    static const char *const names[] = {
        [0] = "off",
        [SANDBOX_SECCOMP] = "seccomp",
        [SANDBOX_LANDLOCK] = "landlock",
        [SANDBOX_SECCOMP | SANDBOX_LANDLOCK] = "seccomp+landlock",
    };
    return names[layers & (SANDBOX_SECCOMP | SANDBOX_LANDLOCK)];
}

static int refuse(const char *layer, struct qd_error *err)
{
    (void)err_new(err, QD_E_UNSUPPORTED,
                  "this kernel or emulator has no %s, and a worker does not parse models without it", layer);
    return err_hint(err, QD_E_UNSUPPORTED, "run on a kernel with %s, or set sandbox=off for models that you trust",
                    layer);
}

int sandbox_enter(const struct sandbox *s, unsigned *ret_layers, struct qd_error *err)
{
    static const struct {
        enum sandbox_layer layer;
        const char *name;
        int (*enter)(struct qd_error *err);
    } steps[] = {
        {SANDBOX_LANDLOCK, "Landlock", enter_landlock},
        {SANDBOX_SECCOMP, "seccomp", enter_seccomp}, /* last: it forbids everything above */
    };
    unsigned available = sandbox_available();

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(err, errno, "give up new privileges");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_sys(err, errno, "forbid dumps");
    if (syscall(SYS_close_range, (unsigned)s->first_closed_fd, ~0u, 0) < 0 && errno != ENOSYS)
        return err_sys(err, errno,
                       "close other descriptors"); /* without the call: the parent opens everything close-on-exec */
    int r = set_limits(s, err);
    unsigned layers = 0;
    for (size_t i = 0; r >= 0 && i < sizeof steps / sizeof steps[0]; i++) {
        bool required = s->required & steps[i].layer, wanted = required || (s->optional & steps[i].layer);
        if (!wanted)
            continue;
        if (!(available & steps[i].layer)) {
            r = required ? refuse(steps[i].name, err) : 0;
            continue;
        }
        r = steps[i].enter(err);
        if (r > 0)
            layers |= steps[i].layer;
    }
    if (r < 0)
        return r;
    *ret_layers = layers;
    return 0;
}
