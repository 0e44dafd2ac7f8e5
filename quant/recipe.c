#include "quant/recipe.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "quant/mixture.h"
#include "quant/tensor_rules.h"

/*
 * What an encoder's bytes are numbered by, with and without importance. A number rises when, and only when, the bytes
 * of that type change for some input; artifacts under the old number then no longer match their key. 0: not made here.
 */
static const uint32_t type_revision[QD_N_TYPES] = {
    [QD_TYPE_F32] = 1,   [QD_TYPE_F16] = 1,   [QD_TYPE_BF16] = 1,  [QD_TYPE_Q8_0] = 1,   [QD_TYPE_Q4_0] = 1,
    [QD_TYPE_Q4_1] = 1,  [QD_TYPE_Q5_0] = 1,  [QD_TYPE_Q5_1] = 1,  [QD_TYPE_Q2_K] = 1,   [QD_TYPE_Q3_K] = 1,
    [QD_TYPE_Q4_K] = 1,  [QD_TYPE_Q5_K] = 1,  [QD_TYPE_Q6_K] = 1,  [QD_TYPE_IQ4_NL] = 1, [QD_TYPE_IQ4_XS] = 1,
    [QD_TYPE_TQ1_0] = 1, [QD_TYPE_TQ2_0] = 1, [QD_TYPE_MXFP4] = 1,
};

/* Rises when the planner gives some tensor another type, or the header other keys. 2: mixtures with k-quants. */
enum { PLAN_REVISION = 2 };

/* The same of the schemes of ONNX models alone: rises when their bytes change. */
enum { ONNX_REVISION = 1 };

/* --- schemes and types by name --- */

struct scheme_info {
    const char *name;
    enum qd_type type;
    uint32_t file_type;
    unsigned families;
};

static const struct scheme_info schemes[N_SCHEMES] = {
    [SCHEME_AUTO] = {"auto", QD_TYPE_F32, 0, FAMILY_GGUF | FAMILY_ONNX},
#define S(name, NAME, type, file_type) [SCHEME_##NAME] = {#name, QD_TYPE_##type, file_type, FAMILY_GGUF},
    SCHEMES(S)
#undef S
#define O(name, NAME) [SCHEME_##NAME] = {name, QD_TYPE_I8, 0, FAMILY_ONNX},
        ONNX_ONLY_SCHEMES(O)
#undef O
};

static const char *const scheme_names[N_SCHEMES + 1] = {
    "auto",
#define S(name, NAME, type, file_type) #name,
    SCHEMES(S)
#undef S
#define O(name, NAME) name,
        ONNX_ONLY_SCHEMES(O)
#undef O
            NULL,
};

/* What llama-quantize calls the middle one of three. */
static const struct {
    const char *name;
    enum scheme scheme;
} other_names[] = {{"q3_k", SCHEME_Q3_K_M}, {"q4_k", SCHEME_Q4_K_M}, {"q5_k", SCHEME_Q5_K_M}};

const char *scheme_name(enum scheme s)
{
    return schemes[s].name;
}

unsigned scheme_families(enum scheme s)
{
    return s == SCHEME_F16 || s == SCHEME_BF16 ? FAMILY_GGUF | FAMILY_ONNX : schemes[s].families;
}

enum qd_type scheme_type(enum scheme s)
{
    return schemes[s].type;
}

uint32_t scheme_file_type(enum scheme s)
{
    return schemes[s].file_type;
}

enum { SQUEEZED_BYTES = 32, SPEED_MAX = 1000, ONNX_TEXT_MAX = 192 };

/* A name as people type it: without '_', '-', '.' and case. */
static const char *squeeze(const char *name, char dst[SQUEEZED_BYTES])
{
    size_t n = 0;
    for (; *name && n + 1 < SQUEEZED_BYTES; name++)
        if (!strchr("_-.", *name))
            dst[n++] = (char)(*name | (*name >= 'A' && *name <= 'Z' ? 0x20 : 0));
    dst[n] = 0;
    return dst;
}

/* "q4km" is q4_k_m but for '_', and nearer to q4_0 by letters: what only differs in such signs comes first. */
static const char *nearest_spelling(const char *name, const char *const *names)
{
    char word[SQUEEZED_BYTES], other[SQUEEZED_BYTES];
    (void)squeeze(name, word);
    for (size_t i = 0; names[i]; i++)
        if (strcmp(squeeze(names[i], other), word) == 0)
            return names[i];
    return nearest_name(name, names);
}

static const char *nearest_scheme(const char *name)
{
    char word[SQUEEZED_BYTES], other[SQUEEZED_BYTES];
    (void)squeeze(name, word);
    for (size_t i = 0; i < sizeof other_names / sizeof other_names[0]; i++)
        if (strcmp(squeeze(other_names[i].name, other), word) == 0)
            return scheme_name(other_names[i].scheme);
    return nearest_spelling(name, scheme_names);
}

int scheme_parse(const char *name, enum scheme *ret, struct qd_error *err)
{
    for (int i = 0; i < N_SCHEMES; i++)
        if (strcasecmp(scheme_names[i], name) == 0) {
            *ret = (enum scheme)i;
            return 0;
        }
    for (size_t i = 0; i < sizeof other_names / sizeof other_names[0]; i++)
        if (strcasecmp(other_names[i].name, name) == 0) {
            *ret = other_names[i].scheme;
            return 0;
        }
    return err_unknown_name(err, "scheme", name, nearest_scheme(name), scheme_names);
}

int target_type_parse(const char *name, enum qd_type *ret, struct qd_error *err)
{
    const char *names[QD_N_TYPES + 1] = {NULL};
    size_t n = 0;
    for (int t = 0; t < QD_N_TYPES; t++) {
        if (!type_revision[t])
            continue;
        names[n++] = qd_type_info((enum qd_type)t)->name;
        if (strcasecmp(names[n - 1], name) == 0) {
            *ret = (enum qd_type)t;
            return 0;
        }
    }
    return err_unknown_name(err, "type", name, nearest_spelling(name, names), names);
}

/* --- one choice by its key --- */

static int set_scheme(struct recipe *r, const char *value, struct qd_error *err)
{
    return scheme_parse(value, &r->scheme, err);
}

static int set_output(struct recipe *r, const char *value, struct qd_error *err)
{
    int done = target_type_parse(value, &r->output, err);
    r->has_output = r->has_output || done == 0;
    return done;
}

static int set_embedding(struct recipe *r, const char *value, struct qd_error *err)
{
    int done = target_type_parse(value, &r->embedding, err);
    r->has_embedding = r->has_embedding || done == 0;
    return done;
}

static int set_importance(struct recipe *r, const char *value, struct qd_error *err)
{
    struct digest d;
    if (!digest_parse(value, &d))
        return err_new(err, QD_E_INVALID, "'%.80s' is no digest of an importance matrix", value);
    r->importance = d;
    r->weighted = true;
    return 0;
}

/* Splits REGEX=TYPE at the last '=': an expression may hold others. */
static int set_tensor(struct recipe *r, const char *value, struct qd_error *err)
{
    char pattern[TENSOR_PATTERN_MAX + 2]; /* one more than a pattern may have: tensor_rules_add says so */
    const char *type = strrchr(value, '=');
    if (!type) {
        int done = err_new(err, QD_E_INVALID, "rule '%.80s' names no type", value);
        return err_hint(err, done, "REGEX=TYPE, such as 'ffn_down=q6_k'");
    }
    (void)snprintf(pattern, sizeof pattern, "%.*s", (int)(type - value), value);
    return tensor_rules_add(r->rules, pattern, type + 1, err);
}

static int set_keep(struct recipe *r, const char *value, struct qd_error *err)
{
    return tensor_rules_add(r->rules, value, NULL, err);
}

static int set_bits(struct recipe *r, const char *value, struct qd_error *err)
{
    if (strcmp(value, "7") != 0 && strcmp(value, "8") != 0)
        return err_new(err, QD_E_INVALID, "'%.40s' bits: 7 and 8 are possible", value);
    r->bits = (uint32_t)(value[0] - '0');
    return 0;
}

static int set_block(struct recipe *r, const char *value, struct qd_error *err)
{
    const uint32_t n = (uint32_t)strtoul(value, NULL, 10);
    if (strcmp(value, "32") != 0 && strcmp(value, "64") != 0 && strcmp(value, "128") != 0)
        return err_new(err, QD_E_INVALID, "'%.40s' is no size of blocks: 32, 64 and 128 are possible", value);
    r->block = n;
    return 0;
}

static int set_method(struct recipe *r, const char *value, struct qd_error *err)
{
    int done = range_method_by_name(value, &r->method, err);
    r->has_method = r->has_method || done == 0;
    return done;
}

static int set_statistics(struct recipe *r, const char *value, struct qd_error *err)
{
    struct digest d;
    if (!digest_parse(value, &d))
        return err_new(err, QD_E_INVALID, "'%.80s' is no digest of statistics", value);
    r->statistics = d;
    r->has_statistics = true;
    return 0;
}

static int set_speed(struct recipe *r, const char *value, struct qd_error *err)
{
    char *end;
    const unsigned long speed = strtoul(value, &end, 10);
    if (*end || value[0] < '1' || value[0] > '9' || speed > SPEED_MAX)
        return err_new(err, QD_E_INVALID, "'%.40s' is no speed of codes", value);
    r->speed = (uint32_t)speed;
    return 0;
}

static const struct setter {
    const char *key;
    int (*set)(struct recipe *r, const char *value, struct qd_error *err); /* or: */
    size_t flag;                                                           /* offset of a bool */
} setters[] = {
    {"scheme", set_scheme, 0},
    {"pure", NULL, offsetof(struct recipe, pure)},
    {"bits", set_bits, 0},
    {"block", set_block, 0},
    {"asymmetric", NULL, offsetof(struct recipe, asymmetric)},
    {"method", set_method, 0},
    {"speed", set_speed, 0},
    {"statistics", set_statistics, 0},
    {"output", set_output, 0},
    {"embedding", set_embedding, 0},
    {"leave_output", NULL, offsetof(struct recipe, leave_output)},
    {"requantize", NULL, offsetof(struct recipe, requantize)},
    {"imatrix", set_importance, 0},
    {"tensor", set_tensor, 0},
    {"keep", set_keep, 0},
};

int recipe_set(struct recipe *r, const char *key, const char *value, struct qd_error *err)
{
    for (size_t i = 0; i < sizeof setters / sizeof setters[0]; i++) {
        const struct setter *s = &setters[i];
        if (strcmp(s->key, key) != 0)
            continue;
        if (s->set)
            return s->set(r, value, err);
        if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
            break;
        *(bool *)((char *)r + s->flag) = value[0] == '1';
        return 0;
    }
    return err_new(err, QD_E_INVALID, "'%.40s=%.80s' is no choice of a recipe", key, value);
}

/* --- canonical text --- */

/* " bits=8 method=percentile": what ONNX models have beside, or nothing. */
static void onnx_text(const struct recipe *r, char dst[ONNX_TEXT_MAX])
{
    size_t n = 0;
    dst[0] = 0; /* all of it fits */
    if (r->bits)
        n += (size_t)snprintf(dst + n, ONNX_TEXT_MAX - n, " bits=%" PRIu32, r->bits);
    if (r->block)
        n += (size_t)snprintf(dst + n, ONNX_TEXT_MAX - n, " block=%" PRIu32, r->block);
    if (r->asymmetric)
        n += (size_t)snprintf(dst + n, ONNX_TEXT_MAX - n, " asymmetric=1");
    if (r->has_method)
        n += (size_t)snprintf(dst + n, ONNX_TEXT_MAX - n, " method=%s", range_method_name(r->method));
    if (r->speed)
        n += (size_t)snprintf(dst + n, ONNX_TEXT_MAX - n, " speed=%" PRIu32, r->speed);
    char hex[DIGEST_HEX_BYTES];
    if (r->has_statistics) {
        digest_hex(&r->statistics, hex);
        (void)snprintf(dst + n, ONNX_TEXT_MAX - n, " statistics=%s", hex);
    }
}

void recipe_text(const struct recipe *r, char *dst)
{
    char hex[DIGEST_HEX_BYTES] = "", onnx[ONNX_TEXT_MAX];
    if (r->weighted)
        digest_hex(&r->importance, hex);
    onnx_text(r, onnx);
    (void)snprintf(dst, RECIPE_TEXT_MAX, "scheme=%s pure=%d%s%s%s%s%s%s%s%s%s%s", scheme_name(r->scheme),
                   r->pure ? 1 : 0, onnx, r->has_output ? " output=" : "",
                   r->has_output ? qd_type_info(r->output)->name : "", r->has_embedding ? " embedding=" : "",
                   r->has_embedding ? qd_type_info(r->embedding)->name : "", r->leave_output ? " leave_output=1" : "",
                   r->requantize ? " requantize=1" : "", r->weighted ? " imatrix=" : "", hex,
                   r->rules); /* fits by far */
}

bool recipe_equal(const struct recipe *a, const struct recipe *b)
{
    char x[RECIPE_TEXT_MAX], y[RECIPE_TEXT_MAX];
    recipe_text(a, x);
    recipe_text(b, y);
    return strcmp(x, y) == 0;
}

static bool take_fields(char *text, struct recipe *ret)
{
    char *rest = text;
    for (char *field; (field = strsep(&rest, " "));) {
        char *value = strchr(field, '=');
        if (!value)
            return false;
        *value++ = 0;
        tensor_rules_unescape(value);
        if (recipe_set(ret, field, value, NULL) < 0)
            return false;
    }
    return true;
}

/* There is one text for each recipe: what prints as something else was none. */
int recipe_parse(const char *text, struct recipe *ret, struct qd_error *err)
{
    char fields[RECIPE_TEXT_MAX], canonical[RECIPE_TEXT_MAX] = "";
    struct recipe r = {0};
    if (strlen(text) < sizeof fields) {
        (void)memcpy(fields, text, strlen(text) + 1);
        if (take_fields(fields, &r))
            recipe_text(&r, canonical);
    }
    if (r.scheme == SCHEME_AUTO || strcmp(canonical, text) != 0)
        return err_new(err, QD_E_INVALID, "'%.256s' is not a recipe", text);
    *ret = r;
    return 0;
}

/* --- revision --- */

static uint64_t types_of(const struct recipe *r)
{
    uint64_t own = tensor_rules_types(r->rules);
    own |= r->has_output ? 1ull << r->output : 0;
    own |= r->has_embedding ? 1ull << r->embedding : 0;
    return mixture_types(r->scheme, r->pure) | mixture_with_fallbacks(own);
}

/* The sum over all types that some model's tensors can become rises when any of them does. */
uint32_t recipe_encoder_revision(const struct recipe *r)
{
    if (scheme_families(r->scheme) == FAMILY_ONNX)
        return ONNX_REVISION;
    uint32_t sum = PLAN_REVISION;
    uint64_t types = types_of(r);
    for (int t = 0; t < QD_N_TYPES; t++)
        if (types >> t & 1)
            sum += type_revision[t];
    return sum;
}
