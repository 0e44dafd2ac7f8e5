#include "kernels/core/bytes.h"

#include <errno.h>
#include <string.h>

#include "kernels/core/arena.h"
#include "kernels/core/checked.h"
#include "kernels/core/error.h"
#include "kernels/core/processors.h"
#include "tests/test.h"

static void cursor__read_past_the_end__fails_and_stays_failed(void **state)
{
    (void)state;
    const uint8_t raw[] = {1, 2, 3, 4, 5};
    struct cursor c = cursor_over((struct bytes){raw, sizeof raw});
    assert_int_equal(cursor_u32(&c), 0x04030201);
    assert_int_equal(cursor_u16(&c), 0);
    assert_true(c.failed);
    assert_int_equal(cursor_u8(&c), 0); /* one byte is left, but the cursor has failed */
}

static void cursor__over_nothing__is_empty_and_not_null(void **state)
{
    (void)state;
    struct cursor c = cursor_over((struct bytes){0});
    assert_non_null(c.at);
    assert_int_equal(cursor_left(&c), 0);
    assert_int_equal(cursor_take(&c, 0).n, 0);
    assert_false(c.failed);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.failed);
}

/* A kernel of 4,096 possible processors, 3,000 of which are ours. */
static int large_machine(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    (void)pid;
    if (n_bytes < 4096 / 8) {
        errno = EINVAL;
        return -1;
    }
    for (size_t i = 0; i < 3000; i++)
        CPU_SET_S(i, n_bytes, set);
    return 0;
}

static int no_answer(pid_t pid, size_t n_bytes, cpu_set_t *set)
{
    (void)pid, (void)n_bytes, (void)set;
    errno = ENOSYS;
    return -1;
}

static void processors__more_than_a_cpu_set_holds__are_counted(void **state)
{
    (void)state;
    assert_int_equal(processors_counted(large_machine), 3000);
    assert_int_equal(processors_counted(no_answer), 1);
    assert_true(processors_allowed() >= 1);
}

static void hex_bytes__anything_but_lower_hex__is_refused(void **state)
{
    (void)state;
    uint8_t dst[2] = {0};
    assert_true(hex_bytes("09af", dst, 2));
    assert_int_equal(dst[0], 0x09);
    assert_int_equal(dst[1], 0xaf);
    assert_false(hex_bytes("09aF", dst, 2));
    assert_false(hex_bytes("09a", dst, 2));
    assert_false(hex_bytes("", dst, 2));
}

static void arena__beyond_its_budget__gives_null(void **state)
{
    (void)state;
    CLEANUP(arena_free) struct arena *a = arena_new(1024);
    assert_non_null(arena_alloc(a, 512, 1));
    assert_null(arena_alloc(a, 513, 1));
    assert_null(arena_alloc(a, UINT64_MAX, 16));
    assert_non_null(arena_alloc(a, 512, 1));
}

static void checked__wrapping_results__are_refused(void **state)
{
    (void)state;
    uint64_t r = 7;
    assert_false(checked_add(UINT64_MAX, 1, &r));
    assert_false(checked_mul(UINT64_MAX / 2 + 1, 2, &r));
    assert_false(checked_align(UINT64_MAX, 4096, &r));
    assert_int_equal(r, 7);
    assert_false(range_inside(10, UINT64_MAX, 100));
    assert_true(range_inside(10, 90, 100));
}

static void err_in__adds_the_subject_before_the_reason(void **state)
{
    (void)state;
    struct qd_error err;
    int r = err_sys(&err, 2 /* ENOENT */, "open '%s'", "/m/x.gguf");
    assert_int_equal(err_in(&err, r, "model '%s'", "tiny"), QD_E_NOT_FOUND);
    assert_string_equal(err.message, "model 'tiny': open '/m/x.gguf': No such file or directory");
    assert_string_equal(qd_error_name(r), "not-found");
    assert_int_equal(qd_error_by_name("not-found"), r);
    assert_int_equal(qd_error_exit_code(r), 66);
}

static void nearest_name__typing_mistake__finds_the_word(void **state)
{
    (void)state;
    static const char *const names[] = {"f16", "bf16", "q8_0", "q4_0", "auto", NULL};
    assert_string_equal(nearest_name("q8-0", names), "q8_0");
    assert_string_equal(nearest_name("b16", names), "f16");
    assert_null(nearest_name("something-else", names));
    static const char *const models[] = {"other", "tiny-kjv", NULL};
    assert_string_equal(nearest_name("tiny", models), "tiny-kjv");
    assert_null(nearest_name("ti", models));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cursor__read_past_the_end__fails_and_stays_failed),
        cmocka_unit_test(cursor__over_nothing__is_empty_and_not_null),
        cmocka_unit_test(processors__more_than_a_cpu_set_holds__are_counted),
        cmocka_unit_test(hex_bytes__anything_but_lower_hex__is_refused),
        cmocka_unit_test(arena__beyond_its_budget__gives_null),
        cmocka_unit_test(checked__wrapping_results__are_refused),
        cmocka_unit_test(err_in__adds_the_subject_before_the_reason),
        cmocka_unit_test(nearest_name__typing_mistake__finds_the_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
