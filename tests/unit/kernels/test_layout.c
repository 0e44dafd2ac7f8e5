#include "kernels/layout/packed.h"

#include <stdio.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "tests/test.h"

static enum qd_layout layout_at(int i)
{
    return (enum qd_layout)i;
}

static void qd_layout_by_name__every_name__finds_its_layout(void **state)
{
    (void)state;
    for (int i = 0; i < QD_N_LAYOUTS; i++)
        assert_int_equal(qd_layout_by_name(qd_layout_info(layout_at(i))->name), i);
}

static void qd_layout_by_name__what_names_none__is_less_than_zero(void **state)
{
    (void)state;
    static const char *const none[] = {"", "r16", "r16k", "r16k4p128 ", "R16K4P128", "r4k16", "native", "auto"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(qd_layout_by_name(none[i]), -1);
}

static void qd_layout_info__no_layout__is_null(void **state)
{
    (void)state;
    assert_null(qd_layout_info(QD_N_LAYOUTS));
    assert_null(qd_layout_info(layout_at(-1)));
}

static void qd_layout_info__packed_names__say_rows_run_and_panel(void **state)
{
    (void)state;
    for (int i = QD_LAYOUT_PORTABLE + 1; i < QD_N_LAYOUTS; i++) {
        const struct qd_layout_info *info = qd_layout_info(layout_at(i));
        char name[24];
        assert_true(snprintf(name, sizeof name, "r%uk%up%u", info->rows, info->run, info->panel) < (int)sizeof name);
        assert_string_equal(info->name, name);
    }
}

static void layout_columns__every_layout__is_a_power_of_two(void **state)
{
    (void)state;
    for (int i = 0; i < QD_N_LAYOUTS; i++) {
        const uint32_t n = layout_columns(layout_at(i));
        assert_true(n >= 1 && (n & (n - 1)) == 0);
    }
}

static void layout_native__feature_sets__get_what_their_kernels_read(void **state)
{
    (void)state;
    static const uint64_t avx2 = CPU_AVX2 | CPU_FMA | CPU_F16C, avx512 = CPU_AVX512 | CPU_AVX2 | CPU_FMA | CPU_F16C;
    const struct {
        uint64_t features;
        enum qd_layout layout;
    } sets[] = {
        {0, QD_LAYOUT_PORTABLE},
        {CPU_AVX2 | CPU_F16C, QD_LAYOUT_PORTABLE}, /* products are fused */
        {CPU_F16C | CPU_FMA, QD_LAYOUT_PORTABLE},
        {avx2, QD_LAYOUT_R8K4P128},
        {avx2 | CPU_AVXVNNI, QD_LAYOUT_R8K4P128},
        {avx512, QD_LAYOUT_R8K4P128},
        {avx512 | CPU_AVX512VNNI, QD_LAYOUT_R16K4P128},
        {avx512 | CPU_AVX512VNNI | CPU_AVXVNNI | CPU_AMX_INT8, QD_LAYOUT_R16K4P128},
        {CPU_NEON, QD_LAYOUT_R4K4P128},
        {CPU_NEON | CPU_DOTPROD | CPU_FP16, QD_LAYOUT_R4K4P128},
        {CPU_NEON | CPU_DOTPROD | CPU_I8MM | CPU_SVE, QD_LAYOUT_R4K8P128},
        {CPU_DOTPROD | CPU_I8MM, QD_LAYOUT_PORTABLE},
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        assert_int_equal(layout_native(sets[i].features), sets[i].layout);
}

static void layout_native__what_a_layout_needs__is_enough_for_it(void **state)
{
    (void)state;
    for (int i = 0; i < QD_N_LAYOUTS; i++)
        assert_int_equal(layout_native(cpu_with_foundations(layout_needs(layout_at(i)))), i);
}

static void layout_features__every_layout__read_as_what_it_needs(void **state)
{
    (void)state;
    assert_string_equal(layout_features(QD_LAYOUT_PORTABLE), "");
    assert_true(layout_needs(QD_LAYOUT_PORTABLE) == 0);
    for (int i = QD_LAYOUT_PORTABLE + 1; i < QD_N_LAYOUTS; i++) {
        enum cpu_architecture architecture;
        uint64_t features;
        char text[128];
        assert_int_equal(cpu_features_read(layout_features(layout_at(i)), &architecture, &features, NULL), 0);
        assert_true(features == layout_needs(layout_at(i)));
        (void)cpu_features_string_of(architecture, features, text, sizeof text); /* its length is no news */
        assert_string_equal(layout_features(layout_at(i)), text);
    }
}

/* Is there a product for what @type is packed as? That of i4 is u4's. */
static bool has_product(enum qd_layout layout, enum qd_type type)
{
    return layout_packs(layout, type, 64) || (type != QD_TYPE_I4 && layout_packs_codes(layout, type, 64, 64));
}

/* A layout of this architecture whose needs are met is one that vectors read, for every type that is packed. */
static void layout_needs__met_here__give_kernels_that_are_not_scalar(void **state)
{
    (void)state;
    for (int i = QD_LAYOUT_PORTABLE + 1; i < QD_N_LAYOUTS; i++) {
        enum cpu_architecture architecture;
        uint64_t features;
        assert_int_equal(cpu_features_read(layout_features(layout_at(i)), &architecture, &features, NULL), 0);
        if (architecture != cpu_architecture_here)
            continue;
        const struct ops *ops = ops_for(cpu_with_foundations(features)), *scalar = ops_for(0);
        assert_ptr_not_equal(ops->interleave[i], scalar->interleave[i]);
        assert_ptr_not_equal(ops->deinterleave[i], scalar->deinterleave[i]);
        for (int type = 0; type < QD_N_TYPES; type++)
            if (has_product(layout_at(i), (enum qd_type)type))
                assert_ptr_not_equal(ops->matmul[type][i], scalar->matmul[type][i]);
    }
}

static void layout_packs__rows_of_a_group_or_more__only_for_packed_types(void **state)
{
    (void)state;
    const struct packed_field *fields;
    for (int i = QD_LAYOUT_PORTABLE + 1; i < QD_N_LAYOUTS; i++)
        for (int type = 0; type < QD_N_TYPES; type++) {
            const bool has_form = packed_fields((enum qd_type)type, &fields) > 0;
            const uint32_t rows = qd_layout_info(layout_at(i))->rows;
            assert_int_equal(layout_packs(layout_at(i), (enum qd_type)type, rows), has_form);
            assert_int_equal(layout_packs(layout_at(i), (enum qd_type)type, UINT64_MAX), has_form);
            assert_false(layout_packs(layout_at(i), (enum qd_type)type, rows - 1));
            assert_false(layout_packs(QD_LAYOUT_PORTABLE, (enum qd_type)type, rows));
        }
    assert_true(packed_fields(QD_TYPE_Q8_0, &fields) > 0);
    assert_true(packed_fields(QD_TYPE_F16, &fields) == 0);
}

static void layout_packs_codes__whole_blocks_of_a_group_or_more__only_codes_alone(void **state)
{
    (void)state;
    for (int i = QD_LAYOUT_PORTABLE + 1; i < QD_N_LAYOUTS; i++)
        for (int type = 0; type < QD_N_TYPES; type++) {
            const bool is_codes = type == QD_TYPE_I8 || type == QD_TYPE_I4 || type == QD_TYPE_U4;
            const uint32_t rows = qd_layout_info(layout_at(i))->rows;
            assert_int_equal(layout_is_codes((enum qd_type)type), is_codes);
            assert_int_equal(layout_packs_codes(layout_at(i), (enum qd_type)type, rows, 32), is_codes);
            assert_false(layout_packs_codes(layout_at(i), (enum qd_type)type, rows - 1, 32));
            assert_false(layout_packs_codes(layout_at(i), (enum qd_type)type, rows, 33));
            assert_false(layout_packs_codes(QD_LAYOUT_PORTABLE, (enum qd_type)type, rows, 32));
        }
}

static void packed_block_bytes__every_type__are_of_its_block_or_of_32_codes(void **state)
{
    (void)state;
    for (int type = 0; type < QD_N_TYPES; type++) {
        const struct qd_type_info *info = qd_type_info((enum qd_type)type);
        const uint32_t n_blocks = layout_is_codes((enum qd_type)type)                       ? 32 / info->block_elements
                                  : layout_packs(QD_LAYOUT_R4K4P128, (enum qd_type)type, 4) ? 1
                                                                                            : 0;
        assert_int_equal(packed_block_bytes((enum qd_type)type), n_blocks * info->block_bytes);
    }
}

/* Every type that is packed has a kernel for every layout, or an artifact of that layout could not be computed with. */
static void ops_for__no_features__has_a_product_for_every_type_and_layout(void **state)
{
    (void)state;
    const struct ops *ops = ops_for(0);
    for (int i = 0; i < QD_N_LAYOUTS; i++)
        for (int type = 0; type < QD_N_TYPES; type++)
            assert_int_equal(ops->matmul[type][i] != NULL, has_product(layout_at(i), (enum qd_type)type));
}

static void packed_list__every_operation__starts_with_scalar(void **state)
{
    (void)state;
    size_t n;
    const struct packed_entry *list = packed_list(&n);
    for (size_t i = 0; i < n; i++) {
        size_t first = 0;
        while (strcmp(list[first].op, list[i].op) != 0)
            first++;
        assert_string_equal(list[first].variant, "scalar");
        assert_true(list[first].needs == 0);
        assert_true(i == first || list[i].needs != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qd_layout_by_name__every_name__finds_its_layout),
        cmocka_unit_test(qd_layout_by_name__what_names_none__is_less_than_zero),
        cmocka_unit_test(qd_layout_info__no_layout__is_null),
        cmocka_unit_test(qd_layout_info__packed_names__say_rows_run_and_panel),
        cmocka_unit_test(layout_columns__every_layout__is_a_power_of_two),
        cmocka_unit_test(layout_native__feature_sets__get_what_their_kernels_read),
        cmocka_unit_test(layout_native__what_a_layout_needs__is_enough_for_it),
        cmocka_unit_test(layout_features__every_layout__read_as_what_it_needs),
        cmocka_unit_test(layout_needs__met_here__give_kernels_that_are_not_scalar),
        cmocka_unit_test(layout_packs__rows_of_a_group_or_more__only_for_packed_types),
        cmocka_unit_test(layout_packs_codes__whole_blocks_of_a_group_or_more__only_codes_alone),
        cmocka_unit_test(packed_block_bytes__every_type__are_of_its_block_or_of_32_codes),
        cmocka_unit_test(ops_for__no_features__has_a_product_for_every_type_and_layout),
        cmocka_unit_test(packed_list__every_operation__starts_with_scalar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
