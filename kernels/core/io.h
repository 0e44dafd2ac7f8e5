/* Whole reads and writes: EINTR and short counts are handled once, here. */
#ifndef QUANTD_CORE_IO_H
#define QUANTD_CORE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read, fewer than asked only at the end of the file; -errno on failure. */
ssize_t pread_whole(int fd, void *dst, size_t n_bytes, uint64_t offset);

/* 0, or -errno; writes all. */
int pwrite_whole(int fd, const void *src, size_t n_bytes, uint64_t offset);
int write_whole(int fd, const void *src, size_t n_bytes);

#endif
