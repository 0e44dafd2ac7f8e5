/*
 * Ownership by scope. An owned local carries CLEANUP(f); it is given away with steal().
 *
 *     CLEANUP(source_free) struct source *src = ...;   // freed at scope exit when not NULL
 *     *ret_source = steal(&src);                       // now the caller owns it
 *
 * A free function accepts NULL and half-built objects. DEFINE_CLEANUP makes it usable here.
 */
#ifndef QUANTD_CORE_CLEANUP_H
#define QUANTD_CORE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* unused: clang does not count the cleanup as a use (a lock that is only held, say) */
#define CLEANUP(f) __attribute__((cleanup(f##_cleanup), unused))

/* Lets `CLEANUP(f) T x` call f(x) at scope exit; T is a pointer type. */
#define DEFINE_CLEANUP(f, T)                              \
    static inline void f##_cleanup(T *p)                  \
    {                                                     \
        if (*p)                                           \
            (void)f(*p); /* returns NULL by convention */ \
    }

/* Takes the pointer out of *p, leaving NULL: ownership moves to the expression. */
#define steal(p)                              \
    __extension__({                           \
        __typeof__(*(p)) steal_taken_ = *(p); \
        *(p) = NULL;                          \
        steal_taken_;                         \
    })

/* close() that ignores -1, keeps errno, and returns -1 for `fd = fd_close(fd)`. */
int fd_close(int fd);

static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline void fd_close_cleanup(int *fd)
{
    (void)fd_close(*fd); /* nothing to report at scope exit; writers fsync before */
}

static inline void free_cleanup(void *p)
{
    free(*(void **)p);
}

#endif
