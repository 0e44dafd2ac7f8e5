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
#include "kernels/layout/packed.h"
#include "quant/policy.h"

/* ---- the file: features, then layouts that are superseded, a line each ------------------------ */

static const char superseded_word[] = "superseded";

static int path_of(const struct config *config, char dst[PATH_MAX], struct qd_error *err)
{
    if (snprintf(dst, PATH_MAX, "%s/hardware", config->state_dir) >= PATH_MAX)
        return err_new(err, QD_E_LIMIT, "path '%s/hardware' is too long", config->state_dir);
    return 0;
}

/* Names that no layout has, such as a newer quantd's, are forgotten. */
static uint32_t read_layouts(char *line)
{
    uint32_t bits = 0;
    const char *word = strsep(&line, " ");
    if (strcmp(word, superseded_word) != 0)
        return 0;
    while ((word = strsep(&line, " "))) {
        int layout = qd_layout_by_name(word);
        bits |= layout > QD_LAYOUT_PORTABLE ? UINT32_C(1) << layout : 0;
    }
    return bits;
}

static void read_stored(const char *path, struct hardware *h)
{
    char text[2 * HARDWARE_TEXT_MAX] = "", *rest = text;
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = pread_whole(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    (void)snprintf(h->stored, sizeof h->stored, "%.*s", (int)sizeof h->stored - 1, strsep(&rest, "\n"));
    char *line = strsep(&rest, "\n");
    h->superseded = line ? read_layouts(line) : 0;
}

/* By tmp and rename; not synced: a lost one costs a log line at the next start. */
int hardware_store(const struct config *config, const struct hardware *h, struct qd_error *err)
{
    char path[PATH_MAX], tmp[PATH_MAX + 8], text[2 * HARDWARE_TEXT_MAX];
    int r = path_of(config, path, err);
    if (r < 0)
        return r;
    (void)snprintf(tmp, sizeof tmp, "%s.tmp", path); /* fits */
    size_t n = (size_t)snprintf(text, sizeof text, "%s\n%s", h->features, h->superseded ? superseded_word : "");
    for (int l = 0; l < QD_N_LAYOUTS; l++)
        if (h->superseded >> l & 1)
            n += (size_t)snprintf(text + n, sizeof text - n, " %s", qd_layout_info((enum qd_layout)l)->name);
    if (h->superseded)
        text[n++] = '\n'; /* all of it fits: a feature string, and a few names */
    CLEANUP(fd_close) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    r = fd < 0 ? -errno : write_whole(fd, text, n);
    if (r == 0 && rename(tmp, path) < 0)
        r = -errno;
    return r < 0 ? err_sys(err, -r, "write '%s'", path) : 0;
}

/* ---- looking ---------------------------------------------------------------------------------- */

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

/* Names of the features in use, joined by commas; "scalar" for none. */
static void fill_filter(struct hardware *h)
{
    const char *names = strchr(h->features, '+');
    (void)snprintf(h->filter, sizeof h->filter, "%s", names ? names + 1 : "scalar"); /* shorter than h->features */
    for (char *at = h->filter; (at = strchr(at, '+'));)
        *at = ',';
}

static int look(const struct config *config, struct hardware *h, struct qd_error *err)
{
    uint64_t detected;
    h->feature_bits = cpu_features_now(&detected);
    h->memory_bytes = policy_memory_bytes();
    h->cores = processors_allowed();
    if (config->cpu)
        h->feature_bits = cpu_filter(h->feature_bits, config->cpu, NULL, 0);
    int r = config->hardware_path ? believe(config->hardware_path, h, err) : 0;
    if (r < 0)
        return r;
    (void)cpu_features_string(h->feature_bits, h->features, sizeof h->features);
    (void)cpu_features_string(detected, h->detected, sizeof h->detected);
    h->native = layout_native(h->feature_bits);
    fill_filter(h);
    return 0;
}

/* What was native is to go, and what is native now is to stay. Of another architecture no layout can be used anyway. */
static void supersede(struct hardware *h)
{
    uint64_t before;
    if (cpu_features_parse(h->stored, &before) == 0)
        h->superseded |= UINT32_C(1) << layout_native(before);
    h->superseded &= ~(UINT32_C(1) << h->native | UINT32_C(1) << QD_LAYOUT_PORTABLE);
}

int hardware_look(const struct config *config, struct hardware *ret, struct qd_error *err)
{
    char path[PATH_MAX];
    struct hardware h = {.features = ""};
    int r = path_of(config, path, err);
    if (r == 0)
        r = look(config, &h, err);
    if (r < 0)
        return r;
    read_stored(path, &h);
    h.changed = strcmp(h.features, h.stored) != 0;
    if (h.changed) {
        if (h.stored[0])
            log_line(LOG_AT_NOTICE, "hardware", "changed%s%s%s", log_field("from", h.stored),
                     log_field("to", h.features), log_field("layout", qd_layout_info(h.native)->name));
        supersede(&h);
        r = hardware_store(config, &h, err);
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
