#include "tests/test.h"

#include <string.h>

#include "kernels/cpu.h"
#include "quant/policy.h"
#include "quant/tensor_rules.h"

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
    assert_non_null(strstr(err.hint, ", f32")); /* the list is whole */
    assert_int_equal(scheme_parse("q4_k_x", &got, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "mxfp4_moe, f32"));
}

static void scheme_parse__without_underscores__suggests_the_same_letters(void **state)
{
    (void)state;
    static const char *const words[][2] = {{"q4km", "'q4_k_m'"},  {"Q4-K-M", "'q4_k_m'"},      {"q3kl", "'q3_k_l'"},
                                           {"iq4nl", "'iq4_nl'"}, {"mxfp4moe", "'mxfp4_moe'"}, {"q80", "'q8_0'"},
                                           {"q6.k", "'q6_k'"},    {"q4k", "'q4_k_m'"},         {"q4_k_", "'q4_k_m'"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        enum scheme got = N_SCHEMES;
        struct qd_error err = {0};
        assert_int_equal(scheme_parse(words[i][0], &got, &err), QD_E_INVALID);
        if (!strstr(err.hint, "did you mean ") || !strstr(err.hint, words[i][1]))
            fail_msg("%s", err.hint);
    }
}

static void scheme_parse__upper_case_and_short_names__are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum scheme scheme;
    } names[] = {{"Q4_K_M", SCHEME_Q4_K_M}, {"MXFP4_MOE", SCHEME_MXFP4_MOE}, {"q3_k", SCHEME_Q3_K_M},
                 {"Q4_K", SCHEME_Q4_K_M},   {"q5_k", SCHEME_Q5_K_M},         {"Auto", SCHEME_AUTO}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        enum scheme got = N_SCHEMES;
        assert_int_equal(scheme_parse(names[i].name, &got, NULL), 0);
        assert_int_equal(got, names[i].scheme);
    }
}

static void target_type_parse__what_we_make__and_nothing_else(void **state)
{
    (void)state;
    enum qd_type got = QD_N_TYPES;
    struct qd_error err = {0};
    assert_int_equal(target_type_parse("Q6_K", &got, &err), 0);
    assert_int_equal(got, QD_TYPE_Q6_K);
    static const char *const bad[] = {"q8_k", "q8_1", "iq2_xxs", "i8", "q4_k_m", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(target_type_parse(bad[i], &got, &err), QD_E_INVALID);
    assert_non_null(strstr(err.hint, "iq4_xs"));
    assert_int_equal(got, QD_TYPE_Q6_K);
}

static void recipe_text__every_recipe__is_parsed_back(void **state)
{
    (void)state;
    for (int s = SCHEME_AUTO + 1; s < N_SCHEMES; s++) {
        for (int pure = 0; pure < 2; pure++) {
            struct recipe r = {.scheme = (enum scheme)s, .pure = pure != 0}, back = {0};
            char text[RECIPE_TEXT_MAX];
            recipe_text(&r, text);
            assert_int_equal(recipe_parse(text, &back, NULL), 0);
            assert_int_equal(back.scheme, r.scheme);
            assert_int_equal(back.pure, r.pure);
            assert_true(recipe_equal(&r, &back));
        }
    }
}

static void set(struct recipe *r, const char *key, const char *value)
{
    struct qd_error err = {0};
    if (recipe_set(r, key, value, &err) < 0)
        fail_msg("%s=%s: %s", key, value, err.message);
}

static void recipe_text__every_choice__stands_in_its_place_and_comes_back(void **state)
{
    (void)state;
    struct recipe r = {0}, back;
    char text[RECIPE_TEXT_MAX];
    set(&r, "keep", "ffn gate=50%\t$");
    set(&r, "tensor", "blk\\.[0-9]+\\.attn_(q|k)=Q6_K");
    set(&r, "imatrix", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    set(&r, "requantize", "1");
    set(&r, "leave_output", "1");
    set(&r, "embedding", "q4_0");
    set(&r, "output", "bf16");
    set(&r, "scheme", "q4_k");
    recipe_text(&r, text);
    assert_string_equal(text, "scheme=q4_k_m pure=0 output=bf16 embedding=q4_0 leave_output=1 requantize=1 "
                              "imatrix=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff "
                              "keep=ffn%20gate=50%25%09$ tensor=blk\\.[0-9]+\\.attn_(q|k)=q6_k");
    assert_int_equal(recipe_parse(text, &back, NULL), 0);
    assert_true(recipe_equal(&r, &back));
    assert_true(back.weighted && back.importance.bytes[1] == 0x11);
    assert_true(back.has_output && back.output == QD_TYPE_BF16);
    set(&back, "requantize", "0");
    assert_false(recipe_equal(&r, &back));
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
                                      "scheme=Q4_0 pure=1",
                                      "scheme=q4_k pure=1",
                                      "scheme=q4_0 pure=1 output=Q8_0",
                                      "scheme=q4_0 pure=1 output=q9",
                                      "scheme=q4_0 pure=1 leave_output=0",
                                      "scheme=q4_0 pure=1 embedding=q8_0 output=q8_0",
                                      "scheme=q4_0 pure=1 output=q8_0 output=q8_0",
                                      "scheme=q4_0 pure=1 imatrix=00",
                                      "scheme=q4_0 pure=1 keep=",
                                      "scheme=q4_0 pure=1 keep=a%2",
                                      "scheme=q4_0 pure=1 keep=a%41",
                                      "scheme=q4_0 pure=1 keep=(",
                                      "scheme=q4_0 pure=1 tensor=a",
                                      "scheme=q4_0 pure=1 tensor=a=q8_0 requantize=1",
                                      "scheme=q4_0 pure=1 unknown=1"};
    struct recipe back;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (recipe_parse(bad[i], &back, NULL) != QD_E_INVALID)
            fail_msg("taken: %s", bad[i]);
    char long_text[2 * RECIPE_TEXT_MAX];
    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    assert_int_equal(recipe_parse(long_text, &back, NULL), QD_E_INVALID);
}

static void recipe_set__what_is_wrong__says_so_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
        int code;
        const char *message, *hint;
    } bad[] = {
        {"tensor", "ffn_down", QD_E_INVALID, "names no type", "REGEX=TYPE"},
        {"tensor", "ffn_down=q9_k", QD_E_INVALID, "unknown type 'q9_k'", "did you mean"},
        {"tensor", "=q8_0", QD_E_INVALID, "is empty", "'.'"},
        {"tensor", "a(b=q8_0", QD_E_INVALID, "pattern 'a(b'", "regex(7)"},
        {"keep", "a{1", QD_E_INVALID, "pattern 'a{1'", "regex(7)"},
        {"keep", "blk\\.\\d+", QD_E_INVALID, "backslash", "[0-9] for \\d"},
        {"keep", "(?:ffn)_up", QD_E_INVALID, "(?", "groups are (...)"},
        {"keep", "((((((((((((a+)+)+)+)+)+)+)+)+)+)+)+)+", QD_E_LIMIT, "passes 512", "several rules"},
        {"keep", "(((a{100}){100}){100})", QD_E_LIMIT, "passes 512", "several rules"},
        {"keep", "a{1,32000}", QD_E_LIMIT, "passes 512", "several rules"},
        {"output", "q2", QD_E_INVALID, "unknown type", "q2_k"},
        {"embedding", "i8", QD_E_INVALID, "unknown type", "types:"},
        {"pure", "yes", QD_E_INVALID, "pure=yes", ""},
        {"imatrix", "0123", QD_E_INVALID, "digest", ""},
        {"color", "red", QD_E_INVALID, "color=red", ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct recipe r = {.scheme = SCHEME_Q4_0}, was = r;
        struct qd_error err = {0};
        int code = recipe_set(&r, bad[i].key, bad[i].value, &err);
        if (code != bad[i].code || !strstr(err.message, bad[i].message) || !strstr(err.hint, bad[i].hint))
            fail_msg("%s=%s: %d, %s; %s", bad[i].key, bad[i].value, code, err.message, err.hint);
        assert_memory_equal(&r, &was, sizeof r);
    }
}

static void recipe_set__too_much__is_a_limit(void **state)
{
    (void)state;
    struct recipe r = {.scheme = SCHEME_Q4_0};
    struct qd_error err = {0};
    for (int i = 0; i < TENSOR_RULES_MAX; i++)
        set(&r, "keep", "x");
    assert_int_equal(recipe_set(&r, "keep", "x", &err), QD_E_LIMIT);
    assert_non_null(strstr(err.message, "32"));

    struct recipe wide = {.scheme = SCHEME_Q4_0};
    char pattern[300];
    memset(pattern, ' ', sizeof pattern); /* three bytes each as text */
    pattern[TENSOR_PATTERN_MAX + 1] = 0;
    assert_int_equal(recipe_set(&wide, "keep", pattern, &err), QD_E_LIMIT);
    assert_non_null(strstr(err.message, "longer than 255"));
    pattern[TENSOR_PATTERN_MAX] = 0;
    set(&wide, "keep", pattern);
    assert_int_equal(recipe_set(&wide, "keep", pattern, &err), QD_E_LIMIT);
    char text[RECIPE_TEXT_MAX];
    struct recipe back;
    recipe_text(&wide, text);
    assert_int_equal(recipe_parse(text, &back, NULL), 0);
    assert_true(recipe_equal(&wide, &back));
}

static void recipe_encoder_revision__types_that_a_recipe_can_use__count(void **state)
{
    (void)state;
    struct recipe pure = {.scheme = SCHEME_Q8_0, .pure = true}, mixed = {.scheme = SCHEME_Q8_0}, own = pure;
    uint32_t alone = recipe_encoder_revision(&pure);
    assert_int_equal(recipe_encoder_revision(&mixed), alone); /* q8_0 and f16 in both */
    set(&own, "tensor", "ffn=q6_k");
    assert_true(recipe_encoder_revision(&own) > alone);
    own = pure;
    set(&own, "output", "q4_0");
    assert_true(recipe_encoder_revision(&own) > alone);
    own = pure;
    set(&own, "keep", "ffn");
    assert_int_equal(recipe_encoder_revision(&own), alone);
    mixed.scheme = SCHEME_Q2_K;
    pure.scheme = SCHEME_Q2_K;
    assert_true(recipe_encoder_revision(&mixed) > recipe_encoder_revision(&pure));
}

static void policy_resolve__auto__follows_memory_and_says_why(void **state)
{
    (void)state;
    static const struct {
        uint64_t memory_mib;
        enum scheme scheme;
        const char *why;
    } machines[] = {
        {8192, SCHEME_Q8_0, "q8_0's 1.1 GiB fit in a quarter of the 8.0 GiB there is; all but lossless"},
        {4096, SCHEME_Q6_K,
         "q8_0's 1.1 GiB would pass a quarter; q6_k's 860.6 MiB fit in a quarter of the 4.0 GiB there is"},
        {3200, SCHEME_Q5_K_M, "q5_k_m's 748.0 MiB fit in a quarter"},
        {2700, SCHEME_Q4_K_M, "q4_k_m's 641.8 MiB fit in a quarter"},
        {2048, SCHEME_Q4_K_M,
         "would pass a quarter; q4_k_m's 641.8 MiB fit in two thirds of the 2.0 GiB there is; three"},
        {900, SCHEME_Q3_K_M, "q4_k_m's 641.8 MiB would pass two thirds; q3_k_m's 524.0 MiB fit in two thirds of the"},
        {512, SCHEME_Q2_K, "would pass two thirds; q2_k's 414.3 MiB out of the 512.0 MiB there is; the smallest"},
    };
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        struct policy_facts facts = {.memory_bytes = machines[i].memory_mib << 20,
                                     .n_elements = 1100048384,
                                     .cpu_features = CPU_AVX2 | CPU_FMA | CPU_F16C};
        struct recipe asked = {.pure = i % 2 == 1, .requantize = true}, r;
        char why[POLICY_WHY_MAX];
        policy_resolve(&asked, &facts, &r, why);
        assert_int_equal(r.scheme, machines[i].scheme);
        assert_true(r.pure == asked.pure && r.requantize);
        assert_non_null(strstr(why, "auto, table 4, x86-64 with AVX2: "));
        if (!strstr(why, machines[i].why))
            fail_msg("%s", why);
    }
}

static void policy_resolve__auto__knows_what_a_machine_gains_from_fewer_bytes(void **state)
{
    (void)state;
    static const struct {
        uint64_t features;
        enum scheme scheme; /* of 1.1 G elements with 4 GiB */
        const char *why;
    } machines[] = {
        {CPU_NEON | CPU_DOTPROD, SCHEME_Q6_K, "Arm with dotprod: "},
        {CPU_NEON, SCHEME_Q4_K_M, "Arm without dotprod: q4_k_m's 641.8 MiB would pass an eighth"},
        {CPU_AVX2, SCHEME_Q8_0, "no vector kernels: q8_0's 1.1 GiB fit in two thirds"},
        {0, SCHEME_Q8_0, "no vector kernels: q8_0's 1.1 GiB fit in two thirds"},
    };
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        struct policy_facts facts = {.memory_bytes = UINT64_C(4) << 30,
                                     .model_bytes = UINT64_C(2200096768),
                                     .cpu_features = machines[i].features};
        struct recipe asked = {0}, r;
        char why[POLICY_WHY_MAX];
        policy_resolve(&asked, &facts, &r, why);
        assert_int_equal(r.scheme, machines[i].scheme);
        if (!strstr(why, machines[i].why))
            fail_msg("%s", why);
    }
}

/* Reasons are for one line, and none is ever cut. */
static void policy_resolve__any_machine_and_model__says_a_whole_sentence(void **state)
{
    (void)state;
    static const uint64_t features[] = {0, CPU_NEON, CPU_NEON | CPU_DOTPROD, CPU_AVX2 | CPU_FMA | CPU_F16C};
    for (size_t f = 0; f < sizeof features / sizeof features[0]; f++) {
        for (int memory = 20; memory < 64; memory++) {
            for (int elements = 0; elements < 60; elements++) {
                struct policy_facts facts = {.memory_bytes = UINT64_C(1) << memory,
                                             .n_elements = UINT64_C(1) << elements,
                                             .cpu_features = features[f]};
                struct recipe asked = {0}, r;
                char why[POLICY_WHY_MAX];
                policy_resolve(&asked, &facts, &r, why);
                assert_true(strlen(why) < sizeof why - 1);
                (void)policy_layout(&r, &facts, why);
                assert_true(why[0] && strlen(why) < sizeof why - 1);
            }
        }
    }
}

static void policy_resolve__scheme_named__is_kept(void **state)
{
    (void)state;
    struct policy_facts facts = {0};
    struct recipe asked = {.scheme = SCHEME_BF16, .pure = true}, r;
    char why[POLICY_WHY_MAX];
    policy_resolve(&asked, &facts, &r, why);
    assert_int_equal(r.scheme, SCHEME_BF16);
    assert_string_equal(why, "bf16 was asked for");
}

static void policy_layout__features_and_types__give_the_native_one_or_portable_and_why(void **state)
{
    (void)state;
    static const struct {
        uint64_t features;
        enum scheme scheme;
        uint64_t cache_gib;
        enum qd_layout layout;
        const char *why;
    } cases[] = {
        {CPU_AVX512 | CPU_AVX512VNNI | CPU_AVX2 | CPU_FMA | CPU_F16C, SCHEME_Q4_K_M, 0, QD_LAYOUT_R16K4P128,
         "avx512vnni"},
        {CPU_AVX512 | CPU_AVX2 | CPU_FMA | CPU_F16C, SCHEME_Q8_0, 0, QD_LAYOUT_R8K4P128, "x86_64+avx2+f16c+fma"},
        {CPU_AVX2, SCHEME_Q8_0, 0, QD_LAYOUT_PORTABLE, "no vector kernels"},
        {CPU_NEON | CPU_I8MM, SCHEME_Q4_0, 0, QD_LAYOUT_R4K8P128, "aarch64+i8mm+neon"},
        {CPU_NEON, SCHEME_Q6_K, 0, QD_LAYOUT_R4K4P128, "aarch64+neon"},
        {CPU_NEON, SCHEME_F16, 0, QD_LAYOUT_PORTABLE, "no packed form"},
        {CPU_NEON, SCHEME_IQ4_XS, 0, QD_LAYOUT_PORTABLE, "no packed form"},
        {CPU_NEON, SCHEME_Q8_0, 2, QD_LAYOUT_PORTABLE, "budget"},
        {CPU_NEON, SCHEME_Q8_0, 3, QD_LAYOUT_R4K4P128, "aarch64+neon"},
        {0, SCHEME_Q8_0, 0, QD_LAYOUT_PORTABLE, "no vector kernels"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct policy_facts facts = {.n_elements = 1100048384,
                                     .memory_bytes = UINT64_C(4) << 30,
                                     .cpu_features = cases[i].features,
                                     .cache_bytes = cases[i].cache_gib << 30};
        struct recipe r = {.scheme = cases[i].scheme};
        char why[POLICY_WHY_MAX];
        assert_int_equal(policy_layout(&r, &facts, why), cases[i].layout);
        if (!strstr(why, cases[i].why))
            fail_msg("%s", why);
    }
}

static void policy_layout__weights_beyond_memory__are_left_portable(void **state)
{
    (void)state;
    struct policy_facts facts = {.n_elements = 1100048384, .memory_bytes = UINT64_C(1) << 30, .cpu_features = CPU_NEON};
    char why[POLICY_WHY_MAX];
    assert_int_equal(policy_layout(&(struct recipe){.scheme = SCHEME_Q8_0}, &facts, why), QD_LAYOUT_PORTABLE);
    assert_non_null(strstr(why, "pass memory"));
    assert_int_equal(policy_layout(&(struct recipe){.scheme = SCHEME_Q4_0}, &facts, why), QD_LAYOUT_R4K4P128);
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
        cmocka_unit_test(scheme_parse__without_underscores__suggests_the_same_letters),
        cmocka_unit_test(scheme_parse__upper_case_and_short_names__are_understood),
        cmocka_unit_test(target_type_parse__what_we_make__and_nothing_else),
        cmocka_unit_test(recipe_text__every_recipe__is_parsed_back),
        cmocka_unit_test(recipe_text__every_choice__stands_in_its_place_and_comes_back),
        cmocka_unit_test(recipe_text__weighted__holds_the_digest_and_is_parsed_back),
        cmocka_unit_test(recipe_parse__anything_but_the_canonical_text__is_refused),
        cmocka_unit_test(recipe_set__what_is_wrong__says_so_and_changes_nothing),
        cmocka_unit_test(recipe_set__too_much__is_a_limit),
        cmocka_unit_test(recipe_encoder_revision__types_that_a_recipe_can_use__count),
        cmocka_unit_test(policy_resolve__auto__follows_memory_and_says_why),
        cmocka_unit_test(policy_resolve__auto__knows_what_a_machine_gains_from_fewer_bytes),
        cmocka_unit_test(policy_resolve__any_machine_and_model__says_a_whole_sentence),
        cmocka_unit_test(policy_layout__weights_beyond_memory__are_left_portable),
        cmocka_unit_test(policy_resolve__scheme_named__is_kept),
        cmocka_unit_test(policy_layout__features_and_types__give_the_native_one_or_portable_and_why),
        cmocka_unit_test(policy_memory_bytes__this_machine__is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
