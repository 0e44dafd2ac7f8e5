#include "quant/mixture.h"

#include <string.h>

#define ONLY(NAME) (1u << SCHEME_##NAME)
#define KIND(NAME) (1u << MATRIX_##NAME)
#define BIT(NAME)  (1ull << QD_TYPE_##NAME)
_Static_assert(N_SCHEMES <= 32 && QD_N_TYPES <= 64, "sets of schemes and of types are words");

/* The first of these that is found in the tensor's name. */
static const struct {
    const char *part;
    bool whole;
    enum matrix matrix;
} matrix_names[] = {
    {"output.weight", true, MATRIX_OUTPUT},
    {"token_embd.weight", true, MATRIX_EMBEDDING},
    {"per_layer_token_embd.weight", true, MATRIX_EMBEDDING},
    {"attn_qkv.weight", false, MATRIX_ATTN_V},
    {"attn_kv_b.weight", false, MATRIX_ATTN_V},
    {"attn_v.weight", false, MATRIX_ATTN_V},
    {"attn_k.weight", false, MATRIX_ATTN_K},
    {"attn_q.weight", false, MATRIX_ATTN_Q},
    {"attn_output.weight", false, MATRIX_ATTN_OUTPUT},
    {"ffn_up", false, MATRIX_FFN_UP},
    {"ffn_gate", false, MATRIX_FFN_GATE},
    {"ffn_down", false, MATRIX_FFN_DOWN},
};

enum matrix matrix_of(const char *name)
{
    for (size_t i = 0; i < sizeof matrix_names / sizeof matrix_names[0]; i++) {
        const char *part = matrix_names[i].part;
        if (matrix_names[i].whole ? strcmp(name, part) == 0 : strstr(name, part) != NULL)
            return matrix_names[i].matrix;
    }
    return MATRIX_OTHER;
}

/* --- the table --- */

struct mixture_row {
    uint32_t schemes;  /* 1 << enum scheme */
    uint32_t matrices; /* 1 << enum matrix */
    uint32_t when;     /* enum mixture_fact: all of them hold */
    enum qd_type type;
    const char *reason;
};

#define ALL      0xffffffffu
#define BUT_Q8_0 (ALL & ~ONLY(Q8_0))
#define OUTPUT_8_EXPERTS \
    (ONLY(Q2_K) | ONLY(Q3_K_S) | ONLY(Q3_K_M) | ONLY(IQ4_NL) | ONLY(Q4_K_S) | ONLY(Q4_K_M) | ONLY(IQ4_XS))

/* The first row that holds. Schemes of floats have no mixture and never come here. */
static const struct mixture_row rows[] = {
    /* mxfp4_moe: experts in mxfp4, the rest in q8_0. */
    {ONLY(MXFP4_MOE), KIND(OUTPUT), 0, QD_TYPE_Q8_0, "output matrix of mxfp4_moe"},
    {ONLY(MXFP4_MOE), ALL, FACT_EXPERT_MATRIX, QD_TYPE_MXFP4, "expert matrices of mxfp4_moe"},
    {ONLY(MXFP4_MOE), ALL, 0, QD_TYPE_Q8_0, "mxfp4_moe: no expert matrices"},

    {BUT_Q8_0, KIND(OUTPUT), FACT_FALCON, QD_TYPE_Q8_0, "output matrix of falcon"},
    {BUT_Q8_0, KIND(OUTPUT), FACT_ROWS_ODD, QD_TYPE_Q8_0, "output matrix, rows that do not divide"},
    {BUT_Q8_0, KIND(OUTPUT), 0, QD_TYPE_Q6_K, "output matrix: more bits"},
    {ONLY(TQ1_0) | ONLY(TQ2_0), KIND(EMBEDDING), 0, QD_TYPE_Q4_K, "token embedding of a ternary scheme"},

    {ALL, KIND(ATTN_V) | KIND(ATTN_K), FACT_EXPERTS_8, QD_TYPE_Q8_0, "attention keys and values of an 8-expert model"},
    {ONLY(Q2_K) | ONLY(Q2_K_S), KIND(ATTN_V), FACT_GQA_4, QD_TYPE_Q4_K, "attention values that four heads share"},
    {ONLY(Q2_K), KIND(ATTN_V), 0, QD_TYPE_Q3_K, "attention values: more bits"},
    {ONLY(Q3_K_M), KIND(ATTN_V), FACT_FIRST_2, QD_TYPE_Q5_K, "attention values of the first two layers"},
    {ONLY(Q3_K_M), KIND(ATTN_V), 0, QD_TYPE_Q4_K, "attention values: more bits"},
    {ONLY(Q3_K_L), KIND(ATTN_V), 0, QD_TYPE_Q5_K, "attention values: more bits"},
    {ONLY(IQ4_NL) | ONLY(IQ4_XS), KIND(ATTN_V), FACT_GQA_4, QD_TYPE_Q5_K, "attention values that four heads share"},
    {ONLY(Q4_K_M) | ONLY(Q5_K_M), KIND(ATTN_V), FACT_MORE_BITS, QD_TYPE_Q6_K, "attention values, a layer of more bits"},
    {ONLY(Q4_K_S), KIND(ATTN_V), FACT_FIRST_4, QD_TYPE_Q5_K, "attention values of the first four layers"},

    {ONLY(Q2_K), KIND(FFN_DOWN), 0, QD_TYPE_Q3_K, "ffn_down: more bits"},
    {ONLY(Q2_K_S), KIND(FFN_DOWN), FACT_FIRST_8TH, QD_TYPE_Q4_K, "ffn_down of the first eighth"},
    {ONLY(Q3_K_M), KIND(FFN_DOWN), FACT_FIRST_16TH, QD_TYPE_Q5_K, "ffn_down of the first sixteenth"},
    {ONLY(Q3_K_M), KIND(FFN_DOWN), FACT_NOT_FALCON, QD_TYPE_Q4_K, "ffn_down: more bits"},
    {ONLY(Q3_K_M), KIND(FFN_DOWN), FACT_MORE_BITS, QD_TYPE_Q4_K, "ffn_down of falcon, a layer of more bits"},
    {ONLY(Q3_K_L), KIND(FFN_DOWN), FACT_FALCON, QD_TYPE_Q4_K, "ffn_down of falcon: more bits"},
    {ONLY(Q3_K_L), KIND(FFN_DOWN), 0, QD_TYPE_Q5_K, "ffn_down: more bits"},
    {ONLY(Q4_K_M), KIND(FFN_DOWN), FACT_FALCON | FACT_FIRST_16TH, QD_TYPE_Q6_K, "ffn_down of falcon, first sixteenth"},
    {ONLY(Q4_K_M), KIND(FFN_DOWN), FACT_FALCON | FACT_MORE_BITS, QD_TYPE_Q5_K,
     "ffn_down of falcon, a layer of more bits"},
    {ONLY(Q4_K_M), KIND(FFN_DOWN), FACT_NOT_FALCON | FACT_MORE_BITS, QD_TYPE_Q6_K, "ffn_down, a layer of more bits"},
    {ONLY(Q5_K_M), KIND(FFN_DOWN), FACT_MORE_BITS, QD_TYPE_Q6_K, "ffn_down, a layer of more bits"},
    {ONLY(Q4_K_S), KIND(FFN_DOWN), FACT_NOT_FALCON | FACT_FIRST_8TH, QD_TYPE_Q5_K, "ffn_down of the first eighth"},
    {ONLY(IQ4_NL) | ONLY(IQ4_XS), KIND(FFN_DOWN), FACT_NOT_WEIGHTED | FACT_FIRST_8TH, QD_TYPE_Q5_K,
     "ffn_down of the first eighth"},
    {ONLY(Q4_0), KIND(FFN_DOWN), FACT_WEIGHTED | FACT_FIRST_8TH, QD_TYPE_Q4_1,
     "ffn_down of the first eighth, with importance"},
    {ONLY(Q5_0), KIND(FFN_DOWN), FACT_WEIGHTED | FACT_FIRST_8TH, QD_TYPE_Q5_1,
     "ffn_down of the first eighth, with importance"},

    {OUTPUT_8_EXPERTS, KIND(ATTN_OUTPUT), FACT_NOT_FALCON | FACT_EXPERTS_8, QD_TYPE_Q5_K,
     "attention output of an 8-expert model"},
    {ONLY(Q2_K), KIND(ATTN_OUTPUT), FACT_NOT_FALCON | FACT_NOT_EXPERTS_8, QD_TYPE_Q3_K, "attention output: more bits"},
    {ONLY(Q3_K_M), KIND(ATTN_OUTPUT), FACT_NOT_FALCON | FACT_NOT_EXPERTS_8, QD_TYPE_Q4_K,
     "attention output: more bits"},
    {ONLY(Q3_K_L), KIND(ATTN_OUTPUT), FACT_NOT_FALCON | FACT_NOT_EXPERTS_8, QD_TYPE_Q5_K,
     "attention output: more bits"},
    {ONLY(Q3_K_L), KIND(ATTN_OUTPUT), FACT_FALCON, QD_TYPE_Q4_K, "attention output of falcon: more bits"},
};

static const char *const scheme_reasons[N_SCHEMES] = {
#define S(name, NAME, type, file_type) [SCHEME_##NAME] = "scheme " #name,
    SCHEMES(S)
#undef S
};

static const struct mixture_row *find_row(enum scheme scheme, enum matrix matrix, uint32_t facts)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct mixture_row *r = &rows[i];
        if ((r->schemes >> scheme & 1) && (r->matrices >> matrix & 1) && (r->when & facts) == r->when)
            return r;
    }
    return NULL;
}

/* 70B models: eight heads share attention values that are an eighth of the size, so that more bits cost little. */
static bool is_raised_for_70b(enum matrix matrix, uint32_t facts, enum qd_type type)
{
    return matrix == MATRIX_ATTN_V && (facts & FACT_70B) && (type == QD_TYPE_Q3_K || type == QD_TYPE_Q4_K);
}

struct type_choice mixture_plain(enum scheme scheme)
{
    return (struct type_choice){scheme_type(scheme), scheme_reasons[scheme]};
}

struct type_choice mixture_choose(enum scheme scheme, enum matrix matrix, uint32_t facts)
{
    const struct mixture_row *r = find_row(scheme, matrix, facts);
    struct type_choice c = r ? (struct type_choice){r->type, r->reason} : mixture_plain(scheme);
    if (is_raised_for_70b(matrix, facts, c.type))
        c = (struct type_choice){QD_TYPE_Q5_K, "attention values of a 70B model"};
    return c;
}

uint32_t mixture_place(int64_t i, int64_t n)
{
    bool more = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    return (i < 2 ? FACT_FIRST_2 : 0u) | (i < 4 ? FACT_FIRST_4 : 0u) | (i < n / 8 ? FACT_FIRST_8TH : 0u) |
           (i < n / 16 ? FACT_FIRST_16TH : 0u) | (more ? FACT_MORE_BITS : 0u);
}

/* --- rows that do not divide --- */

/* Types of 256 and the one of 32 in their place; whose rows do not divide into 32 either become f16. */
static const struct {
    enum qd_type type, instead;
} fallbacks[] = {
    {QD_TYPE_IQ4_XS, QD_TYPE_IQ4_NL}, {QD_TYPE_Q2_K, QD_TYPE_Q4_0},  {QD_TYPE_Q3_K, QD_TYPE_Q4_0},
    {QD_TYPE_TQ1_0, QD_TYPE_Q4_0},    {QD_TYPE_TQ2_0, QD_TYPE_Q4_0}, {QD_TYPE_Q4_K, QD_TYPE_Q5_0},
    {QD_TYPE_Q5_K, QD_TYPE_Q5_1},     {QD_TYPE_Q6_K, QD_TYPE_Q8_0},
};

static enum qd_type smaller_blocks(enum qd_type type)
{
    for (size_t i = 0; i < sizeof fallbacks / sizeof fallbacks[0]; i++)
        if (fallbacks[i].type == type)
            return fallbacks[i].instead;
    return type;
}

enum qd_type mixture_fallback(enum qd_type type, uint64_t row)
{
    if (row % qd_type_info(type)->block_elements == 0)
        return type;
    enum qd_type instead = smaller_blocks(type);
    return row % qd_type_info(instead)->block_elements ? QD_TYPE_F16 : instead;
}

uint64_t mixture_with_fallbacks(uint64_t types)
{
    uint64_t all = types;
    for (int t = 0; t < QD_N_TYPES; t++)
        if ((types >> t & 1) && qd_type_info((enum qd_type)t)->kind == QD_KIND_BLOCK)
            all |= 1ull << smaller_blocks((enum qd_type)t) | BIT(F16);
    return all;
}

uint64_t mixture_types(enum scheme scheme, bool pure)
{
    uint64_t types = 1ull << scheme_type(scheme);
    bool mixed = !pure && qd_type_info(scheme_type(scheme))->kind == QD_KIND_BLOCK;
    for (size_t i = 0; mixed && i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].schemes >> scheme & 1)
            types |= 1ull << rows[i].type;
    if (mixed && (types & (BIT(Q3_K) | BIT(Q4_K))))
        types |= BIT(Q5_K); /* as raised for 70B */
    return mixture_with_fallbacks(types);
}
