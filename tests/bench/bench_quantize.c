/*
 * bench_quantize WORKER PEER_QUANTIZE [MIB] [ROUNDS] [SCHEME...]: a synthetic f16 llama of about MIB (default 2048)
 * through `quantd-worker --direct` and through llama_model_quantize, alternating, on 1 and 2 threads. Prints the least
 * CPU seconds of each, wall, peak RSS, and the bound: the same bytes read and written by pread and pwrite alone. Exit
 * status 1 where a bar is missed: a share of the peer's CPU seconds, by scheme, and 256 MiB.
 *
 * The model lies in $TMPDIR or /var/tmp and is removed afterwards; the page cache is warm. PEER_QUANTIZE may be "-".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "kernels/kernels.h"
#include "quant/format/gguf_write.h"

enum {
    DIM = 2048,
    FFN = 5632,
    HEADS = 32,
    KV_HEADS = 4,
    VOCABULARY = 32000,
    ALIGNMENT = 32,
    PATTERN_BYTES = 64 << 20,
    COPY_BYTES = 1 << 20
};

/* What is raced, and the most of the peer's CPU seconds that ours may take. */
struct contest {
    const char *scheme;
    bool pure;
    double cpu_bar;
    int rounds; /* the peer's slow ones once */
};
static const struct contest contests[] = {
    {"q8_0", true, 1.0 / 3, 2},
    {"q4_0", true, 1.0 / 3, 2},
    {"q6_k", false, 1.0 / 7, 1},
    {"q4_k_m", false, 1.0 / 9, 1},
};

static const long rss_bar_kib = 256 << 10;

struct cost {
    double cpu, user, wall;
    long rss_kib;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_quantize: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double of_timeval(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* --- the model --- */

struct shape {
    const char *name;
    uint64_t ne0, ne1;
};

static const struct shape layer_shapes[] = {
    {"attn_norm", DIM, 0},
    {"attn_q", DIM, DIM},
    {"attn_k", DIM, DIM / HEADS *KV_HEADS},
    {"attn_v", DIM, DIM / HEADS *KV_HEADS},
    {"attn_output", DIM, DIM},
    {"ffn_norm", DIM, 0},
    {"ffn_gate", DIM, FFN},
    {"ffn_up", DIM, FFN},
    {"ffn_down", FFN, DIM},
};
enum { PER_LAYER = sizeof layer_shapes / sizeof layer_shapes[0] };

static struct gguf_tensor *add_tensor(struct gguf_tensor *t, const char *name, uint64_t ne0, uint64_t ne1, uint64_t *at)
{
    *t = (struct gguf_tensor){
        .name = strdup(name), .type = ne1 ? QD_TYPE_F16 : QD_TYPE_F32, .n_dims = ne1 ? 2 : 1, .offset = *at};
    t->shape[0] = ne0;
    t->shape[1] = ne1 ? ne1 : 1;
    t->shape[2] = t->shape[3] = 1;
    *at += qd_type_row_bytes(t->type, ne0) * t->shape[1];
    *at = (*at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return t + 1;
}

static size_t list_tensors(struct gguf_tensor *list, unsigned n_layers, uint64_t *ret_bytes)
{
    struct gguf_tensor *t = list;
    *ret_bytes = 0;
    t = add_tensor(t, "token_embd.weight", DIM, VOCABULARY, ret_bytes);
    for (unsigned layer = 0; layer < n_layers; layer++) {
        for (size_t i = 0; i < PER_LAYER; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blk.%u.%s.weight", layer, layer_shapes[i].name); /* fits */
            t = add_tensor(t, name, layer_shapes[i].ne0, layer_shapes[i].ne1, ret_bytes);
        }
    }
    t = add_tensor(t, "output_norm.weight", DIM, 0, ret_bytes);
    t = add_tensor(t, "output.weight", DIM, VOCABULARY, ret_bytes);
    return (size_t)(t - list);
}

static struct meta_entry meta_u32(const char *key, const uint32_t *v)
{
    return (struct meta_entry){key, {.type = META_U32, .n_items = 1, .data = v}};
}

/* What the peer asks of a llama before it quantizes one. */
static void make_header(const struct gguf_tensor *list, size_t n, const uint32_t *n_layers, struct buffer *dst)
{
    static const uint32_t context = 2048, dim = DIM, ffn = FFN, heads = HEADS, kv = KV_HEADS, f16 = 1,
                          alignment = ALIGNMENT, vocabulary = VOCABULARY;
    static const float epsilon = 1e-5f;
    static const struct bytes llama = {(const uint8_t *)"llama", 5};
    struct meta_entry entries[] = {
        {"general.architecture", {.type = META_STRING, .n_items = 1, .data = &llama}},
        meta_u32("general.alignment", &alignment),
        meta_u32("general.file_type", &f16),
        meta_u32("llama.context_length", &context),
        meta_u32("llama.embedding_length", &dim),
        meta_u32("llama.block_count", n_layers),
        meta_u32("llama.feed_forward_length", &ffn),
        meta_u32("llama.attention.head_count", &heads),
        meta_u32("llama.attention.head_count_kv", &kv),
        meta_u32("llama.vocab_size", &vocabulary),
        {"llama.attention.layer_norm_rms_epsilon", {.type = META_F32, .n_items = 1, .data = &epsilon}},
    };
    struct meta_table meta = {entries, sizeof entries / sizeof entries[0]};
    struct qd_error err;
    if (gguf_header(&meta, list, n, ALIGNMENT, dst, &err) < 0) {
        fprintf(stderr, "bench_quantize: %s\n", err.message);
        exit(EXIT_FAILURE);
    }
}

/* Weights as trained ones are spread: sums of four uniform numbers, sigma 0.02, in f16. */
static uint8_t *make_pattern(void)
{
    enum { AT_ONCE = 4096 };
    uint8_t *pattern = malloc(PATTERN_BYTES);
    uint64_t s = 0x9e3779b97f4a7c15u;
    for (size_t at = 0; pattern && at < PATTERN_BYTES; at += 2 * AT_ONCE) {
        float x[AT_ONCE];
        for (size_t i = 0; i < AT_ONCE; i++) {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            int sum =
                (int)(s & 0xffff) + (int)(s >> 16 & 0xffff) + (int)(s >> 32 & 0xffff) + (int)(s >> 48) - 2 * 0xffff;
            x[i] = (float)sum * (0.02f / 37837.0f);
        }
        ops_native()->quantize[QD_TYPE_F16](pattern + at, x, AT_ONCE);
    }
    return pattern;
}

static uint64_t make_model(const char *path, unsigned mib)
{
    uint64_t n_bytes, per_layer = 2 * (uint64_t)DIM * (2 * DIM + 2 * DIM / HEADS * KV_HEADS + 3 * FFN);
    uint64_t ends = 4 * (uint64_t)DIM * VOCABULARY, asked = (uint64_t)mib << 20;
    uint32_t n_layers = asked > ends + per_layer ? (uint32_t)((asked - ends) / per_layer) : 1;
    struct gguf_tensor *list = calloc(PER_LAYER * n_layers + 3, sizeof *list);
    uint8_t *pattern = make_pattern();
    struct buffer header = {0};
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (!list || !pattern || fd < 0)
        die(path);
    size_t n = list_tensors(list, n_layers, &n_bytes);
    make_header(list, n, &n_layers, &header);
    int r = pwrite_whole(fd, header.data, header.n, 0);
    for (uint64_t at = 0; r == 0 && at < n_bytes; at += PATTERN_BYTES - 64) {
        uint64_t left = n_bytes - at; /* each round begins elsewhere in the pattern, so that blocks differ */
        r = pwrite_whole(fd, pattern + at / PATTERN_BYTES % 31 * 2,
                         left < PATTERN_BYTES - 64 ? left : PATTERN_BYTES - 64, header.n + at);
    }
    for (size_t i = 0; r == 0 && i < n; i++) { /* f32 norms: ones */
        float ones[DIM];
        for (size_t k = 0; k < DIM; k++)
            ones[k] = 1;
        if (list[i].type == QD_TYPE_F32)
            r = pwrite_whole(fd, ones, sizeof ones, header.n + list[i].offset);
    }
    if (r < 0 || fsync(fd) < 0 || close(fd) < 0)
        die(path);
    free(pattern);
    return header.n + n_bytes;
}

/* --- the race --- */

static struct cost run(char *const argv[])
{
    struct rusage use;
    int status = 0;
    double begun = seconds();
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        if (null < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
            _exit(126);
        (void)execv(argv[0], argv); /* returns only on failure */
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &use) < 0)
        die(argv[0]);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "bench_quantize: %s: status %d\n", argv[0], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
        exit(EXIT_FAILURE);
    }
    return (struct cost){.cpu = of_timeval(use.ru_utime) + of_timeval(use.ru_stime),
                         .user = of_timeval(use.ru_utime),
                         .wall = seconds() - begun,
                         .rss_kib = use.ru_maxrss};
}

static struct cost run_ours(const char *worker, const char *model, const char *out, const struct contest *c,
                            const char *threads)
{
    const char *argv[] = {worker,
                          "--direct",
                          model,
                          out,
                          "--scheme",
                          c->scheme,
                          "--force",
                          "--quiet",
                          "--threads",
                          threads,
                          c->pure ? "--pure" : NULL,
                          NULL};
    (void)unlink(out);
    return run((char *const *)(uintptr_t)argv);
}

static struct cost run_peer(const char *peer, const char *model, const char *out, const struct contest *c,
                            const char *threads)
{
    const char *argv[] = {peer, model, out, c->scheme, c->pure ? "pure" : threads, c->pure ? threads : NULL, NULL};
    (void)unlink(out);
    return run((char *const *)(uintptr_t)argv);
}

/* The bound: @in read and as many bytes as @out has written, in one process, one thread. */
static struct cost run_copy(const char *in, const char *out, const char *copy)
{
    (void)unlink(copy);
    struct stat from, to;
    double begun = seconds();
    struct rusage before, after;
    (void)getrusage(RUSAGE_SELF, &before); /* cannot fail with this argument */
    int in_fd = open(in, O_RDONLY | O_CLOEXEC), out_fd = open(copy, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    uint8_t *buffer = malloc(COPY_BYTES);
    if (in_fd < 0 || out_fd < 0 || !buffer || fstat(in_fd, &from) < 0 || stat(out, &to) < 0)
        die(in);
    (void)fallocate(out_fd, 0, 0, to.st_size); /* as ours does, where the file system can */
    for (off_t at = 0; at < from.st_size; at += COPY_BYTES) {
        if (pread_whole(in_fd, buffer, COPY_BYTES, (uint64_t)at) < 0)
            die(in);
    }
    for (off_t at = 0; at < to.st_size; at += COPY_BYTES) {
        if (pwrite_whole(out_fd, buffer, at + COPY_BYTES < to.st_size ? COPY_BYTES : (size_t)(to.st_size - at),
                         (uint64_t)at) < 0)
            die(copy);
    }
    (void)getrusage(RUSAGE_SELF, &after);
    free(buffer);
    (void)close(in_fd);
    (void)close(out_fd); /* nothing to keep */
    (void)unlink(copy);
    double user = of_timeval(after.ru_utime) - of_timeval(before.ru_utime);
    return (struct cost){.cpu = user + of_timeval(after.ru_stime) - of_timeval(before.ru_stime),
                         .user = user,
                         .wall = seconds() - begun};
}

static void take_least(struct cost *least, struct cost now)
{
    least->cpu = now.cpu < least->cpu ? now.cpu : least->cpu;
    least->user = now.user < least->user ? now.user : least->user;
    least->wall = now.wall < least->wall ? now.wall : least->wall;
    least->rss_kib = now.rss_kib > least->rss_kib ? now.rss_kib : least->rss_kib;
}

static void print_cost(const char *who, const char *scheme, const char *threads, const struct cost *c, uint64_t n_bytes)
{
    printf("%-6s %-5s threads %s  cpu %6.2f s (user %5.2f)  wall %6.2f s  %6.0f MB/s  peak RSS %7.1f MiB\n", scheme,
           who, threads, c->cpu, c->user, c->wall, (double)n_bytes / c->wall / 1e6, (double)c->rss_kib / 1024);
    (void)fflush(stdout);
}

static int race(const char *const *programs, const char *model, const char *folder, const struct contest *c,
                const char *threads, int rounds)
{
    const struct cost most = {.cpu = 1e9, .user = 1e9, .wall = 1e9};
    struct cost ours = most, peer = most, copy = most;
    char out[512], copied[512];
    struct stat st;
    (void)snprintf(out, sizeof out, "%s/out.gguf", folder); /* a cut name cannot be opened */
    (void)snprintf(copied, sizeof copied, "%s/copy", folder);
    if (stat(model, &st) < 0)
        die(model);
    for (int i = 0; i < rounds; i++) {
        if (strcmp(programs[1], "-") != 0)
            take_least(&peer, run_peer(programs[1], model, out, c, threads));
        take_least(&ours, run_ours(programs[0], model, out, c, threads));
        take_least(&copy, run_copy(model, out, copied));
    }
    (void)unlink(out);
    print_cost("ours", c->scheme, threads, &ours, (uint64_t)st.st_size);
    print_cost("copy", c->scheme, "1", &copy, (uint64_t)st.st_size);
    printf("%-6s ours is %.2f of the bound (CPU of the copy)\n", c->scheme, ours.cpu / copy.cpu);
    bool missed = ours.rss_kib > rss_bar_kib;
    if (strcmp(programs[1], "-") != 0) {
        print_cost("peer", c->scheme, threads, &peer, (uint64_t)st.st_size);
        printf("%-6s ours takes %.3f of the peer's CPU seconds (bar %.3f), 1 / %.1f\n", c->scheme, ours.cpu / peer.cpu,
               c->cpu_bar, peer.cpu / ours.cpu);
        missed = missed || ours.cpu > peer.cpu * c->cpu_bar;
    }
    return missed;
}

static bool is_asked(const struct contest *c, int n, char **schemes)
{
    for (int i = 0; i < n; i++)
        if (strcmp(schemes[i], c->scheme) == 0)
            return true;
    return n <= 0;
}

int main(int argc, char **argv)
{
    static const char *const threads[] = {"1", "2"};
    if (argc < 3) {
        fprintf(stderr, "usage: bench_quantize WORKER PEER_QUANTIZE [MIB] [ROUNDS] [SCHEME...]\n");
        return EXIT_FAILURE;
    }
    const char *const programs[] = {argv[1], access(argv[2], X_OK) == 0 ? argv[2] : "-"};
    char folder[256], model[512];
    (void)snprintf(folder, sizeof folder, "%s/quantd-bench-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp");
    if (!mkdtemp(folder))
        die(folder);
    (void)snprintf(model, sizeof model, "%s/model.gguf", folder); /* fits beside a folder of 255 */
    uint64_t n_bytes = make_model(model, argc > 3 ? (unsigned)atoi(argv[3]) : 2048);
    printf("model of %.2f GB, f16; page cache warm\n", (double)n_bytes / 1e9);
    int missed = 0;
    for (size_t i = 0; i < sizeof contests / sizeof contests[0]; i++) {
        const struct contest *c = &contests[i];
        for (size_t t = 0; t < 2 && is_asked(c, argc - 5, argv + 5); t++)
            missed |=
                race(programs, model, folder, c, threads[t], argc > 4 && atoi(argv[4]) ? atoi(argv[4]) : c->rounds);
    }
    (void)unlink(model);
    (void)rmdir(folder);
    return missed ? EXIT_FAILURE : EXIT_SUCCESS;
}
