#include "tests/bench/matmul_peer.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

/* Every function that is called. One line is a member of struct peer of the same name and type. */
#define PEER_BASE(F)                            \
    F(ggml_version)                             \
    F(ggml_commit)                              \
    F(ggml_log_set)                             \
    F(ggml_init)                                \
    F(ggml_free)                                \
    F(ggml_tensor_overhead)                     \
    F(ggml_nbytes)                              \
    F(ggml_new_tensor_2d)                       \
    F(ggml_mul_mat)                             \
    F(ggml_new_graph_custom)                    \
    F(ggml_graph_overhead_custom)               \
    F(ggml_build_forward_expand)                \
    F(ggml_threadpool_params_default)           \
    F(ggml_backend_reg_dev_get)                 \
    F(ggml_backend_reg_get_proc_address)        \
    F(ggml_backend_dev_init)                    \
    F(ggml_backend_dev_buffer_type)             \
    F(ggml_backend_dev_supports_op)             \
    F(ggml_backend_buft_name)                   \
    F(ggml_backend_buft_alloc_buffer)           \
    F(ggml_backend_alloc_ctx_tensors_from_buft) \
    F(ggml_backend_buffer_free)                 \
    F(ggml_backend_buffer_get_base)             \
    F(ggml_backend_tensor_alloc)                \
    F(ggml_backend_tensor_set)                  \
    F(ggml_backend_graph_compute)
#define PEER_CPU(F)                    \
    F(ggml_threadpool_new)             \
    F(ggml_threadpool_free)            \
    F(ggml_threadpool_pause)           \
    F(ggml_threadpool_resume)          \
    F(ggml_backend_cpu_set_threadpool) \
    F(ggml_backend_cpu_set_n_threads)

enum { PLACE_BYTES = 64 };

struct peer {
#define PEER_MEMBER(name) __typeof__(&name) name;
    PEER_BASE(PEER_MEMBER)
    PEER_CPU(PEER_MEMBER)
#undef PEER_MEMBER
    ggml_backend_reg_t reg;
    ggml_backend_dev_t device;
    ggml_backend_t backend;
    ggml_threadpool_t pool;
    unsigned n_threads;
    char name[160];
};

struct peer_product {
    struct peer *peer; /* borrowed */
    struct qd_matrix w;
    size_t n_copies;
    struct ggml_context *weights, *graph_memory; /* owned, as are the buffers */
    struct ggml_tensor **copies;
    ggml_backend_buffer_t weights_buffer, buffer; /* the second: of x and y */
    ggml_backend_buffer_type_t type;
    struct ggml_tensor *x, *y;
    struct ggml_cgraph *graph;
};

static enum ggml_type ggml_type_of(enum qd_type type)
{
    static const enum ggml_type types[QD_N_TYPES] = {[QD_TYPE_Q8_0] = GGML_TYPE_Q8_0,
                                                     [QD_TYPE_Q4_0] = GGML_TYPE_Q4_0,
                                                     [QD_TYPE_Q4_K] = GGML_TYPE_Q4_K,
                                                     [QD_TYPE_Q6_K] = GGML_TYPE_Q6_K};
    return types[type];
}

/* ---- the library ----------------------------------------------------------------------------------------------- */

static void *open_variant(const char *folder, const char *variant)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/libggml-cpu-%s.so", folder, variant);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* What ggml does (ggml-backend-reg.cpp, ggml_backend_load_best): the library whose score for this CPU is highest. */
static void find_best(const char *folder, char *ret_variant, size_t n_bytes)
{
    DIR *dir = opendir(folder);
    int best = 0, score;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char variant[64] = "";
        if (sscanf(e->d_name, "libggml-cpu-%63[a-z0-9].so", variant) != 1)
            continue;
        void *library = open_variant(folder, variant);
        int (*score_of)(void) = library ? (int (*)(void))dlsym(library, "ggml_backend_score") : NULL;
        if (score_of && (score = score_of()) > best) {
            best = score;
            (void)snprintf(ret_variant, n_bytes, "%s", variant);
        }
        if (library)
            (void)dlclose(library); /* only asked */
    }
    if (dir)
        (void)closedir(dir);
}

static void only_errors(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR)
        (void)fputs(text, stderr);
}

static bool find_functions(struct peer *p, void *base, void *cpu)
{
    bool all = true;
#define PEER_FIND(name) all &= (p->name = (__typeof__(&name))dlsym(PEER_FROM, #name)) != NULL;
#define PEER_FROM       base
    PEER_BASE(PEER_FIND)
#undef PEER_FROM
#define PEER_FROM cpu
    PEER_CPU(PEER_FIND)
#undef PEER_FROM
#undef PEER_FIND
    return all;
}

static struct peer *left_out(struct peer *p, const char *why)
{
    (void)fprintf(stderr, "left out: ggml: %s\n", why);
    free(p);
    return NULL;
}

struct peer *peer_open(const char *folder, const char *variant)
{
    char path[4096], best[64] = "";
    struct peer *p = calloc(1, sizeof *p);
    (void)snprintf(path, sizeof path, "%s/libggml-base.so", folder);
    void *base = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!p || !base)
        return left_out(p, base ? "out of memory" : dlerror());
    if (!variant)
        find_best(folder, best, sizeof best);
    void *cpu = open_variant(folder, variant ? variant : best);
    if (!cpu)
        return left_out(p, dlerror());
    ggml_backend_reg_t (*init)(void) = (ggml_backend_reg_t(*)(void))dlsym(cpu, "ggml_backend_init");
    if (!init || !find_functions(p, base, cpu))
        return left_out(p, "a function is missing: another version");
    p->ggml_log_set(only_errors, NULL);
    p->reg = init();
    p->device = p->reg ? p->ggml_backend_reg_dev_get(p->reg, 0) : NULL;
    p->backend = p->device ? p->ggml_backend_dev_init(p->device, NULL) : NULL;
    if (!p->backend)
        return left_out(p, "its backend does not start");
    (void)snprintf(p->name, sizeof p->name, "ggml %s (%s), %s", p->ggml_version(), p->ggml_commit(),
                   variant ? variant : best);
    return p;
}

const char *peer_name(const struct peer *p)
{
    return p->name;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

static struct ggml_context *context(const struct peer *p, size_t n_tensors, size_t more_bytes)
{
    struct ggml_init_params params = {.mem_size = p->ggml_tensor_overhead() * n_tensors + more_bytes, .no_alloc = true};
    struct ggml_context *c = p->ggml_init(params);
    if (!c)
        abort(); /* out of memory */
    return c;
}

/* Does the backend multiply by @w where it lies in a buffer of @type? llama.cpp asks the same way. */
static bool supports(const struct peer *p, const struct qd_matrix *w, ggml_backend_buffer_type_t type)
{
    struct ggml_context *c = context(p, 4, 0);
    const int64_t n_cols = (int64_t)w->n_cols, n_rows = (int64_t)w->n_rows;
    struct ggml_tensor *a = p->ggml_new_tensor_2d(c, ggml_type_of(w->type), n_cols, n_rows);
    struct ggml_tensor *x = p->ggml_new_tensor_2d(c, GGML_TYPE_F32, n_cols, 512);
    struct ggml_tensor *y = p->ggml_mul_mat(c, a, x);
    a->buffer = p->ggml_backend_buft_alloc_buffer(type, 0);
    const bool yes = p->ggml_backend_dev_supports_op(p->device, y);
    p->ggml_backend_buffer_free(a->buffer);
    p->ggml_free(c);
    return yes;
}

/* The first of the backend's extra types that takes these weights, as a model's loader chooses; else the plain one. */
static ggml_backend_buffer_type_t choose_type(const struct peer *p, const struct qd_matrix *w)
{
    ggml_backend_dev_get_extra_bufts_t extras =
        (ggml_backend_dev_get_extra_bufts_t)p->ggml_backend_reg_get_proc_address(p->reg,
                                                                                 "ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t *types = extras ? extras(p->device) : NULL;
    for (; types && *types; types++)
        if (supports(p, w, *types))
            return *types;
    return p->ggml_backend_dev_buffer_type(p->device);
}

/* The first copy is set, which repacks it; the others are its bytes. */
static void fill_copies(const struct peer_product *m)
{
    const struct peer *p = m->peer;
    p->ggml_backend_tensor_set(m->copies[0], m->w.data, 0, p->ggml_nbytes(m->copies[0]));
    for (size_t i = 1; i < m->n_copies; i++)
        memcpy(m->copies[i]->data, m->copies[0]->data, p->ggml_nbytes(m->copies[0]));
}

struct peer_product *peer_product_new(struct peer *p, const struct qd_matrix *w, size_t n_copies, size_t n_max)
{
    struct peer_product *m = calloc(1, sizeof *m);
    struct ggml_tensor **tensors = calloc(n_copies, sizeof(struct ggml_tensor *));
    if (!m || !tensors)
        abort(); /* out of memory */
    *m = (struct peer_product){.peer = p, .w = *w, .n_copies = n_copies, .copies = tensors};
    m->type = choose_type(p, w);
    m->weights = context(p, n_copies + 1, 0);
    for (size_t i = 0; i < n_copies; i++)
        m->copies[i] = p->ggml_new_tensor_2d(m->weights, ggml_type_of(w->type), (int64_t)w->n_cols, (int64_t)w->n_rows);
    m->weights_buffer = p->ggml_backend_alloc_ctx_tensors_from_buft(m->weights, m->type);
    m->buffer = p->ggml_backend_buft_alloc_buffer(p->ggml_backend_dev_buffer_type(p->device),
                                                  n_max * (w->n_cols + w->n_rows) * sizeof(float) + PLACE_BYTES);
    if (!m->weights_buffer || !m->buffer)
        abort(); /* out of memory */
    fill_copies(m);
    return m;
}

void peer_product_free(struct peer_product *m)
{
    if (!m)
        return;
    m->peer->ggml_backend_buffer_free(m->weights_buffer);
    m->peer->ggml_backend_buffer_free(m->buffer);
    m->peer->ggml_free(m->weights);
    m->peer->ggml_free(m->graph_memory);
    free(m->copies);
    free(m);
}

const char *peer_product_buffer(const struct peer_product *m)
{
    return m->peer->ggml_backend_buft_name(m->type);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static void use_threads(struct peer *p, unsigned n_threads)
{
    if (p->pool && p->n_threads == n_threads)
        return;
    struct ggml_threadpool_params params = p->ggml_threadpool_params_default((int)n_threads);
    ggml_threadpool_t old = p->pool;
    p->pool = p->ggml_threadpool_new(&params);
    p->n_threads = n_threads;
    p->ggml_backend_cpu_set_n_threads(p->backend, (int)n_threads);
    p->ggml_backend_cpu_set_threadpool(p->backend, p->pool);
    if (old)
        p->ggml_threadpool_free(old);
    p->ggml_threadpool_pause(p->pool);
}

void peer_product_begin(struct peer_product *m, const float *x, size_t n, size_t n_products, unsigned n_threads)
{
    struct peer *p = m->peer;
    char *place = p->ggml_backend_buffer_get_base(m->buffer);
    use_threads(p, n_threads);
    p->ggml_free(m->graph_memory);
    m->graph_memory = context(p, n_products + 1, p->ggml_graph_overhead_custom(n_products + 2, false));
    m->graph = p->ggml_new_graph_custom(m->graph_memory, n_products + 2, false);
    m->x = p->ggml_new_tensor_2d(m->graph_memory, GGML_TYPE_F32, (int64_t)m->w.n_cols, (int64_t)n);
    (void)p->ggml_backend_tensor_alloc(m->buffer, m->x, place); /* the room was counted */
    p->ggml_backend_tensor_set(m->x, x, 0, p->ggml_nbytes(m->x));
    place += (p->ggml_nbytes(m->x) + PLACE_BYTES - 1) / PLACE_BYTES * PLACE_BYTES;
    for (size_t i = 0; i < n_products; i++) {
        m->y = p->ggml_mul_mat(m->graph_memory, m->copies[i], m->x);
        (void)p->ggml_backend_tensor_alloc(m->buffer, m->y, place);
        p->ggml_build_forward_expand(m->graph, m->y);
    }
}

void peer_product_run(struct peer_product *m)
{
    struct peer *p = m->peer;
    p->ggml_threadpool_resume(p->pool);
    if (p->ggml_backend_graph_compute(p->backend, m->graph) != GGML_STATUS_SUCCESS)
        abort(); /* the peer cannot do what it said it could */
    p->ggml_threadpool_pause(p->pool);
}

const float *peer_product_result(const struct peer_product *m)
{
    return m->y->data;
}
