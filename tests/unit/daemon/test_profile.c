#include "tests/test.h"

#include <string.h>

#include "daemon/profile.h"

static void profile_parse__every_key__is_read(void **state)
{
    (void)state;
    struct profile p = {0};
    struct qd_error err;
    int r = profile_parse("# a board\n\n  name = Raspberry Pi 5 \nfeatures=aarch64+dotprod\nmemory = 8 GiB\ncores: 4\n",
                          &p, &err);
    if (r < 0)
        fail_msg("%s", err.message);
    assert_string_equal(p.name, "Raspberry Pi 5");
    assert_int_equal(p.architecture, CPU_AARCH64);
    assert_true(p.features == (CPU_DOTPROD | CPU_NEON)); /* what it builds on is there, too */
    assert_true(p.memory_bytes == UINT64_C(8) << 30);
    assert_int_equal(p.cores, 4);
}

static void profile_parse__features_and_memory__are_enough(void **state)
{
    (void)state;
    struct profile p = {.cores = 7};
    assert_int_equal(profile_parse("features = x86_64\nmemory = 1073741824", &p, NULL), 0);
    assert_string_equal(p.name, "");
    assert_true(p.features == 0 && p.architecture == CPU_X86_64);
    assert_int_equal(p.cores, 0);
}

static void profile_parse__what_is_wrong__names_line_reason_and_next_step(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message, *hint;
    } bad[] = {
        {"", "no line says 'features'", "quantctl hw --save FILE"},
        {"features = x86_64+avx2\n", "no line says 'memory'", "quantctl hw --save FILE"},
        {"memory = 8G\nfeatures = sparc+vis\n", "line 2: unknown architecture 'sparc'", "x86_64 or aarch64"},
        {"memory = 8G\n\nfeatures = x86_64+avx3\n", "line 3: unknown feature 'avx3' of x86_64", "did you mean 'avx2'"},
        {"features = aarch64+avx2\nmemory = 8G\n", "line 1: unknown feature 'avx2' of aarch64", "neon"},
        {"features = x86_64\nmemory = -1\n", "line 2: memory = '-1'", "512M or 8G"},
        {"features = x86_64\nmemory = 1K\n", "line 2: memory = '1K'", "from 16M"},
        {"features = x86_64\nmemory = 8 bananas\n", "line 2: memory = '8 bananas'", "512M or 8G"},
        {"features = x86_64\nmemory = 99999T\n", "line 2: memory = '99999T'", "to 4096T"},
        {"features = x86_64\nmemory = 99999999999999999999999\n", "line 2: memory", "to 4096T"},
        {"features = x86_64\nmemory =\n", "line 2: memory = ''", "512M or 8G"},
        {"features = x86_64\nmemory = 8G\ncores = 0\n", "line 3: cores = '0'", "quantctl hw --save"},
        {"features = x86_64\nmemory = 8G\ncores = 4294967297\n", "line 3: cores", "quantctl hw --save"},
        {"features = x86_64\nfeatures = x86_64\n", "line 2: 'features' is said twice", "quantctl hw --save"},
        {"feature = x86_64\n", "line 1: a profile has no 'feature'", "did you mean 'features'"},
        {"[hardware]\nfeatures = x86_64\n", "line 2: a profile has no sections such as [hardware]", "quantctl hw"},
        {"features = x86_64\nsome words\nmemory = 1G\n", "line 2: not 'key = value'", "quantctl hw --save"},
        {"GGUF\003", "line 1: not 'key = value'", "quantctl hw --save"},
        {"{\"features\": \"x86_64\"}\n", "line 1: a profile has no", "t has name, features, memory, cores"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct profile p = {.cores = 7};
        struct qd_error err;
        assert_int_equal(profile_parse(bad[i].text, &p, &err), QD_E_INVALID);
        if (!strstr(err.message, bad[i].message) || !strstr(err.hint, bad[i].hint))
            fail_msg("%s: %s (%s)", bad[i].text, err.message, err.hint);
        assert_int_equal(p.cores, 7);
        assert_int_equal(profile_parse(bad[i].text, &p, NULL), QD_E_INVALID);
    }
}

static void profile_parse__too_much__is_refused(void **state)
{
    (void)state;
    static char text[PROFILE_BYTES + 64];
    struct profile p;
    struct qd_error err;
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(profile_parse(text, &p, &err), QD_E_LIMIT);
    text[PROFILE_BYTES - 1] = '\0';
    assert_int_equal(profile_parse(text, &p, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "line 1: longer than"));
    memcpy(text, "name = ", 7);
    text[150] = '\0';
    assert_int_equal(profile_parse(text, &p, &err), QD_E_INVALID);
    assert_non_null(strstr(err.message, "line 1: a name has at most 63 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_parse__every_key__is_read),
        cmocka_unit_test(profile_parse__features_and_memory__are_enough),
        cmocka_unit_test(profile_parse__what_is_wrong__names_line_reason_and_next_step),
        cmocka_unit_test(profile_parse__too_much__is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
