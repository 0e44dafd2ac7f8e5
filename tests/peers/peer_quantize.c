/*
 * peer_quantize [--fd-from-path] MODEL OUT FTYPE [pure] [THREADS]: the peer quantizes a GGUF, and what it cost.
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
    {"f32", LLAMA_FTYPE_ALL_F32},          {"f16", LLAMA_FTYPE_MOSTLY_F16},       {"bf16", LLAMA_FTYPE_MOSTLY_BF16},
    {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     {"q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},     {"q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
    {"q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},     {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     {"q2_k", LLAMA_FTYPE_MOSTLY_Q2_K},
    {"q3_k_m", LLAMA_FTYPE_MOSTLY_Q3_K_M}, {"q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M}, {"q5_k_m", LLAMA_FTYPE_MOSTLY_Q5_K_M},
    {"q6_k", LLAMA_FTYPE_MOSTLY_Q6_K},     {"iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL}, {"iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS},
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

int main(int argc, char **argv)
{
    bool by_descriptor = peer_option(&argc, argv, "--fd-from-path");
    if (argc < 4)
        peer_die("usage: peer_quantize [--fd-from-path] MODEL OUT FTYPE [pure] [THREADS]");
    struct peer p;
    peer_load(&p);
    struct llama_model_quantize_params params = p.llama_model_quantize_default_params();
    params.ftype = file_type_named(argv[3]);
    params.pure = argc > 4 && strcmp(argv[4], "pure") == 0;
    params.imatrix = read_importance(getenv("PEER_IMPORTANCE"));
    int threads_at = params.pure ? 5 : 4;
    params.nthread = argc > threads_at ? atoi(argv[threads_at]) : 1;

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
