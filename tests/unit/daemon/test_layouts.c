#include "tests/test.h"

#include <string.h>

#include "daemon/layouts.h"
#include "kernels/cpu.h"

static const uint64_t ice_lake = CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512VNNI;
static const uint64_t haswell = CPU_AVX2 | CPU_FMA | CPU_F16C;

/* The layout that @text means on a CPU, or the error's code. */
static int means(const char *text, uint64_t features, struct qd_error *err)
{
    const struct recipe recipe = {.scheme = SCHEME_Q8_0};
    const struct policy_facts facts = {
        .memory_bytes = UINT64_C(8) << 30, .model_bytes = 1 << 30, .cpu_features = features};
    struct layout_wish wish;
    enum qd_layout layout;
    char why[POLICY_WHY_MAX];
    int r = layout_wish_parse(text, &wish, err);
    if (r == 0)
        r = layout_wish_resolve(&wish, &recipe, &facts, &layout, why, err);
    if (r < 0)
        return r;
    assert_int_equal(why[0] == '\0', !text || strcmp(text, "portable") == 0);
    return (int)layout;
}

static void layout_wish__words_and_names__mean_what_the_cpu_has(void **state)
{
    (void)state;
    assert_int_equal(means(NULL, ice_lake, NULL), QD_LAYOUT_PORTABLE);
    assert_int_equal(means("portable", 0, NULL), QD_LAYOUT_PORTABLE);
    assert_int_equal(means("native", ice_lake, NULL), QD_LAYOUT_R16K4P128);
    assert_int_equal(means("native", haswell, NULL), QD_LAYOUT_R8K4P128);
    assert_int_equal(means("native", 0, NULL), QD_LAYOUT_PORTABLE);
    assert_int_equal(means("auto", ice_lake, NULL), QD_LAYOUT_R16K4P128);
    assert_int_equal(means("r8k4p128", ice_lake, NULL), QD_LAYOUT_R8K4P128);
    assert_int_equal(means("r4k8p128", CPU_NEON | CPU_I8MM, NULL), QD_LAYOUT_R4K8P128);
}

static void layout_wish__what_cannot_be__is_refused_with_the_next_step(void **state)
{
    struct qd_error err;
    (void)state;
    assert_int_equal(means("r16k", ice_lake, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "'r16k4p128'"));
    assert_int_equal(means("", ice_lake, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "native"));
    assert_int_equal(means("r16k4p128", haswell, &err), QD_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "avx512vnni"));
    assert_non_null(strstr(err.hint, "r8k4p128"));
    assert_int_equal(means("r4k4p128", haswell, &err), QD_E_UNSUPPORTED);
}

static void unpacked_memo__more_than_it_holds__forgets_the_oldest(void **state)
{
    static struct unpacked_memo m;
    (void)state;
    for (uint8_t i = 0; i < UNPACKED_KEPT; i++) {
        struct digest d = {{i}};
        assert_false(unpacked_get(&m, &d, QD_LAYOUT_R8K4P128)); /* the one of zeros, too */
        unpacked_put(&m, &d, QD_LAYOUT_R8K4P128);
        unpacked_put(&m, &d, QD_LAYOUT_R16K4P128);
    }
    struct digest first = {{0}}, second = {{1}}, more = {{UNPACKED_KEPT}};
    assert_true(unpacked_get(&m, &first, QD_LAYOUT_R8K4P128) && unpacked_get(&m, &first, QD_LAYOUT_R16K4P128));
    assert_false(unpacked_get(&m, &first, QD_LAYOUT_R4K4P128));
    unpacked_put(&m, &more, QD_LAYOUT_R8K4P128);
    assert_false(unpacked_get(&m, &first, QD_LAYOUT_R8K4P128));
    assert_true(unpacked_get(&m, &second, QD_LAYOUT_R8K4P128) && unpacked_get(&m, &more, QD_LAYOUT_R8K4P128));
    assert_false(unpacked_get(&m, &more, QD_LAYOUT_R16K4P128));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_wish__words_and_names__mean_what_the_cpu_has),
        cmocka_unit_test(layout_wish__what_cannot_be__is_refused_with_the_next_step),
        cmocka_unit_test(unpacked_memo__more_than_it_holds__forgets_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
