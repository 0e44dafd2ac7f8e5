/*
 * peer_quantize [--fd-from-path] MODEL OUT FTYPE [WORD...]: the peer quantizes a GGUF, and what it cost.
 * Words: pure, leave_output, requantize, output=TYPE, embedding=TYPE, tensor=REGEX=TYPE, and a number of threads.
 * FTYPE is a name such as q8_0. Prints one line: wall_s, cpu_s and peak_rss_kib. $PEER_IMPORTANCE names a file of an
 * importance matrix's values as tests/tools/imatrix.py leaves them (write_raw).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "tests/peers/peer.h"

static const struct {
    const char *name;
    enum llama_ftype ftype;
} file_types[] = {
    {"f32", LLAMA_FTYPE_ALL_F32},
    {"f16", LLAMA_FTYPE_MOSTLY_F16},
    {"bf16", LLAMA_FTYPE_MOSTLY_BF16},
    {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    {"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},
    {"q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
    {"q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},
    {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    {"q2_k", LLAMA_FTYPE_MOSTLY_Q2_K},
    {"q2_k_s", LLAMA_FTYPE_MOSTLY_Q2_K_S},
    {"q3_k_s", LLAMA_FTYPE_MOSTLY_Q3_K_S},
    {"q3_k_m", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    {"q3_k_l", LLAMA_FTYPE_MOSTLY_Q3_K_L},
    {"q4_k_s", LLAMA_FTYPE_MOSTLY_Q4_K_S},
    {"q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"q5_k_s", LLAMA_FTYPE_MOSTLY_Q5_K_S},
    {"q5_k_m", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"q6_k", LLAMA_FTYPE_MOSTLY_Q6_K},
    {"iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL},
    {"iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS},
    {"tq1_0", LLAMA_FTYPE_MOSTLY_TQ1_0},
    {"tq2_0", LLAMA_FTYPE_MOSTLY_TQ2_0},
    {"mxfp4_moe", LLAMA_FTYPE_MOSTLY_MXFP4_MOE},
};

static enum llama_ftype file_type_named(const char *name)
{
    for (size_t i = 0; i < sizeof file_types / sizeof file_types[0]; i++)
        if (strcasecmp(file_types[i].name, name) == 0)
            return file_types[i].ftype;
    peer_die("no file type '%s'", name);
}

/* ---- importance: u32 length and name, u32 number, floats; again and again ----------------------------- */

enum { MATRICES_MAX = 4096, NAME_BYTES = 128 };

static uint32_t read_u32(FILE *f, bool *ret_end)
{
    uint32_t v = 0;
    *ret_end = fread(&v, sizeof v, 1, f) != 1;
    return v;
}

static bool read_matrix(FILE *f, struct llama_model_imatrix_data *ret)
{
    bool end;
    uint32_t n_name = read_u32(f, &end);
    if (end)
        return false;
    char *name = calloc(1, NAME_BYTES);
    if (!name || n_name >= NAME_BYTES || fread(name, 1, n_name, f) != n_name)
        peer_die("importance: no name");
    uint32_t n = read_u32(f, &end);
    float *values = calloc(n, sizeof *values);
    if (!values || fread(values, sizeof *values, n, f) != n)
        peer_die("importance: '%s' is cut", name);
    *ret = (struct llama_model_imatrix_data){.name = name, .data = values, .size = n};
    return true;
}

/* Ended by a NULL name; lives as long as the program. */
static const struct llama_model_imatrix_data *read_importance(const char *path)
{
    static struct llama_model_imatrix_data list[MATRICES_MAX + 1];
    size_t n = 0;
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (!path)
        return NULL;
    if (!f)
        peer_die("cannot open '%s'", path);
    while (n < MATRICES_MAX && read_matrix(f, &list[n]))
        n++;
    (void)fclose(f); /* only read */
    return list;
}

/* ---- words ------------------------------------------------------------------------------------------- */

enum { RULES_MAX = 32 };

static enum ggml_type type_named(const char *name)
{
    static const struct {
        const char *name;
        enum ggml_type type;
    } types[] = {
        {"f32", GGML_TYPE_F32},     {"f16", GGML_TYPE_F16},       {"bf16", GGML_TYPE_BF16},
        {"q4_0", GGML_TYPE_Q4_0},   {"q4_1", GGML_TYPE_Q4_1},     {"q5_0", GGML_TYPE_Q5_0},
        {"q5_1", GGML_TYPE_Q5_1},   {"q8_0", GGML_TYPE_Q8_0},     {"q2_k", GGML_TYPE_Q2_K},
        {"q3_k", GGML_TYPE_Q3_K},   {"q4_k", GGML_TYPE_Q4_K},     {"q5_k", GGML_TYPE_Q5_K},
        {"q6_k", GGML_TYPE_Q6_K},   {"iq4_nl", GGML_TYPE_IQ4_NL}, {"tq1_0", GGML_TYPE_TQ1_0},
        {"tq2_0", GGML_TYPE_TQ2_0}, {"iq4_xs", GGML_TYPE_IQ4_XS}, {"mxfp4", GGML_TYPE_MXFP4},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    peer_die("no type '%s'", name);
}

static void add_rule(struct llama_model_quantize_params *params, char *rule)
{
    static struct llama_model_tensor_override rules[RULES_MAX + 1]; /* ended by a NULL pattern */
    static size_t n;
    char *type = strrchr(rule, '=');
    if (!type || n == RULES_MAX)
        peer_die("rule '%s' is none, or one too many", rule);
    *type = '\0';
    rules[n++] = (struct llama_model_tensor_override){.pattern = rule, .type = type_named(type + 1)};
    params->tt_overrides = rules;
}

static void take_word(struct llama_model_quantize_params *params, char *word)
{
    if (strcmp(word, "pure") == 0)
        params->pure = true;
    else if (strcmp(word, "leave_output") == 0)
        params->quantize_output_tensor = false;
    else if (strcmp(word, "requantize") == 0)
        params->allow_requantize = true;
    else if (strncmp(word, "output=", 7) == 0)
        params->output_tensor_type = type_named(word + 7);
    else if (strncmp(word, "embedding=", 10) == 0)
        params->token_embedding_type = type_named(word + 10);
    else if (strncmp(word, "tensor=", 7) == 0)
        add_rule(params, word + 7);
    else if (*word >= '0' && *word <= '9')
        params->nthread = atoi(word);
    else
        peer_die("no word '%s'", word);
}

int main(int argc, char **argv)
{
    bool by_descriptor = peer_option(&argc, argv, "--fd-from-path");
    if (argc < 4)
        peer_die("usage: peer_quantize [--fd-from-path] MODEL OUT FTYPE [WORD...]");
    struct peer p;
    peer_load(&p);
    struct llama_model_quantize_params params = p.llama_model_quantize_default_params();
    params.ftype = file_type_named(argv[3]);
    params.imatrix = read_importance(getenv("PEER_IMPORTANCE"));
    params.nthread = 1;
    for (int i = 4; i < argc; i++)
        take_word(&params, argv[i]);

    double wall = peer_seconds(), cpu = peer_cpu_seconds();
    if (p.llama_model_quantize(peer_path(argv[1], by_descriptor), argv[2], &params) != 0)
        peer_die("the peer cannot quantize '%s'", argv[1]);
    wall = peer_seconds() - wall;
    cpu = peer_cpu_seconds() - cpu;

    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use); /* cannot fail with this argument */
    printf("wall_s %.3f cpu_s %.3f peak_rss_kib %ld\n", wall, cpu, use.ru_maxrss);
    return EXIT_SUCCESS;
}
