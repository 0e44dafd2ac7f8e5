#include "quant/page_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

/* One byte, without waiting for the disk: only then is "it would wait" the answer. */
static bool byte_cached(int fd, uint64_t offset)
{
    char byte;
    struct iovec v = {&byte, 1};
    return preadv2(fd, &v, 1, (off_t)offset, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

bool page_cache_has(int fd, uint64_t begin, uint64_t end)
{
    return begin >= end ||
           (byte_cached(fd, begin) && byte_cached(fd, begin + (end - begin) / 2) && byte_cached(fd, end - 1));
}

void page_cache_fetch(int fd, uint64_t begin, uint64_t end)
{
    (void)posix_fadvise(fd, (off_t)begin, (off_t)(end - begin), POSIX_FADV_WILLNEED); /* advice */
}

void page_cache_drop(int fd, uint64_t begin, uint64_t end)
{
    (void)posix_fadvise(fd, (off_t)begin, (off_t)(end - begin), POSIX_FADV_DONTNEED); /* advice */
}

void page_cache_write(int fd, uint64_t begin, uint64_t end)
{
    (void)sync_file_range(fd, (off_t)begin, (off_t)(end - begin),
                          SYNC_FILE_RANGE_WRITE); /* the sync at the end counts */
}
