/*
 * under_unit UNIT [--uid N] -- PROGRAM ARGUMENTS: runs a program under what a service unit forbids
 *
 * Where no systemd runs as the first process the unit can still be tested: this reads the unit's SystemCallFilter=
 * lines in their order (groups by `systemd-analyze syscall-filter`), and RestrictAddressFamilies=,
 * MemoryDenyWriteExecute=, RestrictRealtime=, RestrictNamespaces=, RestrictSUIDSGID=, LockPersonality=,
 * NoNewPrivileges=, CapabilityBoundingSet=, UMask= and LimitNOFILE=, and does to itself what systemd.exec(5) says of
 * them. Mount namespaces (ProtectSystem= and the like) are not made.
 */
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYSCALLS_MAX = 1024, DEPTH_MAX = 8, LINE_BYTES = 4096 };

static bool allowed[SYSCALLS_MAX]; /* by this machine's numbers */

static void die(const char *what, const char *which)
{
    fprintf(stderr, "under_unit: %s '%s'\n", what, which);
    exit(125);
}

static void set_group(const char *name, bool allow, int depth);

/* A system call, or @group with all that it holds. A name unknown to this architecture is nothing, as for systemd. */
static void set_name(const char *name, bool allow, int depth)
{
    if (name[0] == '@') {
        set_group(name, allow, depth);
        return;
    }
    int nr = seccomp_syscall_resolve_name(name);
    if (nr >= 0 && nr < SYSCALLS_MAX)
        allowed[nr] = allow;
}

static void set_group(const char *name, bool allow, int depth)
{
    char command[128], line[256], word[128];
    if (depth > DEPTH_MAX || strspn(name, "@abcdefghijklmnopqrstuvwxyz-0123456789") != strlen(name))
        die("odd group", name);
    snprintf(command, sizeof command, "systemd-analyze --no-pager syscall-filter %s", name);
    FILE *p = popen(command, "r");
    if (!p)
        die("cannot run systemd-analyze for", name);
    int n = 0;
    while (fgets(line, sizeof line, p))
        if (sscanf(line, " %127s", word) == 1 && word[0] != '#' && strcmp(word, name) != 0 && ++n)
            set_name(word, allow, depth + 1);
    if (pclose(p) != 0 || n == 0)
        die("systemd-analyze knows no group", name);
}

/* The first line makes the list one of what is allowed; "~" takes away from it. */
static void apply_filter_line(char *value)
{
    bool allow = value[0] != '~';
    char *rest;
    for (char *w = strtok_r(value + !allow, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        set_name(w, allow, 0);
}

struct unit {
    bool has_filter, only_unix, no_wx, no_realtime, no_namespaces, no_suid, no_new_privileges, no_capabilities;
    rlim_t n_files;
    mode_t umask;
};

static void take_setting(struct unit *u, const char *key, char *value)
{
    bool yes = strcmp(value, "yes") == 0;
    if (strcmp(key, "SystemCallFilter") == 0) {
        if (!u->has_filter)
            set_group("@default", true, 0); /* always permitted, says systemd.exec(5) */
        u->has_filter = true;
        apply_filter_line(value);
    } else if (strcmp(key, "RestrictAddressFamilies") == 0) {
        u->only_unix = strcmp(value, "AF_UNIX") == 0;
    } else if (strcmp(key, "CapabilityBoundingSet") == 0) {
        u->no_capabilities = value[0] == '\0';
    } else if (strcmp(key, "LimitNOFILE") == 0) {
        u->n_files = strtoul(value, NULL, 10);
    } else if (strcmp(key, "UMask") == 0) {
        u->umask = (mode_t)strtoul(value, NULL, 8);
    } else {
        bool *flag = strcmp(key, "MemoryDenyWriteExecute") == 0 ? &u->no_wx
                     : strcmp(key, "RestrictRealtime") == 0     ? &u->no_realtime
                     : strcmp(key, "RestrictNamespaces") == 0   ? &u->no_namespaces
                     : strcmp(key, "RestrictSUIDSGID") == 0     ? &u->no_suid
                     : strcmp(key, "NoNewPrivileges") == 0      ? &u->no_new_privileges
                                                                : NULL;
        if (flag)
            *flag = yes;
    }
}

static struct unit read_unit(const char *path)
{
    struct unit u = {.umask = 022};
    char line[LINE_BYTES], key[64];
    FILE *f = fopen(path, "r");
    if (!f)
        die("cannot read", path);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *equals = strchr(line, '=');
        if (line[0] == '#' || !equals || equals - line >= (long)sizeof key)
            continue;
        snprintf(key, sizeof key, "%.*s", (int)(equals - line), line);
        take_setting(&u, key, equals + 1);
    }
    fclose(f);
    if (!u.has_filter)
        die("no SystemCallFilter= in", path);
    return u;
}

static void rule(scmp_filter_ctx filter, int error, const char *name, struct scmp_arg_cmp when)
{
    int nr = seccomp_syscall_resolve_name(name);
    if (nr >= 0 && seccomp_rule_add_exact(filter, SCMP_ACT_ERRNO((uint32_t)error), nr, 1, when) < 0)
        die("cannot forbid", name);
}

/* What systemd forbids of calls that are otherwise allowed: a filter of its own, as systemd's are. */
static void forbid_arguments(const struct unit *u)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter)
        die("no seccomp for", "arguments");
    if (u->only_unix)
        rule(filter, EAFNOSUPPORT, "socket", SCMP_A0(SCMP_CMP_NE, AF_UNIX));
    if (u->no_wx) {
        rule(filter, EPERM, "mmap", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC | PROT_WRITE));
        rule(filter, EPERM, "mprotect", SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
    }
    if (u->no_realtime)
        rule(filter, EPERM, "sched_setscheduler", SCMP_A1(SCMP_CMP_EQ, SCHED_FIFO));
    if (u->no_namespaces) {
        rule(filter, EPERM, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER));
        rule(filter, EPERM, "unshare", SCMP_A0(SCMP_CMP_NE, 0));
    }
    if (u->no_suid) {
        rule(filter, EPERM, "chmod", SCMP_A1(SCMP_CMP_MASKED_EQ, S_ISUID, S_ISUID));
        rule(filter, EPERM, "fchmod", SCMP_A1(SCMP_CMP_MASKED_EQ, S_ISUID, S_ISUID));
    }
    if (seccomp_load(filter) < 0)
        die("cannot load the filter of", "arguments");
    seccomp_release(filter);
}

static void forbid_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        die("no seccomp for", "calls");
    for (int nr = 0; nr < SYSCALLS_MAX; nr++)
        if (allowed[nr])
            (void)seccomp_rule_add(filter, SCMP_ACT_ALLOW, nr,
                                   0); /* one that libseccomp does not know stays forbidden */
    if (seccomp_load(filter) < 0)
        die("cannot load the filter of", "calls");
    seccomp_release(filter);
}

static void drop_privileges(const struct unit *u, uid_t uid)
{
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files); /* a container may have less than the unit wants */
    if (u->n_files && u->n_files < files.rlim_max)
        files.rlim_cur = files.rlim_max = u->n_files;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        die("setrlimit", strerror(errno));
    umask(u->umask);
    for (int cap = 0; u->no_capabilities && geteuid() == 0 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            die("drop capabilities", strerror(errno));
    if (uid != getuid() && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
        die("change the uid", strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) /* also what lets a filter be loaded without rights */
        die("no_new_privs", strerror(errno));
}

int main(int argc, char **argv)
{
    uid_t uid = getuid();
    int i = 2;
    if (argc > 4 && strcmp(argv[2], "--uid") == 0) {
        uid = (uid_t)strtoul(argv[3], NULL, 10);
        i = 4;
    }
    if (argc < i + 2 || strcmp(argv[i], "--") != 0)
        die("usage: under_unit UNIT [--uid N] -- PROGRAM ARGUMENTS, not", argc > 1 ? argv[1] : "");
    struct unit unit = read_unit(argv[1]);
    drop_privileges(&unit, uid);
    forbid_arguments(&unit);
    forbid_calls();
    execv(argv[i + 1], argv + i + 1);
    die("cannot start", argv[i + 1]);
}
