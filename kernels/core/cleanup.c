#include "kernels/core/cleanup.h"

#include <errno.h>

int fd_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        (void)close(fd); /* EINTR leaves the descriptor closed on Linux; nothing to retry */
        errno = saved;
    }
    return -1;
}
