#include "daemon/pool.h"

#include <stdbool.h>
#include <stdlib.h>

#include "kernels/core/cleanup.h"

enum { LONG_MAX_AT_ONCE = 2 };

struct pool_item {
    uv_work_t work;
    struct pool_item *next; /* of those that wait */
    uv_loop_t *loop;
    bool is_long;
    pool_work *run;
    pool_done *done;
    void *data;
    int result;
    struct qd_error err;
};

static unsigned n_pending, n_long; /* n_long: on the pool */
static struct pool_item *waiting;  /* long ones, oldest first */

static void on_work(uv_work_t *w)
{
    struct pool_item *item = w->data;
    item->result = item->run(item->data, &item->err);
}

static void on_done(uv_work_t *w, int status);

static void start_waiting(void)
{
    while (waiting && n_long < LONG_MAX_AT_ONCE) {
        struct pool_item *item = waiting;
        waiting = item->next;
        n_long++;
        (void)uv_queue_work(item->loop, &item->work, on_work, on_done); /* fails without a callback only */
    }
}

static void on_done(uv_work_t *w, int status)
{
    CLEANUP(free) struct pool_item *item = w->data;
    n_pending--;
    if (item->is_long) {
        n_long--;
        start_waiting();
    }
    if (status < 0)
        item->result = err_new(&item->err, QD_E_CANCELLED, "the daemon is stopping");
    item->done(item->data, item->result, item->result < 0 ? &item->err : NULL);
}

static struct pool_item *item_new(uv_loop_t *loop, pool_work *work, pool_done *done, void *data)
{
    struct pool_item *item = calloc(1, sizeof *item);
    if (!item)
        return NULL;
    *item = (struct pool_item){.loop = loop, .run = work, .done = done, .data = data};
    item->work.data = item;
    return item;
}

int pool_submit_long(uv_loop_t *loop, pool_work *work, pool_done *done, void *data, struct qd_error *err)
{
    struct pool_item **at = &waiting, *item = item_new(loop, work, done, data);
    if (!item)
        return err_new(err, QD_E_NO_MEMORY, "work for the pool");

    item->is_long = true;
    while (*at)
        at = &(*at)->next;
    *at = item; /* on_done frees it */
    n_pending++;
    start_waiting();
    return 0;
}

int pool_submit(uv_loop_t *loop, pool_work *work, pool_done *done, void *data, struct qd_error *err)
{
    CLEANUP(free) struct pool_item *item = item_new(loop, work, done, data);
    if (!item)
        return err_new(err, QD_E_NO_MEMORY, "work for the pool");

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
