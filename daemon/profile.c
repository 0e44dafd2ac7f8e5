#include "daemon/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/ini_lines.h"
#include "daemon/units.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

/* What memory a machine can have: less runs no model, more has no address. */
static const uint64_t memory_least = UINT64_C(16) << 20, memory_most = UINT64_C(1) << 52;

enum { CORES_MOST = 65536 };

struct parsing {
    struct profile profile;
    struct ini_lines lines;
    unsigned seen; /* a bit for each key */
    struct qd_error *err;
    int result;
};

static int take_name(struct parsing *p, const char *value)
{
    if (strlen(value) >= sizeof p->profile.name)
        return err_new(p->err, QD_E_INVALID, "a name has at most %d bytes", PROFILE_NAME_BYTES - 1);
    (void)snprintf(p->profile.name, sizeof p->profile.name, "%s", value);
    return 0;
}

static int take_features(struct parsing *p, const char *value)
{
    int r = cpu_features_read(value, &p->profile.architecture, &p->profile.features, p->err);
    p->profile.features = cpu_with_foundations(p->profile.features);
    return r;
}

static int take_memory(struct parsing *p, const char *value)
{
    uint64_t bytes = 0;
    if (!units_size(value, &bytes) || bytes < memory_least || bytes > memory_most) {
        int r = err_new(p->err, QD_E_INVALID, "memory = '%.64s' is not what a machine has", value);
        return err_hint(p->err, r, "bytes such as 512M or 8G, from 16M to 4096T");
    }
    p->profile.memory_bytes = bytes;
    return 0;
}

static int take_cores(struct parsing *p, const char *value)
{
    uint32_t cores = 0;
    if (!units_count(value, &cores) || cores < 1 || cores > CORES_MOST)
        return err_new(p->err, QD_E_INVALID, "cores = '%.64s': wanted a number from 1 to %d", value, CORES_MOST);
    p->profile.cores = cores;
    return 0;
}

static const struct {
    const char *key;
    int (*take)(struct parsing *p, const char *value);
    bool required;
} keys[] = {
    {"name", take_name, false},
    {"features", take_features, true},
    {"memory", take_memory, true},
    {"cores", take_cores, false},
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

static int refuse_key(struct parsing *p, const char *key)
{
    const char *names[N_KEYS + 1] = {NULL};
    for (size_t i = 0; i < N_KEYS; i++)
        names[i] = keys[i].key;
    const char *near = nearest_name(key, names);
    int r = err_new(p->err, QD_E_INVALID, "a profile has no '%.64s'", key);
    if (near)
        return err_hint(p->err, r, "did you mean '%s'? It has name, features, memory, cores", near);
    return err_hint(p->err, r, "it has name, features, memory, cores");
}

static int take(struct parsing *p, const char *section, const char *key, const char *value)
{
    if (section[0])
        return err_new(p->err, QD_E_INVALID, "a profile has no sections such as [%.64s]", section);
    size_t i = 0;
    while (i < N_KEYS && strcmp(keys[i].key, key) != 0)
        i++;
    if (i == N_KEYS)
        return refuse_key(p, key);
    if (p->seen >> i & 1)
        return err_new(p->err, QD_E_INVALID, "'%s' is said twice", key);
    p->seen |= 1u << i;
    return keys[i].take(p, value);
}

static int on_pair(void *user, const char *section, const char *key, const char *value)
{
    struct parsing *p = user;
    if (p->result < 0 || p->lines.too_long)
        return 1;
    p->result = take(p, section, key, value);
    if (p->result < 0)
        (void)err_in(p->err, p->result, "line %u", p->lines.line);
    return 1;
}

static int finish(struct parsing *p, int bad_line)
{
    if (p->result < 0)
        return p->result;
    if (p->lines.too_long)
        return err_new(p->err, QD_E_INVALID, "line %u: longer than %d bytes", p->lines.too_long, INI_LINE_BYTES);
    if (bad_line)
        return err_new(p->err, QD_E_INVALID, "line %d: not 'key = value'", bad_line);
    for (size_t i = 0; i < N_KEYS; i++)
        if (keys[i].required && !(p->seen >> i & 1))
            return err_new(p->err, QD_E_INVALID, "no line says '%s'", keys[i].key);
    return 0;
}

int profile_parse(const char *text, struct profile *ret, struct qd_error *err)
{
    struct qd_error unsaid;
    struct parsing p = {.err = err ? err : &unsaid};
    p.err->hint[0] = 0;
    size_t n = strlen(text);
    if (n >= PROFILE_BYTES)
        return err_new(err, QD_E_LIMIT, "%zu bytes are no hardware profile: it has fewer than %d", n, PROFILE_BYTES);
    p.lines.stream = n ? fmemopen((void *)text, n, "r") : NULL; /* it is only read */
    if (n && !p.lines.stream)
        return err_new(err, QD_E_NO_MEMORY, "hardware profile");
    int r = finish(&p, n ? ini_parse_stream(ini_lines_next, &p.lines, on_pair, &p) : 0);
    if (p.lines.stream)
        (void)fclose(p.lines.stream); /* only read */
    if (r < 0 && !p.err->hint[0])
        return err_hint(p.err, r, "`quantctl hw --save FILE` writes a profile to begin with");
    if (r == 0)
        *ret = p.profile;
    return r;
}

int profile_load(const char *path, struct profile *ret, struct qd_error *err)
{
    char text[PROFILE_BYTES + 1];
    struct stat st;
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, errno, "hardware profile '%s'", path);
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_INVALID, "hardware profile '%s' is not a regular file", path);
    ssize_t n = pread_whole(fd, text, sizeof text - 1, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "hardware profile '%s'", path);
    text[n] = '\0';
    int r = strlen(text) == (size_t)n ? profile_parse(text, ret, err) : err_new(err, QD_E_INVALID, "it is not text");
    return r < 0 ? err_in(err, r, "hardware profile '%s'", path) : 0;
}
