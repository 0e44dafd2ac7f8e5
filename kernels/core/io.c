#include "kernels/core/io.h"

#include <errno.h>
#include <unistd.h>

ssize_t pread_whole(int fd, void *dst, size_t n_bytes, uint64_t offset)
{
    size_t done = 0;
    while (done < n_bytes) {
        ssize_t r = pread(fd, (char *)dst + done, n_bytes - done, (off_t)(offset + done));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (ssize_t)done;
}

int pwrite_whole(int fd, const void *src, size_t n_bytes, uint64_t offset)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t r = pwrite(fd, (const char *)src + done, n_bytes - done, (off_t)(offset + done));
        if (r < 0 && errno != EINTR)
            return -errno;
        done += r > 0 ? (size_t)r : 0;
    }
    return 0;
}

int write_whole(int fd, const void *src, size_t n_bytes)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t r = write(fd, (const char *)src + done, n_bytes - done);
        if (r < 0 && errno != EINTR)
            return -errno;
        done += r > 0 ? (size_t)r : 0;
    }
    return 0;
}
