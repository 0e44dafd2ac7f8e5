#include "tests/peers/peer.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { EXIT_LEFT_OUT = 77 }; /* meson counts it as skipped */

void peer_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static void *open_library(const char *folder, const char *name)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        (void)fprintf(stderr, "left out: peer: %s\n", dlerror());
        exit(EXIT_LEFT_OUT);
    }
    return library;
}

static void *find(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (!function)
        peer_die("the peer has no %s: wrong version", name);
    return function;
}

static void only_errors(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR)
        (void)fputs(text, stderr);
}

void peer_load(struct peer *p)
{
    const char *folder = getenv("QUANTD_PEERS");
    if (!folder || !*folder)
        folder = PEER_FOLDER;
    (void)open_library(folder, "libggml-base.so"); /* stays loaded: the next ones need it */
    void *ggml = open_library(folder, "libggml.v0.5.0.so");
    void *llama = open_library(folder, "libllama.v0.5.0.so");
#define PEER_FIND(name) p->name = (__typeof__(&name))find(PEER_FROM, #name);
#define PEER_FROM       ggml
    PEER_GGML(PEER_FIND)
#undef PEER_FROM
#define PEER_FROM llama
    PEER_LLAMA(PEER_FIND)
#undef PEER_FROM
#undef PEER_FIND
    p->llama_log_set(only_errors, NULL);
    p->ggml_backend_load_all_from_path(folder);
    p->llama_backend_init();
}

const char *peer_path(const char *path, bool by_descriptor)
{
    static char link[64];
    if (!by_descriptor)
        return path;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        peer_die("open '%s': %s", path, strerror(errno));
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return link;
}

struct llama_model *peer_model(const struct peer *p, const char *path)
{
    struct llama_model *model = p->llama_model_load_from_file(path, p->llama_model_default_params());
    if (!model)
        peer_die("the peer cannot load '%s'", path);
    return model;
}

struct llama_context *peer_context(const struct peer *p, struct llama_model *model, unsigned n_tokens)
{
    struct llama_context_params params = p->llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = n_tokens;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *context = p->llama_init_from_model(model, params);
    if (!context)
        peer_die("the peer makes no context");
    return context;
}

llama_token *peer_tokenize(const struct peer *p, const struct llama_vocab *vocab, const char *text, size_t text_bytes,
                           int *ret_n)
{
    size_t room = text_bytes + 8; /* a token is at least a byte; the space put before the text is one more */
    llama_token *tokens = calloc(room, sizeof *tokens);
    if (!tokens)
        peer_die("out of memory");
    *ret_n = p->llama_tokenize(vocab, text, (int32_t)text_bytes, tokens, (int32_t)room, false, false);
    if (*ret_n < 0)
        peer_die("the peer cannot tokenize the text");
    return tokens;
}

void peer_feed(const struct peer *p, struct llama_context *context, struct llama_batch *batch,
               const llama_token *tokens, int n, int at)
{
    batch->n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch->token[i] = tokens[i];
        batch->pos[i] = at + i;
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i] = true;
    }
    if (p->llama_decode(context, *batch) != 0)
        peer_die("the peer cannot decode");
}

bool peer_option(int *argc, char **argv, const char *name)
{
    if (*argc < 2 || strcmp(argv[1], name) != 0)
        return false;
    memmove(&argv[1], &argv[2], (size_t)(*argc - 1) * sizeof *argv); /* the closing NULL moves too */
    --*argc;
    return true;
}

double peer_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double peer_cpu_seconds(void)
{
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use); /* cannot fail with this argument */
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}
