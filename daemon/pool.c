#include "daemon/pool.h"

#include <stdlib.h>

#include "kernels/core/cleanup.h"

struct pool_item {
    uv_work_t work;
    pool_work *run;
    pool_done *done;
    void *data;
    int result;
    struct qd_error err;
};

static unsigned n_pending;

static void on_work(uv_work_t *w)
{
    struct pool_item *item = w->data;
    item->result = item->run(item->data, &item->err);
}

static void on_done(uv_work_t *w, int status)
{
    CLEANUP(free) struct pool_item *item = w->data;
    n_pending--;
    if (status < 0)
        item->result = err_new(&item->err, QD_E_CANCELLED, "the daemon is stopping");
    item->done(item->data, item->result, item->result < 0 ? &item->err : NULL);
}

int pool_submit(uv_loop_t *loop, pool_work *work, pool_done *done, void *data, struct qd_error *err)
{
    CLEANUP(free) struct pool_item *item = calloc(1, sizeof *item);
    if (!item)
        return err_new(err, QD_E_NO_MEMORY, "work for the pool");

    *item = (struct pool_item){.run = work, .done = done, .data = data};
    item->work.data = item;
    int r = uv_queue_work(loop, &item->work, on_work, on_done);
    if (r < 0)
        return err_new(err, QD_E_SYSTEM, "pool: %s", uv_strerror(r));

    (void)steal(&item); /* on_done owns it */
    n_pending++;
    return 0;
}

unsigned pool_pending(void)
{
    return n_pending;
}
