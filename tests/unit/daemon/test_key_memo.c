#include "tests/test.h"

#include <string.h>

#include "artifact/manifest.h"
#include "daemon/key_memo.h"

static struct digest source_of(uint8_t first, uint8_t last)
{
    struct digest d = {{0}};
    d.bytes[0] = first;
    d.bytes[DIGEST_BYTES - 1] = last;
    return d;
}

static bool is_right(struct key_memo *m, struct digest source, const char *recipe, enum qd_layout layout,
                     uint32_t revision)
{
    struct digest expected, d;
    assert_int_equal(artifact_key(&source, recipe, qd_layout_info(layout)->name, revision, &expected, NULL), 0);
    assert_int_equal(key_memo_get(m, &source, recipe, layout, revision, &d, NULL), 0);
    return digest_equal(&d, &expected);
}

/* All of one slot, each after another that it must not be taken for. */
static void key_memo_get__others_in_the_same_place__every_part_counts(void **state)
{
    static struct key_memo m;
    (void)state;
    for (int again = 0; again < 2; again++) {
        assert_true(is_right(&m, source_of(7, 1), "scheme=q8_0", QD_LAYOUT_PORTABLE, 1));
        assert_true(is_right(&m, source_of(7, 1), "scheme=q8_0", QD_LAYOUT_PORTABLE, 1));
        assert_true(is_right(&m, source_of(7, 2), "scheme=q8_0", QD_LAYOUT_PORTABLE, 1));
        assert_true(is_right(&m, source_of(7, 2), "scheme=q4_0", QD_LAYOUT_PORTABLE, 1));
        assert_true(is_right(&m, source_of(7, 2), "scheme=q4_0", QD_LAYOUT_PORTABLE, 2));
        assert_true(is_right(&m, source_of(7, 2), "scheme=q4_0", QD_LAYOUT_R8K4P128, 2));
        assert_true(
            is_right(&m, source_of((uint8_t)(7 - 16 * QD_LAYOUT_R8K4P128), 2), "scheme=q4_0", QD_LAYOUT_R8K4P128, 2));
        assert_true(is_right(&m, source_of((uint8_t)(7 + KEYS_KEPT), 2), "scheme=q4_0", QD_LAYOUT_PORTABLE, 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_memo_get__others_in_the_same_place__every_part_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
