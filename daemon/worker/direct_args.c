#include "daemon/worker/direct_args.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/processors.h"

enum { THREADS_MAX = 1024, DEFAULT_MEMORY = 256 << 20 };

#define USAGE_OF_RUNS                                                    \
    "  -t, --threads N   default: the processors this process may use\n" \
    "  -f, --force       replace OUT where it exists\n"                  \
    "  -m, --max-memory BYTES[K|M|G]   ceiling, default 256M\n"          \
    "      --keep-cache  leave the pages of IN that were not cached before in the page cache\n"
#define USAGE_OF_SUMMARY                                         \
    "  -j, --json        a summary as JSON on standard output\n" \
    "  -q, --quiet       no progress\n"

static const char quantize_usage[] =
    "usage: quantctl quantize IN [-o] OUT [options]   (quantd-worker --direct IN OUT [options])\n"
    "  IN                a GGUF file, a safetensors file, a folder with one, or an ONNX model\n"
    "  -o, --output OUT  the GGUF to write, or the ONNX model (and OUT.data); it appears when it is whole\n"
    "  -s, --scheme S    auto (default), f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0, ...: see quantctl(1)\n"
    "                    of an ONNX model: int8 (default: says which), int8-weight, int8-static, int8-dynamic, int4, "
    "f16, bf16\n"
    "      --calibration FOLDER   samples of an ONNX model's inputs, .npy, .npz, .pb, .png, .jpg or .wav: for "
    "int8-static, and the error\n"
    "      --save-statistics FILE, --statistics FILE   what int8-static knows of activations, kept, and used again\n"
    "      --method M    of int8-static: min-max, average, percentile (default), entropy, mse\n"
    "      --bits N      of int8-static: 8, or 7 for CPUs that saturate (default on x86 without VNNI)\n"
    "      --block N     of int4: weights that share a scale, 32 (default), 64 or 128\n"
    "      --asymmetric  of int4: a zero point for each block\n"
    "  -p, --pure        one type for every matrix whose rows allow it\n"
    "  -i, --imatrix FILE   weigh errors by an importance matrix (llama-imatrix makes one)\n"
    "      --tensor REGEX=TYPE    matrices whose name matches become TYPE; repeatable, the first match holds\n"
    "      --keep REGEX           matrices whose name matches stay as they are; repeatable\n"
    "      --output-type TYPE     of the output matrix\n"
    "      --embedding-type TYPE  of the token embedding\n"
    "      --leave-output         the output matrix stays as it is\n"
    "      --allow-requantize     quantize again what is quantized: one error is added to another\n" USAGE_OF_RUNS
    "  -n, --dry-run     print the plan: type, bytes, offset and reason of every tensor\n" USAGE_OF_SUMMARY;

static const char pack_usage[] =
    "usage: quantctl pack IN [-o] OUT [options]   (quantd-worker --pack IN OUT [options])\n"
    "  IN                a GGUF file\n"
    "  -o, --output OUT  the packed file to write: the same weights in the order that one kind of CPU reads\n"
    "  -l, --layout L    native (default: of this CPU), r16k4p128, r8k4p128, r4k8p128, r4k4p128: see "
    "quantctl(1)\n" USAGE_OF_RUNS
    "  -n, --dry-run     print the plan: bytes and offset of every tensor, and whether it is packed\n" USAGE_OF_SUMMARY;

static const char unpack_usage[] =
    "usage: quantctl unpack IN [-o] OUT [options]   (quantd-worker --unpack IN OUT [options])\n"
    "  IN                a packed file\n"
    "  -o, --output OUT  the portable GGUF to write: what IN was packed from\n" USAGE_OF_RUNS
    "  -n, --dry-run     print the plan: bytes and offset of every tensor, and whether it is packed\n" USAGE_OF_SUMMARY;

static const struct verb {
    const char *name, *usage;
    const char *example; /* the hint where names are missing */
    const char *letters; /* of its options, for getopt */
    const char *lacks;   /* those of other_options that it has not, by letter */
} verbs[] = {
    [DIRECT_QUANTIZE] = {"quantize", quantize_usage, "quantctl quantize IN -o OUT --scheme q8_0", ":o:s:i:pt:fm:njqh",
                         "l"},
    [DIRECT_PACK] = {"pack", pack_usage, "quantctl pack IN -o OUT --layout native", ":o:l:t:fm:njqh", "isCSW"},
    [DIRECT_UNPACK] = {"unpack", unpack_usage, "quantctl unpack IN -o OUT", ":o:t:fm:njqh", "ilsCSW"},
};

const char *direct_verb_name(enum direct_verb verb)
{
    return verbs[verb].name;
}

const char *direct_usage(enum direct_verb verb)
{
    return verbs[verb].usage;
}

/* Options that set a choice of the recipe (recipe_set): getopt's value is RECIPE_OPTION and the index. */
enum { RECIPE_OPTION = 256 };
static const struct {
    const char *option;
    int has_value;
    const char *key;
} recipe_options[] = {
    {"pure", no_argument, "pure"},
    {"bits", required_argument, "bits"},
    {"block", required_argument, "block"},
    {"asymmetric", no_argument, "asymmetric"},
    {"method", required_argument, "method"},
    {"tensor", required_argument, "tensor"},
    {"keep", required_argument, "keep"},
    {"output-type", required_argument, "output"},
    {"embedding-type", required_argument, "embedding"},
    {"leave-output", no_argument, "leave_output"},
    {"allow-requantize", no_argument, "requantize"},
};
enum { N_RECIPE_OPTIONS = sizeof recipe_options / sizeof recipe_options[0] };

static const struct option other_options[] = {
    {"scheme", required_argument, NULL, 's'},
    {"calibration", required_argument, NULL, 'C'},
    {"statistics", required_argument, NULL, 'S'},
    {"save-statistics", required_argument, NULL, 'W'},
    {"imatrix", required_argument, NULL, 'i'},
    {"layout", required_argument, NULL, 'l'},
    {"output", required_argument, NULL, 'o'},
    {"threads", required_argument, NULL, 't'},
    {"force", no_argument, NULL, 'f'},
    {"max-memory", required_argument, NULL, 'm'},
    {"keep-cache", no_argument, NULL, 'K'},
    {"dry-run", no_argument, NULL, 'n'},
    {"json", no_argument, NULL, 'j'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};
enum { N_OTHER_OPTIONS = sizeof other_options / sizeof other_options[0] };

static unsigned default_threads(void)
{
    unsigned n = processors_allowed();
    return n < THREADS_MAX ? n : THREADS_MAX;
}

static int parse_threads(const char *text, unsigned *ret, struct qd_error *err)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9' || v < 1 || v > THREADS_MAX)
        return err_new(err, QD_E_INVALID, "'%s' is no number of threads (1 to %d)", text, THREADS_MAX);
    *ret = (unsigned)v;
    return 0;
}

static int parse_bytes(const char *text, uint64_t *ret, struct qd_error *err)
{
    static const char suffixes[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    const char *suffix = *end ? strchr(suffixes, *end) : NULL;
    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    bool sound =
        !errno && text[0] >= '0' && text[0] <= '9' && (!*end || (suffix && !end[1])) && v <= UINT64_MAX >> shift;
    if (!sound)
        return err_new(err, QD_E_INVALID, "'%s' is no size: bytes, or a number with K, M or G", text);
    *ret = v << shift;
    return 0;
}

static int parse_option(int c, struct direct_args *a, struct qd_error *err)
{
    switch (c) {
    case 'o':
        a->out = optarg;
        return 0;
    case 's':
        return recipe_set(&a->recipe, "scheme", optarg, err);
    case 'C':
        a->calibration = optarg;
        return 0;
    case 'S':
        a->statistics = optarg;
        return 0;
    case 'W':
        a->save_statistics = optarg;
        return 0;
    case 'i':
        a->imatrix = optarg;
        return 0;
    case 'l':
        a->layout = optarg;
        return 0;
    case 't':
        return parse_threads(optarg, &a->n_threads, err);
    case 'm':
        return parse_bytes(optarg, &a->max_memory_bytes, err);
    case 'p':
        a->recipe.pure = true;
        return 0;
    case 'f':
        a->force = true;
        return 0;
    case 'K':
        a->keep_cache = true;
        return 0;
    case 'n':
        a->dry_run = true;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'q':
        a->quiet = true;
        return 0;
    case 'h':
        a->help = true;
        return 0;
    }
    c -= RECIPE_OPTION;
    return recipe_set(&a->recipe, recipe_options[c].key, recipe_options[c].has_value ? optarg : "1", err);
}

static int wrong_option(char **argv, int c, struct qd_error *err)
{
    const char *what = c == ':' ? "needs a value" : "is no option";
    int r = err_new(err, QD_E_INVALID, "'%s' %s", argv[optind - 1], what);
    return err_hint(err, r, "--help lists the options");
}

static int take_names(int argc, char **argv, struct direct_args *a, struct qd_error *err)
{
    if (optind < argc)
        a->in = argv[optind++];
    if (optind < argc && !a->out)
        a->out = argv[optind++];
    if (!a->in || (!a->out && !a->dry_run) || optind < argc) {
        int r = err_new(err, QD_E_INVALID, optind < argc ? "too many names: '%s'" : "%swhich file, and where to?",
                        optind < argc ? argv[optind] : "");
        return err_hint(err, r, "%s", verbs[a->verb].example);
    }
    return 0;
}

/* The options of @verb, ended by zeros. */
static void list_options(enum direct_verb verb, struct option dst[N_RECIPE_OPTIONS + N_OTHER_OPTIONS])
{
    size_t n = 0;
    for (int i = 0; i < N_RECIPE_OPTIONS && verb == DIRECT_QUANTIZE; i++)
        dst[n++] = (struct option){recipe_options[i].option, recipe_options[i].has_value, NULL, RECIPE_OPTION + i};
    for (size_t i = 0; i < N_OTHER_OPTIONS; i++)
        if (!other_options[i].name || !strchr(verbs[verb].lacks, other_options[i].val))
            dst[n++] = other_options[i];
}

int direct_args_parse(enum direct_verb verb, int argc, char **argv, struct direct_args *ret, struct qd_error *err)
{
    struct option options[N_RECIPE_OPTIONS + N_OTHER_OPTIONS];
    struct direct_args a = {
        .verb = verb, .layout = "native", .n_threads = default_threads(), .max_memory_bytes = DEFAULT_MEMORY};
    list_options(verb, options);
    int c;
    optind = 0; /* glibc: start over */
    while ((c = getopt_long(argc, argv, verbs[verb].letters, options, NULL)) != -1) {
        if (c == '?' || c == ':')
            return wrong_option(argv, c, err);
        int r = parse_option(c, &a, err);
        if (r < 0)
            return r;
    }
    int r = a.help ? 0 : take_names(argc, argv, &a, err);
    if (r == 0)
        *ret = a;
    return r;
}
