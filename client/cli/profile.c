#include "client/cli/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"

static const char next_step[] = "`quantctl hw --save FILE` writes a profile of this machine to begin with";

/* Reads until the end or until @n bytes are there; -errno on failure. */
static ssize_t read_all(int fd, char *dst, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t now = read(fd, dst + got, n - got);
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return -errno;
        if (now == 0)
            break;
        got += (size_t)now;
    }
    return (ssize_t)got;
}

int profile_read(const char *path, char *ret_text, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_hint(err, err_sys(err, errno, "hardware profile '%s'", path), "%s", next_step);
    ssize_t n = read_all(fd, ret_text, PROFILE_TEXT_MAX);
    if (n < 0)
        return err_hint(err, err_sys(err, (int)-n, "hardware profile '%s'", path), "%s", next_step);
    int r = 0;
    if (n == PROFILE_TEXT_MAX)
        r = err_new(err, QD_E_INVALID, "'%s' is no hardware profile: it is longer than %d bytes", path,
                    PROFILE_TEXT_MAX - 1);
    else if (memchr(ret_text, '\0', (size_t)n))
        r = err_new(err, QD_E_INVALID, "'%s' is no hardware profile: it is not text", path);
    else if (n == 0)
        r = err_new(err, QD_E_INVALID, "'%s' is no hardware profile: it is empty", path);
    if (r < 0)
        return err_hint(err, r, "%s", next_step);
    ret_text[n] = '\0';
    return 0;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* A name of one line, without what begins a remark. */
static void clean_name(const char *name, char dst[64])
{
    size_t n = 0;
    for (; *name && n < 63; name++)
        dst[n++] = (unsigned char)*name < 0x20 || *name == ';' ? ' ' : *name;
    dst[n] = '\0';
}

int profile_save(const char *path, const json_t *hardware, struct qd_error *err)
{
    char name[64], text[PROFILE_TEXT_MAX];
    clean_name(text_of(hardware, "cpu"), name);
    int n = snprintf(text, sizeof text,
                     "# A hardware profile: `quantctl plan MODEL --hw FILE` says what this machine would get.\n"
                     "name = %s\nfeatures = %s\nmemory = %lld\ncores = %lld\n",
                     name, text_of(hardware, "features"), number_of(hardware, "memory_bytes"),
                     number_of(hardware, "cores"));
    if (n >= (int)sizeof text)
        return err_new(err, QD_E_LIMIT, "the hardware does not fit into a profile");
    CLEANUP(fd_close) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) {
        int r = err_new(err, QD_E_EXISTS, "'%s' exists", path);
        return err_hint(err, r, "remove it, or name another");
    }
    if (fd < 0)
        return err_sys(err, errno, "hardware profile '%s'", path);
    int r = write_whole(fd, text, (size_t)n);
    if (r < 0)
        (void)unlink(path); /* half a profile is none */
    return r < 0 ? err_sys(err, -r, "hardware profile '%s'", path) : 0;
}
