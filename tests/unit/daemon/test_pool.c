#include "tests/test.h"

#include <time.h>
#include <unistd.h>

#include "daemon/pool.h"

enum { N_LONG = 16 };

static _Atomic int released, at_once, too_many;
static unsigned n_done;

static void take_a_break(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* shorter will do */
}

static int wait_for_release(void *data, struct qd_error *err)
{
    (void)data;
    (void)err;
    if (++at_once > 2)
        too_many = 1;
    while (!released)
        take_a_break();
    at_once--;
    return 0;
}

static void count(void *data, int result, const struct qd_error *err)
{
    (void)err;
    assert_int_equal(result, 0);
    /* in turn, two at once: number i was begun when all before it but one were over */
    assert_true((intptr_t)n_done + 1 >= (intptr_t)data);
    n_done++;
}

/* Short, but for a machine that is slow to begin the long ones. */
static int see_two_long_ones(void *data, struct qd_error *err)
{
    (void)data;
    (void)err;
    while (at_once < 2)
        take_a_break();
    return 0;
}

static void release(void *data, int result, const struct qd_error *err)
{
    (void)data;
    (void)err;
    assert_int_equal(result, 0);
    assert_int_equal(n_done, 0);
    released = 1;
}

/* Long ones that never end by themselves: the short one behind them is done all the same, or the alarm rings. */
static void pool_submit_long__more_than_threads__short_work_goes_on(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct qd_error err;
    assert_int_equal(uv_loop_init(&loop), 0);
    (void)alarm(20);
    for (intptr_t i = 0; i < N_LONG; i++)
        assert_int_equal(pool_submit_long(&loop, wait_for_release, count, (void *)i, &err), 0);
    assert_int_equal(pool_submit(&loop, see_two_long_ones, release, NULL, &err), 0);
    assert_int_equal(pool_pending(), N_LONG + 1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)alarm(0);
    assert_int_equal(n_done, N_LONG);
    assert_int_equal(pool_pending(), 0);
    assert_int_equal(too_many, 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_submit_long__more_than_threads__short_work_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
