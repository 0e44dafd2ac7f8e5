#include "daemon/hardware.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fsverity.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/profile.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "kernels/core/processors.h"
#include "kernels/cpu.h"
#include "quant/policy.h"

static void read_stored(const char *path, char dst[HARDWARE_TEXT_MAX])
{
    dst[0] = '\0';
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = pread_whole(fd, dst, HARDWARE_TEXT_MAX - 1, 0);
    dst[n > 0 ? n : 0] = '\0';
    dst[strcspn(dst, "\n")] = '\0';
}

/* By tmp and rename; not synced: a lost one costs a log line at the next start. */
static int write_stored(const char *path, const char *features, struct qd_error *err)
{
    char tmp[PATH_MAX], line[HARDWARE_TEXT_MAX + 2];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return err_new(err, QD_E_LIMIT, "path '%s' is too long", path);
    (void)snprintf(line, sizeof line, "%s\n", features);
    CLEANUP(fd_close) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : write_whole(fd, line, strlen(line));
    if (r == 0 && rename(tmp, path) < 0)
        r = -errno;
    return r < 0 ? err_sys(err, -r, "write '%s'", path) : 0;
}

/* A profile that this machine could be: of its architecture. */
static int load_believable(const char *path, struct profile *ret, struct qd_error *err)
{
    char here[HARDWARE_TEXT_MAX];
    int r = profile_load(path, ret, err);
    if (r < 0 || ret->architecture == cpu_architecture_here)
        return r;
    (void)cpu_features_string(0, here, sizeof here); /* the architecture alone */
    r = err_new(err, QD_E_INVALID, "hardware profile '%s' is of another architecture than %s", path, here);
    return err_hint(err, r, "`quantctl plan MODEL --hw FILE` answers for other machines");
}

static int believe(const char *path, struct hardware *h, struct qd_error *err)
{
    struct profile p;
    if (load_believable(path, &p, err) < 0) {
        if (err)
            err->code = QD_E_CONFIG; /* whatever is wrong with it: so was this daemon started */
        return QD_E_CONFIG;
    }
    h->feature_bits &= p.features;
    h->memory_bytes = p.memory_bytes;
    return 0;
}

int hardware_look(const struct config *config, struct hardware *ret, struct qd_error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/hardware", config->state_dir) >= (int)sizeof path)
        return err_new(err, QD_E_LIMIT, "path '%s/hardware' is too long", config->state_dir);

    struct hardware h = {
        .feature_bits = cpu_features(), .memory_bytes = policy_memory_bytes(), .cores = processors_allowed()};
    int r = config->hardware_path ? believe(config->hardware_path, &h, err) : 0;
    if (r < 0)
        return r;
    (void)cpu_features_string(h.feature_bits, h.features, sizeof h.features);
    (void)cpu_features_string(cpu_features_detected(), h.detected, sizeof h.detected);
    read_stored(path, h.stored);
    h.changed = strcmp(h.features, h.stored) != 0;
    if (h.changed) {
        if (h.stored[0])
            log_line(LOG_AT_NOTICE, "hardware", "changed%s%s", log_field("from", h.stored),
                     log_field("to", h.features));
        r = write_stored(path, h.features, err);
        if (r < 0)
            return r;
    }
    if (cpu_unknown_names()[0])
        log_line(LOG_AT_WARNING, "hardware", "QUANTD_CPU names unknown features%s",
                 log_field("names", cpu_unknown_names()));
    *ret = h;
    return 0;
}

const char *hardware_sandbox(const struct config *config)
{
    enum { LANDLOCK_CREATE_RULESET_VERSION_FLAG = 1 };
    if (!config->sandbox)
        return "off";
    if (prctl(PR_GET_SECCOMP) < 0) /* EINVAL: the kernel has none */
        return "none";
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION_FLAG);
    return abi >= 1 ? "seccomp+landlock" : "seccomp";
}

bool hardware_verity(const char *folder, const char *file)
{
    char path[PATH_MAX];
    union {
        struct fsverity_digest digest; /* its bytes follow it */
        uint8_t space[sizeof(struct fsverity_digest) + 64];
    } measured = {.digest = {.digest_size = sizeof measured.space - sizeof measured.digest}};
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return false;
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && (ioctl(fd, FS_IOC_MEASURE_VERITY, &measured) == 0 ||
                       errno == ENODATA); /* ENODATA: could, was not asked to */
}
