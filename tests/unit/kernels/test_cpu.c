#include "kernels/cpu.h"

#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/test.h"

static char unknown[64];

static uint64_t filter(uint64_t features, const char *text)
{
    return cpu_filter(features, text, unknown, sizeof unknown);
}

static const uint64_t server = CPU_AVX2 | CPU_FMA | CPU_F16C | CPU_AVX512 | CPU_AVX512VNNI;

static void cpu_filter__kept_name__keeps_what_it_builds_on(void **state)
{
    (void)state;
    assert_true(filter(server, "avx2") == (CPU_AVX2 | CPU_F16C));
    assert_true(filter(server, "avx512") == (server & ~(uint64_t)CPU_AVX512VNNI));
    assert_string_equal(unknown, "");
}

static void cpu_filter__dropped_name__drops_what_builds_on_it(void **state)
{
    (void)state;
    assert_true(filter(server, "-avx512") == (CPU_AVX2 | CPU_FMA | CPU_F16C));
    assert_true(filter(server, "-f16c") == CPU_FMA);
    assert_true(filter(server, "avx512,-avx512") == (CPU_AVX2 | CPU_FMA | CPU_F16C));
}

static void cpu_filter__scalar__keeps_nothing(void **state)
{
    (void)state;
    assert_true(filter(server, "scalar") == 0);
    assert_true(filter(server, "") == server);
}

static void cpu_filter__name_the_cpu_lacks__adds_nothing(void **state)
{
    (void)state;
    assert_true(filter(CPU_AVX2 | CPU_F16C, "avx512,amxint8") == (CPU_AVX2 | CPU_F16C));
    assert_true(filter(CPU_AVX2 | CPU_F16C, "neon") == 0);
    assert_string_equal(unknown, "");
}

static void cpu_filter__typing_mistake__is_reported_and_changes_nothing(void **state)
{
    (void)state;
    assert_true(filter(server, "avx5122 -vnni") == server);
    assert_string_equal(unknown, "avx5122,-vnni");
    (void)filter(server, "a-word-much-longer-than-any-feature-name-will-ever-be,another,and-one-more,and-one-more");
    assert_true(strlen(unknown) < sizeof unknown);
}

static void cpu_features_string__any_set__is_sorted_and_reads_back(void **state)
{
    (void)state;
    static const struct {
        enum cpu_architecture architecture;
        uint64_t features;
        const char *text;
    } sets[] = {
        {CPU_X86_64, CPU_AVXVNNI | CPU_AVX2 | CPU_FMA | CPU_AMX_INT8, "x86_64+amxint8+avx2+avxvnni+fma"},
        {CPU_AARCH64, CPU_NEON | CPU_I8MM | CPU_DOTPROD | CPU_BF16, "aarch64+bf16+dotprod+i8mm+neon"},
        {CPU_AARCH64, 0, "aarch64"},
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        char text[512], cut[6];
        enum cpu_architecture architecture = CPU_N_ARCHITECTURES;
        uint64_t back = UINT64_MAX;
        size_t n = cpu_features_string_of(sets[i].architecture, sets[i].features, text, sizeof text);
        assert_string_equal(text, sets[i].text);
        assert_int_equal(n, strlen(text));
        assert_int_equal(cpu_features_read(text, &architecture, &back, NULL), 0);
        assert_int_equal(architecture, sets[i].architecture);
        assert_true(back == sets[i].features);
        assert_int_equal(cpu_features_string_of(sets[i].architecture, sets[i].features, cut, sizeof cut), n);
        assert_int_equal(strlen(cut), sizeof cut - 1);
    }
}

static void cpu_features_read__what_no_machine_has__says_which_word_and_what_there_is(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message, *hint;
    } bad[] = {
        {"vax+avx2", "unknown architecture 'vax'", "x86_64 or aarch64"},
        {"", "unknown architecture ''", "x86_64 or aarch64"},
        {"+avx2", "unknown architecture ''", "x86_64 or aarch64"},
        {"x86_64 avx2", "unknown architecture 'x86_64 avx2'", "x86_64 or aarch64"},
        {"x86_64+avx2+avx512vnn", "unknown feature 'avx512vnn' of x86_64", "did you mean 'avx512vnni'?"},
        {"aarch64+avx2", "unknown feature 'avx2' of aarch64", "neon, fp16, dotprod, i8mm, sve, bf16"},
        {"x86_64+AVX2", "unknown feature 'AVX2' of x86_64", "avx2, fma, f16c"},
        {"x86_64+a-word-that-is-longer-than-any-name-of-a-feature", "unknown feature 'a-word-that-is", "avx2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        enum cpu_architecture architecture = CPU_N_ARCHITECTURES;
        uint64_t features = 7;
        struct qd_error err;
        assert_int_equal(cpu_features_read(bad[i].text, &architecture, &features, &err), QD_E_INVALID);
        if (!strstr(err.message, bad[i].message) || !strstr(err.hint, bad[i].hint))
            fail_msg("%s (%s)", err.message, err.hint);
        assert_true(features == 7 && architecture == CPU_N_ARCHITECTURES);
    }
}

static void cpu_features_parse__other_architecture_or_name__is_refused(void **state)
{
    (void)state;
    char text[512];
    uint64_t back;
    assert_int_equal(cpu_features_parse("vax+avx2", &back), -1);
    size_t n = cpu_features_string(0, text, sizeof text);
    assert_int_equal(cpu_features_parse(text, &back), 0);
    assert_true(back == 0);
    assert_int_equal(cpu_features_parse(strcmp(text, "x86_64") == 0 ? "aarch64" : "x86_64", &back), -1);
    (void)snprintf(text + n, sizeof text - n, "+avx3");
    assert_int_equal(cpu_features_parse(text, &back), -1);
}

static void cpu_with_foundations__a_feature__has_what_it_builds_on(void **state)
{
    (void)state;
    assert_true(cpu_with_foundations(CPU_AVX512VNNI) == server);
    assert_true(cpu_with_foundations(CPU_SVE) == (CPU_SVE | CPU_FP16 | CPU_NEON));
    assert_true(cpu_with_foundations(0) == 0);
}

static void cpu_features__in_use__are_some_of_those_detected(void **state)
{
    (void)state;
    assert_true((cpu_features() & ~cpu_features_detected()) == 0);
    assert_non_null(cpu_name());
}

static void ops_for__no_features__is_complete_and_the_same_pointer_each_time(void **state)
{
    (void)state;
    static const enum qd_type types[] = {QD_TYPE_F32, QD_TYPE_F16, QD_TYPE_BF16, QD_TYPE_Q8_0, QD_TYPE_Q4_0};
    const struct ops *ops = ops_for(0);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        assert_non_null(ops->quantize[types[i]]);
        assert_non_null(ops->dequantize[types[i]]);
    }
    assert_non_null(ops->measure);
    assert_non_null(ops->find_nonfinite);
    assert_null(ops->quantize[QD_TYPE_I8]);
    assert_ptr_equal(ops, ops_for(0));
    assert_ptr_equal(ops, ops_for(CPU_AVX512BF16)); /* no kernel asks for it: the same table */
}

static void kernels_list__every_operation__starts_with_scalar(void **state)
{
    (void)state;
    size_t n;
    const struct kernel_entry *list = kernels_list(&n);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(list[i].op, list[i - 1].op) != 0)
            assert_string_equal(list[i].variant, "scalar");
}

/* The function that kernels.def names last for @op among those that @features allow. */
static void (*last_allowed(const char *op, uint64_t features))(void)
{
    size_t n;
    const struct kernel_entry *list = kernels_list(&n);
    void (*fn)(void) = NULL;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].op, op) == 0 && (features & list[i].needs) == list[i].needs)
            fn = list[i].fn;
    return fn;
}

static void ops_for__any_features__takes_the_last_line_they_allow(void **state)
{
    (void)state;
    static const uint64_t sets[] = {0,       CPU_F16C, CPU_AVX2, CPU_AVX2 | CPU_F16C, CPU_AVX512 | CPU_AVX2 | CPU_F16C,
                                    CPU_NEON};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        const struct ops *ops = ops_for(sets[i]);
        assert_true((void (*)(void))ops->quantize[QD_TYPE_Q8_0] == last_allowed("quantize_q8_0", sets[i]));
        assert_true((void (*)(void))ops->dequantize[QD_TYPE_BF16] == last_allowed("dequantize_bf16", sets[i]));
        assert_true((void (*)(void))ops->measure == last_allowed("measure", sets[i]));
        assert_true((void (*)(void))ops->find_nonfinite == last_allowed("find_nonfinite", sets[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_filter__kept_name__keeps_what_it_builds_on),
        cmocka_unit_test(cpu_filter__dropped_name__drops_what_builds_on_it),
        cmocka_unit_test(cpu_filter__scalar__keeps_nothing),
        cmocka_unit_test(cpu_filter__name_the_cpu_lacks__adds_nothing),
        cmocka_unit_test(cpu_filter__typing_mistake__is_reported_and_changes_nothing),
        cmocka_unit_test(cpu_features_string__any_set__is_sorted_and_reads_back),
        cmocka_unit_test(cpu_features_read__what_no_machine_has__says_which_word_and_what_there_is),
        cmocka_unit_test(cpu_with_foundations__a_feature__has_what_it_builds_on),
        cmocka_unit_test(cpu_features_parse__other_architecture_or_name__is_refused),
        cmocka_unit_test(cpu_features__in_use__are_some_of_those_detected),
        cmocka_unit_test(ops_for__no_features__is_complete_and_the_same_pointer_each_time),
        cmocka_unit_test(ops_for__any_features__takes_the_last_line_they_allow),
        cmocka_unit_test(kernels_list__every_operation__starts_with_scalar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
