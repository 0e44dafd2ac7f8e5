/*
 * A llama on served weights: what it takes to run a model when somebody else keeps its weights.
 *     cc -O3 chat.c $(pkg-config --cflags --libs quantd) -lm -o chat
 *     ./chat --model tiny-kjv --scheme q8_0 --prompt "In the beginning" --tokens 100
 *
 * Weights are multiplied where quantd maps them, in the order that this CPU reads best, shared by every process; this
 * program owns its keys and values and some rows of activations. Models: architecture `llama` without experts, with
 * the tokenizer `llama` (SentencePiece). Keys and names are those of llama.cpp's files, and the steps are its steps, so
 * that the likeliest continuation is its continuation, token by token. From the top: metadata, views, tokenizer, the
 * run of the model, sampling, the program.
 */
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <quantd/quantd.h>

enum { BATCH = 64 /* tokens of a prompt that are computed at once */ };

/* ---- failures: this program ends with the reason --------------------------------------------------------- */

static struct qd_error error;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

/* What the library returned: fine, or the end. */
static void must(int result)
{
    if (result < 0)
        die("%s%s%s", error.message, error.hint[0] ? "\n  " : "", error.hint);
}

static void *allocate(size_t n, size_t bytes)
{
    void *p = calloc(n ? n : 1, bytes);
    if (!p)
        die("out of memory: %zu times %zu bytes", n, bytes);
    return p;
}

/* ---- metadata -------------------------------------------------------------------------------------------- */

static bool has_key(struct qd_artifact *a, const char *key)
{
    return qd_meta_type_name(a, key) != NULL;
}

static size_t count(struct qd_artifact *a, const char *key)
{
    uint64_t n = 0;
    must(qd_meta_u64(a, key, &n, &error));
    return n;
}

static size_t count_or(struct qd_artifact *a, const char *key, size_t otherwise)
{
    return has_key(a, key) ? count(a, key) : otherwise;
}

static float real_or(struct qd_artifact *a, const char *key, double otherwise)
{
    if (has_key(a, key))
        must(qd_meta_f64(a, key, &otherwise, &error));
    return (float)otherwise;
}

static bool says(struct qd_artifact *a, const char *key, const char *text)
{
    const char *found;
    must(qd_meta_string(a, key, &found, NULL, &error));
    return strcmp(found, text) == 0;
}

/* ---- the model: what it is, and views of its weights ------------------------------------------------------- */

struct layer {
    const float *attn_norm, *ffn_norm;
    struct qd_matrix q, k, v, o, gate, up, down;
};

struct model {
    struct qd_artifact *artifact;
    size_t n_vocab, n_context, n_layers, n_embd, n_ff;
    size_t n_heads, n_kv_heads, head; /* heads of queries, of keys and values, and the width of each */
    size_t n_q, n_kv;                 /* all of them side by side */
    size_t n_rot;                     /* of each head turns with the position */
    float norm_epsilon, rope_base, rope_scale;
    struct qd_matrix embedding, output;
    const float *output_norm;
    const float *rope_factors; /* [n_rot / 2]; NULL where there are none */
    struct layer *layers;
    size_t n_used; /* tensors that have a place */
};

static void read_shape(struct model *m)
{
    struct qd_artifact *a = m->artifact;
    if (!says(a, "general.architecture", "llama"))
        die("this program runs models of architecture llama alone");
    must(qd_meta_count(a, "tokenizer.ggml.tokens", &m->n_vocab, &error));
    m->n_context = count(a, "llama.context_length");
    m->n_layers = count(a, "llama.block_count");
    m->n_embd = count(a, "llama.embedding_length");
    m->n_ff = count(a, "llama.feed_forward_length");
    m->n_heads = count(a, "llama.attention.head_count");
    m->n_kv_heads = count_or(a, "llama.attention.head_count_kv", m->n_heads);
    if (m->n_heads == 0 || m->n_kv_heads == 0 || m->n_heads % m->n_kv_heads || m->n_embd % m->n_heads)
        die("%zu heads on %zu of keys and values, %zu wide", m->n_heads, m->n_kv_heads, m->n_embd);
    m->head = count_or(a, "llama.attention.key_length", m->n_embd / m->n_heads);
    m->n_q = m->n_heads * m->head;
    m->n_kv = m->n_kv_heads * m->head;
    m->n_rot = count_or(a, "llama.rope.dimension_count", m->head);
    if (m->n_rot > m->head || m->n_rot % 2)
        die("%zu of %zu dimensions of a head cannot turn", m->n_rot, m->head);
    m->norm_epsilon = real_or(a, "llama.attention.layer_norm_rms_epsilon", 1e-5);
    m->rope_base = real_or(a, "llama.rope.freq_base", 10000);
    m->rope_scale = 1 / real_or(a, "llama.rope.scaling.factor", 1);
    if (has_key(a, "llama.rope.scaling.type") && !says(a, "llama.rope.scaling.type", "linear"))
        die("this program knows no scaling of positions but the linear one");
}

static const struct qd_tensor *find(struct model *m, const char *name)
{
    const struct qd_tensor *t = qd_artifact_tensor(m->artifact, name);
    if (!t)
        die("the model has no tensor '%s'", name);
    m->n_used++;
    return t;
}

static struct qd_matrix matrix(struct model *m, const char *name, size_t n_rows, size_t n_cols)
{
    struct qd_matrix w;
    must(qd_tensor_matrix(find(m, name), 0, &w, &error));
    if (w.n_rows != n_rows || w.n_cols != n_cols)
        die("tensor '%s' is not %zu x %zu", name, n_rows, n_cols);
    return w;
}

/* As f32, whatever it is stored as: small, so a copy. */
static const float *vector(struct model *m, const char *name, size_t n)
{
    const struct qd_tensor *t = find(m, name);
    struct qd_matrix row = {.data = t->data, .n_rows = 1, .n_cols = n, .type = t->type};
    float *copy = allocate(n, sizeof *copy);
    if (t->n_dims != 1 || t->shape[0] != n)
        die("tensor '%s' is no vector of %zu", name, n);
    must(qd_dequantize_row(&row, 0, copy, &error));
    return copy;
}

static const char *in_layer(size_t i, const char *part)
{
    static char name[64];
    snprintf(name, sizeof name, "blk.%zu.%s.weight", i, part);
    return name;
}

static void read_layer(struct model *m, size_t i)
{
    m->layers[i] = (struct layer){
        .attn_norm = vector(m, in_layer(i, "attn_norm"), m->n_embd),
        .q = matrix(m, in_layer(i, "attn_q"), m->n_q, m->n_embd),
        .k = matrix(m, in_layer(i, "attn_k"), m->n_kv, m->n_embd),
        .v = matrix(m, in_layer(i, "attn_v"), m->n_kv, m->n_embd),
        .o = matrix(m, in_layer(i, "attn_output"), m->n_embd, m->n_q),
        .ffn_norm = vector(m, in_layer(i, "ffn_norm"), m->n_embd),
        .gate = matrix(m, in_layer(i, "ffn_gate"), m->n_ff, m->n_embd),
        .up = matrix(m, in_layer(i, "ffn_up"), m->n_ff, m->n_embd),
        .down = matrix(m, in_layer(i, "ffn_down"), m->n_embd, m->n_ff),
    };
}

/* Every tensor must have a place: without the biases or experts of a model its text would be wrong. */
static void read_model(struct model *m)
{
    bool tied = !qd_artifact_tensor(m->artifact, "output.weight");
    read_shape(m);
    m->embedding = matrix(m, "token_embd.weight", m->n_vocab, m->n_embd);
    m->output = tied ? m->embedding : matrix(m, "output.weight", m->n_vocab, m->n_embd);
    m->output_norm = vector(m, "output_norm.weight", m->n_embd);
    if (qd_artifact_tensor(m->artifact, "rope_freqs.weight"))
        m->rope_factors = vector(m, "rope_freqs.weight", m->n_rot / 2);
    m->layers = allocate(m->n_layers, sizeof *m->layers);
    for (size_t i = 0; i < m->n_layers; i++)
        read_layer(m, i);
    size_t n_tensors = qd_artifact_n_tensors(m->artifact);
    if (m->n_used != n_tensors)
        die("%zu of the model's %zu tensors have no place in this program", n_tensors - m->n_used, n_tensors);
}

/* ---- the tokenizer: SentencePiece's, from tokens, scores and types ------------------------------------------- */

enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

struct token {
    const char *text; /* borrows the artifact's metadata */
    size_t n;
    float score;
    enum token_type type;
};

struct vocabulary {
    struct token *tokens;
    size_t n;
    uint32_t *index; /* open addressing by text; 0: free, else 1 + token */
    size_t mask;
    uint32_t bos, eos, unknown;
    bool add_bos, add_space;
};

static size_t hash(const char *text, size_t n)
{
    size_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)text[i]) * 1099511628211u;
    return h;
}

/* The slot of a text, or the free one where it would be. */
static size_t slot(const struct vocabulary *v, const char *text, size_t n)
{
    size_t at = hash(text, n) & v->mask;
    for (; v->index[at]; at = (at + 1) & v->mask) {
        const struct token *t = &v->tokens[v->index[at] - 1];
        if (t->n == n && memcmp(t->text, text, n) == 0)
            break;
    }
    return at;
}

/* The token of a text; -1 where it is none. */
static int64_t lookup(const struct vocabulary *v, const char *text, size_t n)
{
    return (int64_t)v->index[slot(v, text, n)] - 1;
}

static void read_token(struct vocabulary *v, struct qd_artifact *a, size_t i)
{
    struct token *t = &v->tokens[i];
    double score;
    uint64_t type;
    must(qd_meta_item_string(a, "tokenizer.ggml.tokens", i, &t->text, &t->n, &error));
    must(qd_meta_item_f64(a, "tokenizer.ggml.scores", i, &score, &error));
    must(qd_meta_item_u64(a, "tokenizer.ggml.token_type", i, &type, &error));
    t->score = (float)score;
    t->type = (enum token_type)type;
    v->index[slot(v, t->text, t->n)] = (uint32_t)i + 1;
}

static void read_vocabulary(struct vocabulary *v, struct qd_artifact *a)
{
    if (!says(a, "tokenizer.ggml.model", "llama"))
        die("this program has the tokenizer `llama` (SentencePiece) alone");
    must(qd_meta_count(a, "tokenizer.ggml.tokens", &v->n, &error));
    v->tokens = allocate(v->n, sizeof *v->tokens);
    for (v->mask = 4; v->mask < 2 * v->n; v->mask *= 2)
        ;
    v->index = allocate(v->mask--, sizeof *v->index);
    for (size_t i = 0; i < v->n; i++)
        read_token(v, a, i);
    v->bos = (uint32_t)count_or(a, "tokenizer.ggml.bos_token_id", 1);
    v->eos = (uint32_t)count_or(a, "tokenizer.ggml.eos_token_id", 2);
    v->unknown = (uint32_t)count_or(a, "tokenizer.ggml.unknown_token_id", 0);
    v->add_bos = count_or(a, "tokenizer.ggml.add_bos_token", true);
    v->add_space = count_or(a, "tokenizer.ggml.add_space_prefix", true);
}

static const char space[] = "\xe2\x96\x81"; /* U+2581, what a space is in a token */

/* @text as the tokens spell it: a space before it, and every space as U+2581. The caller frees it. */
static char *spell(const struct vocabulary *v, const char *text)
{
    char *spelt = allocate(3 * strlen(text) + 4, 1), *end = spelt;
    if (v->add_space && *text)
        end = stpcpy(end, space);
    for (; *text; text++)
        if (*text == ' ')
            end = stpcpy(end, space);
        else
            *end++ = *text;
    return spelt;
}

/* A stretch of the text: a character at first, a token at last. */
struct piece {
    const char *text;
    size_t n;
    float score; /* of the token that this piece and the next make; -inf where they make none */
};

static size_t character_bytes(const char *text)
{
    size_t n = 1;
    while ((text[n] & 0xc0) == 0x80) /* goes on */
        n++;
    return n;
}

static void score_pair(const struct vocabulary *v, struct piece *p, size_t n_pieces)
{
    int64_t token = n_pieces > 1 ? lookup(v, p->text, p[0].n + p[1].n) : -1;
    p->score = token < 0 ? -INFINITY : v->tokens[token].score;
}

/* Joins the pair of the best score, the first of equals, until no pair makes a token. The number that is left. */
static size_t join_pieces(const struct vocabulary *v, struct piece *pieces, size_t n)
{
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (pieces[i].score > pieces[best].score)
                best = i;
        if (n == 0 || pieces[best].score == -INFINITY)
            return n;
        pieces[best].n += pieces[best + 1].n;
        n--;
        memmove(&pieces[best + 1], &pieces[best + 2], (n - best - 1) * sizeof *pieces);
        score_pair(v, &pieces[best], n - best);
        if (best > 0)
            score_pair(v, &pieces[best - 1], n - best + 1);
    }
}

static uint32_t byte_token(const struct vocabulary *v, uint8_t byte)
{
    char text[8];
    int64_t token = lookup(v, text, (size_t)snprintf(text, sizeof text, "<0x%02X>", byte));
    return token < 0 ? v->unknown : (uint32_t)token;
}

/* The tokens of @text at @dst, room for one more than three times its bytes; how many. */
static size_t tokenize(const struct vocabulary *v, const char *text, uint32_t *dst)
{
    char *spelt = spell(v, text);
    struct piece *pieces = allocate(strlen(spelt), sizeof *pieces);
    size_t n = 0, n_tokens = 0;
    for (const char *c = spelt; *c; c += pieces[n++].n)
        pieces[n] = (struct piece){.text = c, .n = character_bytes(c)};
    for (size_t i = 0; i < n; i++)
        score_pair(v, &pieces[i], n - i);
    n = join_pieces(v, pieces, n);

    if (v->add_bos)
        dst[n_tokens++] = v->bos;
    for (size_t i = 0; i < n; i++) {
        int64_t token = lookup(v, pieces[i].text, pieces[i].n);
        if (token >= 0)
            dst[n_tokens++] = (uint32_t)token;
        for (size_t b = 0; token < 0 && b < pieces[i].n; b++) /* a character that is no token */
            dst[n_tokens++] = byte_token(v, (uint8_t)pieces[i].text[b]);
    }
    free(pieces);
    free(spelt);
    return n_tokens;
}

static void print_token(const struct vocabulary *v, uint32_t token)
{
    const struct token *t = &v->tokens[token];
    if (t->type == TOKEN_BYTE)
        putchar((int)strtoul(t->text + 3, NULL, 16));
    if (t->type == TOKEN_BYTE || t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN)
        return;
    for (const char *at = t->text, *end = t->text + t->n; at < end;) {
        bool is_space = end - at >= 3 && memcmp(at, space, 3) == 0;
        putchar(is_space ? ' ' : *at);
        at += is_space ? 3 : 1;
    }
}

/* ---- a run of the model -------------------------------------------------------------------------------------- */

struct run {
    const struct model *m;
    struct qd_team *team;
    void *scratch;
    size_t scratch_bytes;
    size_t n_past, n_max; /* positions that were read, and for how many there is room */
    float *keys, *values; /* [layer][position][kv head][head] */
    float *x, *h;         /* [token][embedding]: the stream, and what is normed of it */
    float *q, *attended;  /* [token][head][head] */
    float *gate, *up;     /* [token][feed-forward] */
    float *turns;         /* [token][pair][2]: cosine and sine of each rotation */
    float *scores;        /* [position] */
    float *logits;        /* [vocabulary], of the last token */
};

static void prepare(struct run *r, const struct model *m, unsigned n_threads, size_t n_max)
{
    *r = (struct run){.m = m, .n_max = n_max};
    must(qd_team_new(n_threads, &r->team, &error));
    r->keys = allocate(m->n_layers * n_max * m->n_kv, sizeof *r->keys);
    r->values = allocate(m->n_layers * n_max * m->n_kv, sizeof *r->values);
    r->x = allocate(BATCH * m->n_embd, sizeof *r->x);
    r->h = allocate(BATCH * m->n_embd, sizeof *r->h);
    r->q = allocate(BATCH * m->n_q, sizeof *r->q);
    r->attended = allocate(BATCH * m->n_q, sizeof *r->attended);
    r->gate = allocate(BATCH * m->n_ff, sizeof *r->gate);
    r->up = allocate(BATCH * m->n_ff, sizeof *r->up);
    r->turns = allocate(BATCH * m->n_rot, sizeof *r->turns);
    r->scores = allocate(n_max, sizeof *r->scores);
    r->logits = allocate(m->n_vocab, sizeof *r->logits);
}

static void need_scratch(struct run *r, size_t n_bytes)
{
    if (n_bytes <= r->scratch_bytes)
        return;
    free(r->scratch);
    r->scratch = aligned_alloc(64, n_bytes);
    r->scratch_bytes = n_bytes;
    if (!r->scratch)
        die("out of memory: %zu bytes", n_bytes);
}

/* The nearest number that f16 has, of two the even one. */
static float rounded(float x)
{
    uint32_t bits;
    if (fabsf(x) < 0x1p-14f) /* steps of 2^-24 */
        return x + 0.75f - 0.75f;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* llama.cpp rounds what meets weights of f16 to f16, too; so do we, for its tokens. Nothing else needs it. */
static void multiply(struct run *r, const struct qd_matrix *w, float *x, size_t n, float *y)
{
    for (size_t i = 0; w->type == QD_TYPE_F16 && i < n * w->n_cols; i++)
        x[i] = rounded(x[i]);
    need_scratch(r, qd_matmul_scratch_bytes(w, n, r->team));
    must(qd_matmul(w, x, n, y, r->team, r->scratch, r->scratch_bytes, &error));
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* Each of @n_tokens rows divided by its root mean square, times @weight. */
static void rms_norm(const struct model *m, const float *x, const float *weight, size_t n_tokens, float *dst)
{
    for (const float *end = x + n_tokens * m->n_embd; x < end; x += m->n_embd, dst += m->n_embd) {
        double sum = 0;
        for (size_t i = 0; i < m->n_embd; i++)
            sum += (double)(x[i] * x[i]);
        float scale = 1 / sqrtf((float)(sum / (double)m->n_embd) + m->norm_epsilon);
        for (size_t i = 0; i < m->n_embd; i++)
            dst[i] = x[i] * scale * weight[i];
    }
}

/* Cosine and sine of every pair's angle at each position. Angles are products of f32, one after the other. */
static void find_turns(struct run *r, size_t n_tokens)
{
    const struct model *m = r->m;
    const float step = powf(m->rope_base, -2.0f / (float)m->n_rot);
    for (size_t t = 0; t < n_tokens; t++) {
        float angle = (float)(r->n_past + t), *turn = r->turns + t * m->n_rot;
        for (size_t i = 0; i < m->n_rot / 2; i++, angle *= step) {
            float slowed = angle / (m->rope_factors ? m->rope_factors[i] : 1) * m->rope_scale;
            turn[2 * i] = cosf(slowed);
            turn[2 * i + 1] = sinf(slowed);
        }
    }
}

/* Turns neighbouring pairs of each head of each token. */
static void rotate(const struct run *r, float *x, size_t n_tokens, size_t n_heads)
{
    for (size_t h = 0; h < n_tokens * n_heads; h++, x += r->m->head) {
        const float *turn = r->turns + h / n_heads * r->m->n_rot;
        for (size_t i = 0; i < r->m->n_rot; i += 2) {
            float a = x[i], b = x[i + 1];
            x[i] = a * turn[i] - b * turn[i + 1];
            x[i + 1] = a * turn[i + 1] + b * turn[i];
        }
    }
}

/* Eight sums side by side, so that a compiler may keep them in one register. */
static float dot(const float *a, const float *b, size_t n)
{
    float sums[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++)
            sums[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        rest += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])) + rest;
}

static void softmax(float *x, size_t n)
{
    float highest = x[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        highest = x[i] > highest ? x[i] : highest;
    for (size_t i = 0; i < n; i++)
        sum += (double)(x[i] = expf(x[i] - highest));
    for (size_t i = 0; i < n; i++)
        x[i] *= (float)(1 / sum);
}

/* One head of one token looks at the keys and values of the first @n_seen positions. */
static void attend(const struct run *r, const float *q, const float *keys, const float *values, size_t n_seen,
                   float *dst)
{
    const size_t head = r->m->head, stride = r->m->n_kv;
    for (size_t p = 0; p < n_seen; p++)
        r->scores[p] = dot(q, keys + p * stride, head) * (1 / sqrtf((float)head));
    softmax(r->scores, n_seen);
    memset(dst, 0, head * sizeof *dst);
    for (size_t p = 0; p < n_seen; p++)
        for (size_t i = 0; i < head; i++)
            dst[i] += r->scores[p] * values[p * stride + i];
}

static void attention(struct run *r, size_t layer, size_t n_tokens)
{
    const struct model *m = r->m;
    const struct layer *l = &m->layers[layer];
    float *keys = r->keys + layer * r->n_max * m->n_kv, *new_keys = keys + r->n_past * m->n_kv;
    float *values = r->values + layer * r->n_max * m->n_kv, *new_values = values + r->n_past * m->n_kv;
    multiply(r, &l->q, r->h, n_tokens, r->q);
    multiply(r, &l->k, r->h, n_tokens, new_keys);
    multiply(r, &l->v, r->h, n_tokens, new_values);
    rotate(r, r->q, n_tokens, m->n_heads);
    rotate(r, new_keys, n_tokens, m->n_kv_heads);
    for (size_t i = 0; i < n_tokens * m->n_heads; i++) {
        size_t shared = i % m->n_heads / (m->n_heads / m->n_kv_heads) * m->head,
               n_seen = r->n_past + i / m->n_heads + 1;
        attend(r, r->q + i * m->head, keys + shared, values + shared, n_seen, r->attended + i * m->head);
    }
    multiply(r, &l->o, r->attended, n_tokens, r->h);
}

static void feed_forward(struct run *r, size_t layer, size_t n_tokens)
{
    const struct layer *l = &r->m->layers[layer];
    multiply(r, &l->gate, r->h, n_tokens, r->gate);
    multiply(r, &l->up, r->h, n_tokens, r->up);
    for (size_t i = 0; i < n_tokens * r->m->n_ff; i++)
        r->gate[i] = r->gate[i] / (1 + expf(-r->gate[i])) * r->up[i];
    multiply(r, &l->down, r->gate, n_tokens, r->h);
}

/* Reads at most BATCH tokens; the first row of r->h is then what the last of them leads to. */
static void read_batch(struct run *r, const uint32_t *tokens, size_t n)
{
    const struct model *m = r->m;
    must(qd_get_rows(&m->embedding, tokens, n, r->x, &error));
    find_turns(r, n);
    for (size_t i = 0; i < m->n_layers; i++) {
        rms_norm(m, r->x, m->layers[i].attn_norm, n, r->h);
        attention(r, i, n);
        add(r->x, r->h, n * m->n_embd);
        rms_norm(m, r->x, m->layers[i].ffn_norm, n, r->h);
        feed_forward(r, i, n);
        add(r->x, r->h, n * m->n_embd);
    }
    r->n_past += n;
    rms_norm(m, r->x + (n - 1) * m->n_embd, m->output_norm, 1, r->h);
}

static void read_tokens(struct run *r, const uint32_t *tokens, size_t n)
{
    for (size_t at = 0; at < n; at += BATCH)
        read_batch(r, tokens + at, n - at < BATCH ? n - at : BATCH);
    multiply(r, &r->m->output, r->h, 1, r->logits);
}

/* ---- sampling -------------------------------------------------------------------------------------------------- */

enum { CANDIDATES_MAX = 256 };

struct sampling {
    float temperature, top_p;
    size_t top_k;
    uint64_t seed;
};

struct candidate {
    uint32_t token;
    float logit;
};

/* The @k best at @dst, best first; of equals the lower number first. */
static void best_candidates(const float *logits, size_t n, struct candidate *dst, size_t k)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_kept == k && !(logits[i] > dst[k - 1].logit))
            continue;
        size_t at = n_kept < k ? n_kept++ : k - 1;
        for (; at > 0 && dst[at - 1].logit < logits[i]; at--)
            dst[at] = dst[at - 1];
        dst[at] = (struct candidate){(uint32_t)i, logits[i]};
    }
}

/* Uniform in [0, 1): splitmix64, https://prng.di.unimi.it/splitmix64.c */
static float random_number(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (float)((z ^ (z >> 31)) >> 40) / 16777216;
}

/* How many of the best take @top_p of the probability. */
static size_t nucleus(const struct candidate *best, size_t n, float top_p)
{
    float p[CANDIDATES_MAX], sum = 0;
    for (size_t i = 0; i < n; i++)
        p[i] = best[i].logit;
    softmax(p, n);
    for (size_t i = 0; i < n; i++)
        if ((sum += p[i]) >= top_p)
            return i + 1;
    return n;
}

static uint32_t sample(struct sampling *s, const float *logits, size_t n_vocab)
{
    struct candidate best[CANDIDATES_MAX];
    float p[CANDIDATES_MAX], at = random_number(&s->seed);
    size_t n = s->temperature > 0 ? s->top_k : 1, i = 0;
    n = n < n_vocab ? n : n_vocab;
    best_candidates(logits, n_vocab, best, n);
    n = nucleus(best, n, s->top_p);
    for (size_t k = 0; k < n; k++)
        p[k] = best[k].logit / (s->temperature > 0 ? s->temperature : 1);
    softmax(p, n);
    while (i + 1 < n && (at -= p[i]) >= 0)
        i++;
    return best[i].token;
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

enum option { MODEL, SCHEME, LAYOUT, PROMPT, TOKENS, THREADS, TEMP, TOP_K, TOP_P, SEED, IGNORE_EOS, TRACE, N_OPTIONS };

static const struct {
    const char *name, *otherwise, *help;
} options[N_OPTIONS] = {
    [MODEL] = {"--model", NULL, "a name that the daemon knows, or the path of a file"},
    [SCHEME] = {"--scheme", "auto", "what its weights are quantized to"},
    [LAYOUT] = {"--layout", "native", "how they are ordered: native, portable, or a layout's name"},
    [PROMPT] = {"--prompt", "", "what to go on from"},
    [TOKENS] = {"--tokens", "128", "how far"},
    [THREADS] = {"--threads", "1", "how many compute"},
    [TEMP] = {"--temp", "0.8", "temperature; 0: always the likeliest token"},
    [TOP_K] = {"--top-k", "40", "of so many of the likeliest"},
    [TOP_P] = {"--top-p", "0.95", "of so many as have this share of the probability"},
    [SEED] = {"--seed", "1", "the same seed, the same text"},
    [IGNORE_EOS] = {"--ignore-eos", "0", "1: goes on where the model would end"},
    [TRACE] = {"--trace", NULL, "a file, for a line a step: the likeliest token, its logit, the next one, its logit"},
};

static void show_usage(void)
{
    fprintf(stderr, "usage: chat --model NAME [OPTION VALUE]...\n");
    for (int i = 0; i < N_OPTIONS; i++)
        fprintf(stderr, "  %-12s %s%s%s%s\n", options[i].name, options[i].help, options[i].otherwise ? " (" : "",
                options[i].otherwise ? options[i].otherwise : "", options[i].otherwise ? ")" : "");
    exit(64);
}

/* Values by option; those that are not given have their defaults. */
static void parse(char **argv, const char *values[N_OPTIONS])
{
    for (int i = 0; i < N_OPTIONS; i++)
        values[i] = options[i].otherwise;
    for (argv++; *argv; argv += 2) {
        int i = 0;
        while (i < N_OPTIONS && strcmp(*argv, options[i].name) != 0)
            i++;
        if (i == N_OPTIONS || !argv[1])
            show_usage();
        values[i] = argv[1];
    }
    if (!values[MODEL])
        show_usage();
}

/* A path is opened here: the daemon need not watch its folder, nor have a right to it. */
static struct qd_artifact *open_model(const char *values[N_OPTIONS])
{
    struct qd_client *client;
    struct qd_artifact *artifact;
    struct qd_open_options o = {.model = values[MODEL], .scheme = values[SCHEME], .layout = values[LAYOUT]};
    if (strchr(o.model, '/')) {
        o.use_source_fd = true;
        o.source_fd = open(o.model, O_RDONLY | O_CLOEXEC);
        if (o.source_fd < 0)
            die("cannot open '%s'", o.model);
        o.model = NULL;
    }
    must(qd_connect(NULL, &client, &error));
    must(qd_open(client, &o, &artifact, &error));
    qd_client_free(client); /* the artifact lives on */
    return artifact;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void trace(FILE *f, const struct run *r)
{
    struct candidate best[2];
    best_candidates(r->logits, r->m->n_vocab, best, 2);
    fprintf(f, "%u %.9g %u %.9g\n", best[0].token, (double)best[0].logit, best[1].token, (double)best[1].logit);
}

/* Prints as it goes; how many tokens it made. */
static size_t generate(struct run *r, const struct vocabulary *v, struct sampling *s, const char *values[N_OPTIONS])
{
    FILE *traced = values[TRACE] ? fopen(values[TRACE], "w") : NULL;
    size_t n = 0, n_wanted = strtoul(values[TOKENS], NULL, 10);
    bool goes_on = n < n_wanted;
    if (values[TRACE] && !traced)
        die("cannot write '%s'", values[TRACE]);
    while (goes_on) {
        uint32_t token = sample(s, r->logits, r->m->n_vocab);
        if (traced)
            trace(traced, r);
        print_token(v, token);
        fflush(stdout);
        goes_on = ++n < n_wanted && r->n_past < r->n_max && (token != v->eos || values[IGNORE_EOS][0] == '1');
        if (goes_on)
            read_tokens(r, &token, 1);
    }
    if (traced)
        fclose(traced);
    return n;
}

int main(int argc, char **argv)
{
    const char *values[N_OPTIONS];
    static struct model m;
    static struct vocabulary v;
    static struct run r;
    (void)argc;
    parse(argv, values);
    struct sampling s = {strtof(values[TEMP], NULL), strtof(values[TOP_P], NULL), strtoul(values[TOP_K], NULL, 10),
                         strtoull(values[SEED], NULL, 10)};
    if (s.top_k < 1 || s.top_k > CANDIDATES_MAX)
        die("--top-k is 1 to %d", CANDIDATES_MAX);
    m.artifact = open_model(values);
    read_model(&m);
    read_vocabulary(&v, m.artifact);

    uint32_t *tokens = allocate(3 * strlen(values[PROMPT]) + 4, sizeof *tokens);
    size_t n = tokenize(&v, values[PROMPT], tokens);
    if (n == 0 || n > m.n_context)
        die("the prompt has %zu tokens: 1 to %zu are possible", n, m.n_context);
    size_t n_wanted = n + strtoul(values[TOKENS], NULL, 10);
    prepare(&r, &m, (unsigned)strtoul(values[THREADS], NULL, 10), n_wanted < m.n_context ? n_wanted : m.n_context);
    printf("%s", values[PROMPT]);
    double start = seconds();
    read_tokens(&r, tokens, n);
    double middle = seconds();
    size_t n_made = generate(&r, &v, &s, values);
    double end = seconds();
    printf("\n");
    fprintf(stderr, "prompt: %zu tokens, %.1f per second; made: %zu tokens, %.1f per second\n", n,
            (double)n / (middle - start), n_made, (double)n_made / (end - middle));
    free(tokens);
    qd_team_free(r.team);
    qd_artifact_free(m.artifact);
    return EXIT_SUCCESS; /* what else was allocated ends with the program */
}
