/* What an app sees of a model's values while it runs the model by itself, gathered and sent. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "client/client.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "statistics/statistics.h"

struct qd_statistics {
    struct statistics *gathered; /* owned */
};

void qd_statistics_free(struct qd_statistics *s)
{
    if (s)
        (void)statistics_free(s->gathered); /* returns NULL */
    free(s);
}

int qd_statistics_new(struct qd_statistics **ret, struct qd_error *err)
{
    const struct digest of_whom = {0}; /* the daemon knows it by the model's name */
    struct qd_statistics *s = calloc(1, sizeof *s);
    if (s)
        s->gathered = statistics_new(&of_whom);
    if (!s || !s->gathered) {
        qd_statistics_free(s);
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    }
    *ret = s;
    return 0;
}

static int edge_of(struct qd_statistics *s, const char *name, bool with_histogram, struct observer **ret,
                   struct qd_error *err)
{
    struct edge_statistics *e;
    const size_t n = strlen(name);
    if (n == 0 || n > STATISTICS_NAME_MAX)
        return err_new(err, QD_E_INVALID, "a value's name of %zu bytes", n);
    int r = statistics_edge(s->gathered, name, with_histogram, 0, 0, &e, err);
    if (r == 0 && with_histogram != (e->all->histogram != NULL))
        return err_new(err, QD_E_INVALID, "'%s' was given as %s before", name, with_histogram ? "ranges" : "values");
    if (r == 0)
        *ret = e->all;
    return r;
}

int qd_statistics_add(struct qd_statistics *s, const char *name, const float *x, uint64_t n, struct qd_error *err)
{
    struct observer *o = NULL;
    int r = edge_of(s, name, true, &o, err);
    if (r == 0)
        r = observer_add(o, NULL, x, n, err);
    return r < 0 ? err_in(err, r, "value '%.200s'", name) : 0;
}

int qd_statistics_add_range(struct qd_statistics *s, const char *name, uint64_t n, float low, float high,
                            struct qd_error *err)
{
    struct observer *o = NULL;
    int r = edge_of(s, name, false, &o, err);
    if (r == 0)
        r = observer_add_range(o, n, low, high, err);
    return r < 0 ? err_in(err, r, "value '%.200s'", name) : 0;
}

static int sealed_copy(struct bytes content, int *ret_fd, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = memfd_create("quantd-statistics", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(err, errno, "memory for statistics");
    int r = write_whole(fd, content.data, content.n);
    if (r < 0)
        return err_sys(err, -r, "memory for statistics");
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return err_sys(err, errno, "seal statistics");
    *ret_fd = steal_fd(&fd);
    return 0;
}

int qd_statistics_send(struct qd_client *c, const char *model, const struct qd_statistics *s, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer content = {0};
    CLEANUP(fd_close) int fd = -1;
    CLEANUP(incoming_clear) struct incoming in = {0};
    if (s->gathered->n_edges == 0)
        return err_new(err, QD_E_INVALID, "statistics of no value");
    int r = statistics_encode(s->gathered, &content, err);
    if (r == 0)
        r = sealed_copy(buffer_span(&content), &fd, err);
    if (r < 0)
        return r;
    const struct msg_statistics params = {.model = model};
    struct call call = {.method = "statistics", .type = MSG_statistics, .params = &params, .fds = {fd}, .n_fds = 1};
    return call_run(c, &call, NULL, NULL, &in, err);
}
