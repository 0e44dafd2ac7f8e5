#include <string.h>

#include "ipc/precheck.h"
#include "tests/test.h"

static int check(const char *raw, size_t n)
{
    struct qd_error err;
    return precheck((struct bytes){(const uint8_t *)raw, n}, &err);
}
#define CHECK(literal) check(literal, sizeof(literal) - 1)

static void precheck__every_plain_form__passes(void **state)
{
    (void)state;
    assert_int_equal(CHECK("\x00"), 0);
    assert_int_equal(CHECK("\xff"), 0);
    assert_int_equal(CHECK("\xc0"), 0);
    assert_int_equal(CHECK("\xc3"), 0);
    assert_int_equal(CHECK("\xc4\x02"
                           "ab"),
                     0);
    assert_int_equal(CHECK("\xc5\x00\x01"
                           "a"),
                     0);
    assert_int_equal(CHECK("\xc6\x00\x00\x00\x00"), 0);
    assert_int_equal(CHECK("\xca"
                           "1234"),
                     0);
    assert_int_equal(CHECK("\xcb"
                           "12345678"),
                     0);
    assert_int_equal(CHECK("\xcf"
                           "12345678"),
                     0);
    assert_int_equal(CHECK("\xd1"
                           "12"),
                     0);
    assert_int_equal(CHECK("\xd9\x03"
                           "abc"),
                     0);
    assert_int_equal(CHECK("\xdc\x00\x02\x01\x02"), 0);
    assert_int_equal(CHECK("\xdf\x00\x00\x00\x01\xa1"
                           "k\x90"),
                     0);
    assert_int_equal(CHECK("\x94\x00\x01\xa4"
                           "open\x81\xa5"
                           "model\xa4"
                           "tiny"),
                     0);
}

static void precheck__announces_more_than_it_holds__is_refused(void **state)
{
    (void)state;
    assert_int_equal(CHECK("\xdf\x08\x00\x00\x00"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xdf\xff\xff\xff\xff\x00\x00"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xdd\xff\xff\xff\xff\x00\x00"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xc6\xff\xff\xff\xff\x00"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xdb\x00\x00\x00\x02"
                           "a"),
                     QD_E_PROTOCOL);
    assert_int_equal(CHECK("\x93\x01\x02"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xcf"
                           "1234567"),
                     QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xdc\x00"), QD_E_PROTOCOL);
    assert_int_equal(CHECK(""), QD_E_PROTOCOL);
}

static void precheck__extension_or_unused_byte__is_refused(void **state)
{
    (void)state;
    assert_int_equal(CHECK("\xc1"), QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xc7\x01\x00"
                           "a"),
                     QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xd4\x00"
                           "a"),
                     QD_E_PROTOCOL);
    assert_int_equal(CHECK("\xd8\x00"
                           "0123456789abcdef"),
                     QD_E_PROTOCOL);
}

static void precheck__bytes_behind_the_object__are_refused(void **state)
{
    (void)state;
    assert_int_equal(CHECK("\x90\x90"), QD_E_PROTOCOL);
    struct cursor c = cursor_over((struct bytes){(const uint8_t *)"\x91\x07\x90", 3});
    struct bytes first, second;
    assert_int_equal(precheck_next(&c, &first, NULL), 0);
    assert_int_equal(first.n, 2);
    assert_int_equal(precheck_next(&c, &second, NULL), 0);
    assert_int_equal(second.n, 1);
    assert_int_equal(precheck_next(&c, &second, NULL), QD_E_PROTOCOL);
}

static void precheck__depth__has_an_exact_bound(void **state)
{
    (void)state;
    char nested[PRECHECK_DEPTH_MAX + 2];
    memset(nested, 0x91, sizeof nested);
    nested[PRECHECK_DEPTH_MAX] = 0x00;
    assert_int_equal(check(nested, PRECHECK_DEPTH_MAX + 1), 0);
    nested[PRECHECK_DEPTH_MAX] = (char)0x91;
    nested[PRECHECK_DEPTH_MAX + 1] = 0x00;
    assert_int_equal(check(nested, PRECHECK_DEPTH_MAX + 2), QD_E_PROTOCOL);
}

static void precheck__objects__have_an_exact_bound(void **state)
{
    (void)state;
    static char many[3 + PRECHECK_OBJECTS_MAX] = "\xdc";
    for (size_t items = PRECHECK_OBJECTS_MAX - 1; items <= PRECHECK_OBJECTS_MAX; items++) {
        many[1] = (char)(items >> 8);
        many[2] = (char)items;
        assert_int_equal(check(many, 3 + items), items < PRECHECK_OBJECTS_MAX ? 0 : QD_E_PROTOCOL);
    }
}

static void precheck__every_prefix_of_a_message__is_refused(void **state)
{
    (void)state;
    static const char whole[] = "\x94\x01\xcd\x01\x02\xc0\x82\xa3"
                                "abc\xdc\x00\x02\xc2\xcb"
                                "12345678\xa1"
                                "k\xc4\x01z";
    assert_int_equal(check(whole, sizeof whole - 1), 0);
    for (size_t n = 0; n < sizeof whole - 1; n++)
        assert_int_equal(check(whole, n), QD_E_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precheck__every_plain_form__passes),
        cmocka_unit_test(precheck__announces_more_than_it_holds__is_refused),
        cmocka_unit_test(precheck__extension_or_unused_byte__is_refused),
        cmocka_unit_test(precheck__bytes_behind_the_object__are_refused),
        cmocka_unit_test(precheck__depth__has_an_exact_bound),
        cmocka_unit_test(precheck__objects__have_an_exact_bound),
        cmocka_unit_test(precheck__every_prefix_of_a_message__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
