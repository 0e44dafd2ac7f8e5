#include "tests/test.h"

#include <string.h>

#include "quant/recipe.h"

static void scheme_parse__every_name__comes_back(void **state)
{
    (void)state;
    for (int i = 0; i < N_SCHEMES; i++) {
        enum scheme got = N_SCHEMES;
        assert_int_equal(scheme_parse(scheme_name((enum scheme)i), &got, NULL), 0);
        assert_int_equal(got, i);
    }
}

static void scheme_parse__misspelt__suggests_the_nearest(void **state)
{
    (void)state;
    enum scheme got = N_SCHEMES;
    struct qd_error err = {0};
    assert_int_equal(scheme_parse("q8-0", &got, &err), QD_E_INVALID);
    assert_int_equal(got, N_SCHEMES);
    assert_non_null(strstr(err.message, "q8-0"));
    assert_non_null(strstr(err.hint, "did you mean 'q8_0'"));
    assert_int_equal(scheme_parse("gigantic", &got, &err), QD_E_INVALID);
    assert_null(strstr(err.hint, "did you mean"));
    assert_non_null(strstr(err.hint, "auto, f16, bf16, q8_0, q4_0"));
}

static void recipe_text__every_recipe__is_parsed_back(void **state)
{
    (void)state;
    for (int s = SCHEME_AUTO + 1; s < N_SCHEMES; s++) {
        for (int pure = 0; pure < 2; pure++) {
            struct recipe r = {(enum scheme)s, pure != 0}, back = {0};
            char text[RECIPE_TEXT_MAX];
            recipe_text(&r, text);
            assert_int_equal(recipe_parse(text, &back, NULL), 0);
            assert_int_equal(back.scheme, r.scheme);
            assert_int_equal(back.pure, r.pure);
        }
    }
}

static void recipe_text__weighted__holds_the_digest_and_is_parsed_back(void **state)
{
    (void)state;
    struct recipe r = {.scheme = SCHEME_Q4_0, .weighted = true, .importance = {{0xab, 1}}}, back = {0};
    char text[RECIPE_TEXT_MAX];
    recipe_text(&r, text);
    assert_string_equal(text, "scheme=q4_0 pure=0 imatrix="
                              "ab01000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(recipe_parse(text, &back, NULL), 0);
    assert_true(back.weighted);
    assert_true(digest_equal(&back.importance, &r.importance));
    text[strlen(text) - 1] = 'x';
    assert_int_equal(recipe_parse(text, &back, NULL), QD_E_INVALID);
    text[strlen(text) - 1] = '\0';
    assert_int_equal(recipe_parse(text, &back, NULL), QD_E_INVALID);
}

static void recipe_parse__anything_but_the_canonical_text__is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "scheme=q4_0",
                                      "scheme=q4_0 pure=2",
                                      "scheme=q4_0  pure=1",
                                      "scheme=auto pure=0",
                                      "pure=1 scheme=q4_0",
                                      "scheme=q4_0 pure=1 ",
                                      "scheme=Q4_0 pure=1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct recipe back;
        assert_int_equal(recipe_parse(bad[i], &back, NULL), QD_E_INVALID);
    }
}

static void policy_resolve__auto__follows_memory_and_says_why(void **state)
{
    (void)state;
    struct policy_facts facts = {.memory_bytes = 8ull << 30, .n_elements = 1100048384};
    struct recipe r;
    char why[POLICY_WHY_MAX];
    assert_int_equal(policy_resolve(SCHEME_AUTO, false, &facts, &r, why, NULL), 0);
    assert_int_equal(r.scheme, SCHEME_Q8_0);
    assert_non_null(strstr(why, "1.1 GiB"));
    assert_non_null(strstr(why, "8.0 GiB"));
    facts.memory_bytes = 4ull << 30;
    assert_int_equal(policy_resolve(SCHEME_AUTO, true, &facts, &r, why, NULL), 0);
    assert_int_equal(r.scheme, SCHEME_Q4_0);
    assert_true(r.pure);
    assert_non_null(strstr(why, "q4_0"));
}

static void policy_resolve__scheme_named__is_kept(void **state)
{
    (void)state;
    struct policy_facts facts = {0};
    struct recipe r;
    char why[POLICY_WHY_MAX];
    assert_int_equal(policy_resolve(SCHEME_BF16, true, &facts, &r, why, NULL), 0);
    assert_int_equal(r.scheme, SCHEME_BF16);
    assert_string_equal(why, "bf16 was asked for");
}

static void policy_memory_bytes__this_machine__is_known(void **state)
{
    (void)state;
    assert_true(policy_memory_bytes() > 64 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scheme_parse__every_name__comes_back),
        cmocka_unit_test(scheme_parse__misspelt__suggests_the_nearest),
        cmocka_unit_test(recipe_text__every_recipe__is_parsed_back),
        cmocka_unit_test(recipe_text__weighted__holds_the_digest_and_is_parsed_back),
        cmocka_unit_test(recipe_parse__anything_but_the_canonical_text__is_refused),
        cmocka_unit_test(policy_resolve__auto__follows_memory_and_says_why),
        cmocka_unit_test(policy_resolve__scheme_named__is_kept),
        cmocka_unit_test(policy_memory_bytes__this_machine__is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
