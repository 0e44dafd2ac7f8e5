#include "daemon/stamp.h"

#include <inttypes.h>
#include <stdio.h>

static bool time_equal(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

struct file_stamp stamp_of(const struct stat *st)
{
    return (struct file_stamp){.dev = st->st_dev,
                               .ino = st->st_ino,
                               .bytes = (uint64_t)st->st_size,
                               .mtime = st->st_mtim,
                               .ctime = st->st_ctim};
}

bool stamp_same_file(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

bool stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return stamp_same_file(a, b) && a->bytes == b->bytes && time_equal(&a->mtime, &b->mtime) &&
           time_equal(&a->ctime, &b->ctime);
}

void stamp_text(const struct file_stamp *s, char *dst)
{
    (void)snprintf(dst, STAMP_TEXT_MAX, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %lld %ld %lld %ld", s->dev, s->ino,
                   s->bytes, (long long)s->mtime.tv_sec, s->mtime.tv_nsec, (long long)s->ctime.tv_sec,
                   s->ctime.tv_nsec); /* 7 x 20 digits at most */
}

bool stamp_parse(const char *text, struct file_stamp *ret)
{
    struct file_stamp s;
    long long mtime, ctime;
    char rest;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %lld %ld %lld %ld%c", &s.dev, &s.ino, &s.bytes, &mtime,
               &s.mtime.tv_nsec, &ctime, &s.ctime.tv_nsec, &rest) != 7)
        return false;
    s.mtime.tv_sec = (time_t)mtime;
    s.ctime.tv_sec = (time_t)ctime;
    *ret = s;
    return true;
}
