/*
 * The system calls by which the store changes what is on disk, as a table: tests put their own in
 * to record them (crash states), to fail the n-th (faults) or to stop there (kills). Each
 * returns 0 or a descriptor, else -errno. Reading needs no table.
 */
#ifndef QUANTD_CACHE_STORE_IO_H
#define QUANTD_CACHE_STORE_IO_H

#include <stddef.h>
#include <sys/stat.h>

struct store_io {
    void *data;                                                           /* handed to every call */
    int (*create)(void *data, int folder, const char *name, mode_t mode); /* O_RDWR, new or -EEXIST */
    int (*write)(void *data, int fd, const void *src, size_t n_bytes);    /* all of it */
    int (*sync)(void *data, int fd);                                      /* a file or a folder */
    int (*chmod)(void *data, int fd, mode_t mode);
    int (*link)(void *data, int from_folder, const char *from, int to_folder, const char *to);
    int (*unlink)(void *data, int folder, const char *name);
    int (*rename)(void *data, int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
    int (*mkdir)(void *data, int folder, const char *name);
    int (*stat)(void *data, int fd, struct stat *ret); /* what records are made of and compared with */
    int (*stat_at)(void *data, int folder, const char *name, struct stat *ret); /* of the name itself, be it a link */
};

extern const struct store_io store_io_real;

#endif
