/*
 * The escape suite: what a worker that was taken over could try, from inside the very sandbox of
 * the shipped worker. Each attempt runs in a child of its own that is enclosed by both layers, by
 * seccomp alone or by Landlock alone; it must be killed by the filter or refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/worker/sandbox.h"
#include "tests/test.h"

enum { ESCAPED = 10, REFUSED, NO_DOOR };
enum { FILE_BYTES = 64 << 10 };
enum { BOTH = SANDBOX_SECCOMP | SANDBOX_LANDLOCK };

static pid_t victim; /* an own process outside: same user, so only the sandbox protects it */
static char victim_memory[64] = "untouched";
static int read_only_fd = -1, closed_fd = -1;

/* ---- attempts: 0 when it worked, -1 when it was refused -------------------------------------- */

static int opened(long fd)
{
    return fd >= 0 ? 0 : -1;
}
static int try_open(void)
{
    return opened(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}
static int try_open_for_writing(void)
{
    return opened(open("/tmp/quantd-escape", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}
static int try_openat2(void)
{
    struct open_how how = {.flags = O_RDONLY};
    return opened(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how));
}
static int try_reopen_own_descriptor(void)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", read_only_fd);
    return opened(open(path, O_RDWR | O_CLOEXEC));
}
static int try_list_a_folder(void)
{
    return opened(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}
static int try_unlink(void)
{
    return unlink("/tmp/quantd-escape-victim");
}
static int try_rename(void)
{
    return rename("/tmp/quantd-escape-victim", "/tmp/quantd-escape-moved");
}
static int try_mkdir(void)
{
    return mkdir("/tmp/quantd-escape-folder", 0700);
}
static int try_link(void)
{
    return link("/tmp/quantd-escape-victim", "/tmp/quantd-escape-link");
}
static int try_symlink(void)
{
    return symlink("/etc/passwd", "/tmp/quantd-escape-symlink");
}
static int try_truncate(void)
{
    return truncate("/tmp/quantd-escape-victim", 0);
}
static int try_execve(void)
{
    char *argv[] = {(char[]){"true"}, NULL};
    return execve("/bin/true", argv, NULL);
}
static int try_memfd_exec(void)
{
    int fd = memfd_create("x", MFD_CLOEXEC);
    char *argv[] = {(char[]){"x"}, NULL};
    static const char script[] = "#!/bin/true\n";
    if (fd < 0 || write(fd, script, sizeof script - 1) < 0)
        return -1;
    return (int)syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH);
}
static int try_inet_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0)
        return -1;
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == ECONNREFUSED
               ? 0
               : -1; /* refused by a peer: it got out */
}
static int try_abstract_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "\0quantd-escape"};
    if (fd < 0)
        return -1;
    return connect(fd, (struct sockaddr *)&to, sizeof(sa_family_t) + 14);
}
static int try_socket(void)
{
    return opened(socket(AF_UNIX, SOCK_STREAM, 0));
}
static int try_socketpair(void)
{
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}
static int try_ptrace(void)
{
    return (int)ptrace(PTRACE_ATTACH, victim, NULL, NULL);
}
static int try_kill(void)
{
    return kill(victim, SIGUSR1);
}
static int try_kill_parent(void)
{
    return kill(getppid(), 0);
}
static int try_tgkill(void)
{
    return (int)syscall(SYS_tgkill, victim, victim, SIGUSR1);
}
static int try_pidfd(void)
{
    return opened(syscall(SYS_pidfd_open, victim, 0));
}
static int peek(bool writes)
{
    char buf[sizeof victim_memory];
    struct iovec here = {buf, sizeof buf}, there = {victim_memory, sizeof victim_memory};
    memset(buf, 'x', sizeof buf);
    ssize_t n =
        writes ? process_vm_writev(victim, &here, 1, &there, 1, 0) : process_vm_readv(victim, &here, 1, &there, 1, 0);
    return n > 0 ? 0 : -1;
}
static int try_process_vm_readv(void)
{
    return peek(false);
}
static int try_process_vm_writev(void)
{
    return peek(true);
}
static int try_mount(void)
{
    return mount("none", "/mnt", "tmpfs", 0, NULL);
}
static int try_umount(void)
{
    return umount2("/proc", MNT_DETACH) == 0 || errno == EINVAL ? 0 : -1;
}
static int try_chroot(void)
{
    return chroot("/");
}
static int try_unshare(void)
{
    return unshare(CLONE_NEWUSER);
}
static int try_fork(void)
{
    pid_t p = fork();
    if (p == 0)
        _exit(0);
    return opened(p);
}
static int try_clone3(void)
{
    uint64_t args[8] = {[4] = SIGCHLD};
    long p = syscall(SYS_clone3, args, sizeof args);
    if (p == 0)
        _exit(0);
    return opened(p);
}
static int try_clone_namespace_thread(void)
{
    long p = syscall(SYS_clone,
                     CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_NEWNET, 0,
                     0, 0, 0);
    return opened(p);
}
static int try_io_uring(void)
{
    struct io_uring_params p = {0};
    return opened(syscall(SYS_io_uring_setup, 4, &p));
}
static int try_bpf(void)
{
    return opened(syscall(SYS_bpf, 0, NULL, 0));
}
static int try_userfaultfd(void)
{
    return opened(syscall(SYS_userfaultfd, O_CLOEXEC));
}
static int try_perf(void)
{
    return opened(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
}
static int try_keyctl(void)
{
    return opened(syscall(SYS_add_key, "user", "x", "y", 1, -3));
}
static int try_executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1
                                                                                                                  : 0;
}
static int try_make_memory_executable(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static int try_write_read_only(void)
{
    return pwrite(read_only_fd, "x", 1, 0) == 1 ? 0 : -1;
}
static int try_fchmod(void)
{
    return fchmod(read_only_fd, 0777);
}
static int try_fd_left_open(void)
{
    return fcntl(closed_fd, F_GETFD) >= 0 ? 0 : -1;
}
static int try_setuid(void)
{
    return setuid(0);
}
static int try_raise_limit(void)
{
    return setrlimit(RLIMIT_DATA, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}
static int try_limit_of_another(void)
{
    return prlimit(victim, RLIMIT_CORE, NULL, &(struct rlimit){0});
}
static int try_priority(void)
{
    return sched_setscheduler(0, SCHED_RR, &(struct sched_param){1});
}
static int try_prctl_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}
static int try_ioctl(void)
{
    char c = 'x';
    return ioctl(0, 0x5412 /* TIOCSTI: types into the terminal */, &c) == 0 || errno == ENOTTY || errno == EIO ? 0 : -1;
}
static int try_set_owner_of_signals(void)
{
    return fcntl(read_only_fd, F_SETOWN, victim);
}
static int try_shmget(void)
{
    return opened(syscall(SYS_shmget, 0x71756e74, 4096, 01600));
}

static int try_large_memfd(void)
{
    int fd = memfd_create("x", MFD_CLOEXEC);
    return fd < 0 ? -1 : ftruncate(fd, FILE_BYTES + 1);
}
static int try_raise_file_limit(void)
{
    struct rlimit now;
    return getrlimit(RLIMIT_FSIZE, &now) < 0 ? -1
                                             : setrlimit(RLIMIT_FSIZE, &(struct rlimit){now.rlim_max, now.rlim_max});
}

struct attempt {
    const char *name;
    int (*run)(void);
    bool landlock_too; /* refused by Landlock alone as well */
};
#define A(name, landlock)           \
    {                               \
#name, try_##name, landlock \
    }
static const struct attempt attempts[] = {
    A(open, true),
    A(open_for_writing, true),
    A(openat2, true),
    A(reopen_own_descriptor, true),
    A(list_a_folder, true),
    A(unlink, true),
    A(rename, true),
    A(mkdir, true),
    A(link, true),
    A(symlink, true),
    A(truncate, true),
    A(execve, true),
    A(memfd_exec, false),
    A(inet_connect, true),
    A(abstract_socket, true),
    A(socket, false),
    A(socketpair, false),
    A(ptrace, true),
    A(kill, true),
    A(kill_parent, true),
    A(tgkill, true),
    A(pidfd, false),
    A(process_vm_readv, true),
    A(process_vm_writev, true),
    A(mount, true),
    A(umount, true),
    A(chroot, false),
    A(unshare, false),
    A(fork, false),
    A(clone3, false),
    A(clone_namespace_thread, false),
    A(io_uring, false),
    A(bpf, false),
    A(userfaultfd, false),
    A(perf, false),
    A(keyctl, false),
    A(executable_memory, false),
    A(make_memory_executable, false),
    A(write_read_only, true),
    A(fchmod, false),
    A(fd_left_open, true),
    A(setuid, false),
    A(raise_limit, false),
    A(limit_of_another, false),
    A(priority, false),
    A(prctl_dumpable, false),
    A(ioctl, false),
    A(set_owner_of_signals, false),
    A(shmget, false),
    A(large_memfd, true),
    A(raise_file_limit, false),
};
enum { N_ATTEMPTS = sizeof attempts / sizeof attempts[0] };

/* ---- one child behind the door ---------------------------------------------------------------- */

static int outcome_of(int (*run)(void), unsigned layers, uint64_t memory_bytes)
{
    pid_t child = fork();
    if (child == 0) {
        read_only_fd = 5;
        if (dup2(open("/etc/passwd", O_RDONLY | O_CLOEXEC), 5) < 0 || dup2(5, 6) < 0)
            _exit(NO_DOOR);
        closed_fd = 6;
        (void)signal(SIGXFSZ, SIG_IGN); /* as the worker does: a limit is an error */
        const struct sandbox s = {.required = layers,
                                  .first_closed_fd = 6,
                                  .memory_bytes = memory_bytes,
                                  .file_bytes = FILE_BYTES,
                                  .n_files = 64};
        struct qd_error err;
        unsigned in_force = 0;
        if (layers && (sandbox_enter(&s, &in_force, &err) < 0 || in_force != layers))
            _exit(NO_DOOR);
        _exit(run() == 0 ? ESCAPED : REFUSED);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGSYS ? REFUSED : -WTERMSIG(status);
    return WEXITSTATUS(status);
}

struct trial {
    const struct attempt *attempt;
    unsigned layers;
    char name[96];
};

static void sandbox__attempt__is_refused(void **state)
{
    const struct trial *t = *state;
    assert_int_equal(outcome_of(t->attempt->run, t->layers, 0), REFUSED);
}

/* ---- what must go on working --------------------------------------------------------------------- */

static void *thread_body(void *arg)
{
    void *p = malloc(1 << 20);
    if (!p)
        return NULL;
    memset(p, 1, 1 << 20);
    free(p);
    return arg;
}

static int work_as_usual(void)
{
    char buf[16];
    if (pread(read_only_fd, buf, sizeof buf, 0) <= 0)
        return -1;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, thread_body, buf) != 0)
            return -1;
    for (int i = 0; i < 4; i++) {
        void *ret = NULL;
        if (pthread_join(threads[i], &ret) != 0 || !ret)
            return -1;
    }
    int fd = memfd_create("table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, 8192) < 0 || posix_fallocate(fd, 0, 8192) != 0 || pwrite(fd, "x", 1, 4096) != 1)
        return -1;
    return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
}

static void sandbox__both_layers__work_goes_on(void **state)
{
    (void)state;
    assert_int_equal(outcome_of(work_as_usual, BOTH, 0), ESCAPED);
}

static int take_512_mib(void)
{
    char *p = mmap(NULL, 512 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : 0;
}

static void sandbox__more_memory_than_the_ceiling__is_refused(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("# left out: sandbox__more_memory_than_the_ceiling__is_refused: a sanitizer's own memory needs more\n");
    return;
#endif
    assert_int_equal(outcome_of(take_512_mib, BOTH, 256 << 20), REFUSED);
    assert_int_equal(outcome_of(take_512_mib, BOTH, 0), ESCAPED);
}

static int abort_loudly(void)
{
    abort();
}

static void sandbox__failed_assertion__dies_by_abort(void **state)
{
    (void)state;
    assert_int_equal(outcome_of(abort_loudly, BOTH, 0), -SIGABRT);
}

/* Without a door the suite itself must be able to succeed, else it proves nothing. */
static void sandbox__no_layers__attempts_succeed(void **state)
{
    (void)state;
    int (*const plain[])(void) = {
        try_open,         try_openat2,      try_socket,          try_kill,   try_process_vm_readv,
        try_fork,         try_mkdir,        try_unlink,          try_execve, try_executable_memory,
        try_fd_left_open, try_inet_connect, try_abstract_socket, try_tgkill};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        int got = outcome_of(plain[i], 0, 0);
        assert_true(got == ESCAPED || (plain[i] == try_execve && got == 0));
    }
    (void)rmdir("/tmp/quantd-escape-folder");
}

/* ---- frame ------------------------------------------------------------------------------------------ */

static void ignore(int sig)
{
    (void)sig;
}

static int start_victim(void **state)
{
    (void)state;
    int fd = open("/tmp/quantd-escape-victim", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1)
        return -1;
    (void)close(fd);
    int name = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* lives as long as this process */
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "\0quantd-escape"};
    if (bind(name, (struct sockaddr *)&at, sizeof(sa_family_t) + 14) < 0)
        return -1;
    (void)signal(SIGUSR1, ignore);
    victim = fork();
    if (victim == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            (void)pause();
    }
    return victim < 0 ? -1 : 0;
}

static int stop_victim(void **state)
{
    (void)state;
    (void)kill(victim, SIGKILL);
    (void)waitpid(victim, NULL, 0);
    (void)unlink("/tmp/quantd-escape-victim"); /* the attempts without a door took it already */
    return 0;
}

int main(void)
{
    static struct trial trials[3 * N_ATTEMPTS];
    static struct CMUnitTest tests[3 * N_ATTEMPTS + 8];
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(sandbox__both_layers__work_goes_on),
        cmocka_unit_test(sandbox__more_memory_than_the_ceiling__is_refused),
        cmocka_unit_test(sandbox__failed_assertion__dies_by_abort),
        cmocka_unit_test(sandbox__no_layers__attempts_succeed),
    };
    static const unsigned layer_sets[] = {BOTH, SANDBOX_SECCOMP, SANDBOX_LANDLOCK};
    unsigned available = sandbox_available();
    size_t n = 0, n_others = sizeof others / sizeof others[0];
    if (available != BOTH)
        printf("# this kernel offers %s: the other layer's attempts are left out\n", sandbox_name(available));
    for (size_t l = 0; l < 3; l++)
        for (size_t i = 0; i < N_ATTEMPTS; i++) {
            if ((layer_sets[l] & ~available) || (layer_sets[l] == SANDBOX_LANDLOCK && !attempts[i].landlock_too))
                continue;
            struct trial *t = &trials[n];
            *t = (struct trial){.attempt = &attempts[i], .layers = layer_sets[l]};
            (void)snprintf(t->name, sizeof t->name, "sandbox__%s__%s_is_refused", sandbox_name(t->layers),
                           t->attempt->name);
            tests[n++] = (struct CMUnitTest){t->name, sandbox__attempt__is_refused, NULL, NULL, t};
        }
    for (size_t i = 0; available == BOTH && i < n_others; i++)
        tests[n++] = others[i];
    return _cmocka_run_group_tests("sandbox", tests, n, start_victim, stop_victim);
}
