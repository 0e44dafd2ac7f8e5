/* The form of statistics in a file: docs/formats/statistics.md. */
#include <float.h>
#include <string.h>

#include "artifact/pack.h"
#include "statistics/statistics.h"

enum { STATISTICS_FORMAT = 1, HEAD_FIELDS = 4, EDGE_FIELDS = 4, OBSERVER_FIELDS = 7, HISTOGRAM_FIELDS = 4 };

/* ---- writing ------------------------------------------------------------------------------ */

static struct bytes sum_bytes(const struct exact_sum *s)
{
    return (struct bytes){(const uint8_t *)s->words, sizeof s->words};
}

/* Bins from the first that is not empty to the last. */
static void pack_histogram(const struct histogram *h, struct buffer *dst)
{
    uint32_t first = 0, end = HISTOGRAM_BINS;
    while (first < end && h->bins[first] == 0)
        first++;
    while (end > first && h->bins[end - 1] == 0)
        end--;
    pack_array(dst, HISTOGRAM_FIELDS);
    pack_u64(dst, (uint64_t)(h->exponent - HISTOGRAM_EXPONENT_MIN));
    pack_u64(dst, h->n_zeros);
    pack_u64(dst, first);
    pack_array(dst, end - first);
    for (uint32_t i = first; i < end; i++)
        pack_u64(dst, h->bins[i]);
}

static void pack_observer(const struct observer *o, struct buffer *dst)
{
    pack_array(dst, OBSERVER_FIELDS);
    pack_u64(dst, o->n);
    pack_u64(dst, o->n_samples);
    pack_f64(dst, (double)o->low);
    pack_f64(dst, (double)o->high);
    pack_bin(dst, sum_bytes(&o->lows));
    pack_bin(dst, sum_bytes(&o->highs));
    if (o->histogram)
        pack_histogram(o->histogram, dst);
    else
        pack_array(dst, 0);
}

static void pack_edge(const struct edge_statistics *e, struct buffer *dst)
{
    pack_array(dst, EDGE_FIELDS);
    pack_text(dst, e->name);
    pack_observer(e->all, dst);
    pack_u64(dst, e->axis);
    pack_array(dst, e->n_channels);
    for (uint32_t i = 0; i < e->n_channels; i++)
        pack_observer(e->channels[i], dst);
}

int statistics_encode(const struct statistics *s, struct buffer *dst, struct qd_error *err)
{
    const size_t start = dst->n;
    pack_map(dst, HEAD_FIELDS);
    pack_text(dst, "statistics");
    pack_u64(dst, STATISTICS_FORMAT);
    pack_text(dst, "model");
    pack_bin(dst, (struct bytes){s->model.bytes, DIGEST_BYTES});
    pack_text(dst, "data");
    pack_array(dst, (uint32_t)s->n_sets);
    for (size_t i = 0; i < s->n_sets; i++)
        pack_bin(dst, (struct bytes){s->sets[i].bytes, DIGEST_BYTES});
    pack_text(dst, "edges");
    pack_array(dst, (uint32_t)s->n_edges);
    for (size_t i = 0; i < s->n_edges; i++)
        pack_edge(&s->edges[i], dst);
    if (dst->failed)
        return err_new(err, QD_E_NO_MEMORY, "statistics of %zu edges", s->n_edges);
    if (dst->n - start > STATISTICS_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "the statistics have %zu bytes, at most %d", dst->n - start,
                       STATISTICS_BYTES_MAX);
    return 0;
}

int statistics_digest(const struct statistics *s, struct digest *ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    int r = statistics_encode(s, &b, err);
    return r < 0 ? r : digest_message("statistics", buffer_span(&b), ret, err);
}

/* ---- reading ------------------------------------------------------------------------------ */

struct reader {
    struct cursor c;
    uint64_t budget; /* bytes left */
    const char *edge;
    struct qd_error *err;
};

static int malformed(struct reader *r, const char *what)
{
    return r->edge ? err_new(r->err, QD_E_CORRUPT, "statistics, tensor '%.200s': %s", r->edge, what)
                   : err_new(r->err, QD_E_CORRUPT, "statistics: %s", what);
}

static int spend(struct reader *r, uint64_t bytes)
{
    if (bytes > r->budget)
        return err_new(r->err, QD_E_LIMIT, "the statistics need more memory than this job may use for them");
    r->budget -= bytes;
    return 0;
}

/* A float; anything that is none fails the cursor. */
static float unpack_float(struct cursor *c)
{
    const double v = unpack_f64(c);
    const float f = v >= -(double)FLT_MAX && v <= (double)FLT_MAX ? (float)v : 0;
    const double back = (double)f;
    if (memcmp(&back, &v, sizeof v) != 0 || (f == 0 && memcmp(&f, &(float){0}, sizeof f) != 0))
        c->failed = true;
    return f;
}

static int read_histogram(struct reader *r, const struct observer *o, struct histogram *h)
{
    const uint64_t exponent = unpack_u64(&r->c), n_zeros = unpack_u64(&r->c), first = unpack_u64(&r->c);
    const uint32_t n = unpack_array(&r->c);
    uint64_t sum = n_zeros;
    if (r->c.failed || exponent > HISTOGRAM_EXPONENT_MAX - HISTOGRAM_EXPONENT_MIN || first > HISTOGRAM_BINS ||
        n > HISTOGRAM_BINS - first || (n == 0 && first != HISTOGRAM_BINS))
        return malformed(r, "its histogram is malformed");
    h->exponent = (int32_t)exponent + HISTOGRAM_EXPONENT_MIN;
    h->n_zeros = n_zeros;
    for (uint32_t i = 0; i < n; i++) {
        h->bins[first + i] = unpack_u64(&r->c);
        if (__builtin_add_overflow(sum, h->bins[first + i], &sum))
            return malformed(r, "the counts of its histogram overflow");
    }
    if (r->c.failed || (n && (h->bins[first] == 0 || h->bins[first + n - 1] == 0)))
        return malformed(r, "its histogram is malformed");
    if (sum != o->n)
        return malformed(r, "its histogram counts more or fewer values than there are");
    if (h->exponent != histogram_exponent(o->low, o->high))
        return malformed(r, "the bins of its histogram have another width than its extremes ask for");
    return 0;
}

static int read_observer(struct reader *r, struct observer **ret)
{
    struct observer head = {.histogram = NULL};
    if (unpack_array(&r->c) != OBSERVER_FIELDS)
        r->c.failed = true;
    head.n = unpack_u64(&r->c);
    head.n_samples = unpack_u64(&r->c);
    head.low = unpack_float(&r->c);
    head.high = unpack_float(&r->c);
    unpack_raw(&r->c, head.lows.words, sizeof head.lows.words);
    unpack_raw(&r->c, head.highs.words, sizeof head.highs.words);
    const uint32_t n_fields = unpack_array(&r->c);
    if (r->c.failed || (n_fields && n_fields != HISTOGRAM_FIELDS))
        return malformed(r, "what was observed is malformed");
    if (head.low > head.high || head.n < head.n_samples || (head.n == 0) != (head.n_samples == 0) ||
        (head.n == 0 && (head.low != 0 || head.high != 0)))
        return malformed(r, "its extremes or counts contradict each other");

    CLEANUP(observer_free) struct observer *o = NULL;
    int result = spend(r, sizeof *o + (n_fields ? sizeof *o->histogram : 0));
    if (result == 0)
        result = observer_new(n_fields != 0, &o, r->err);
    if (result < 0)
        return result;
    head.histogram = o->histogram;
    *o = head;
    result = n_fields ? read_histogram(r, o, o->histogram) : 0;
    if (result == 0)
        *ret = steal(&o);
    return result;
}

/* The next name, which has to come behind the one before. */
static int read_name(struct reader *r, const struct statistics *s, char **ret)
{
    const struct bytes text = unpack_str(&r->c);
    r->edge = NULL;
    if (r->c.failed || text.n == 0 || text.n > STATISTICS_NAME_MAX || memchr(text.data, 0, text.n))
        return malformed(r, "a tensor's name is malformed");
    char *name = calloc(text.n + 1, 1);
    if (!name)
        return err_new(r->err, QD_E_NO_MEMORY, "statistics");
    memcpy(name, text.data, text.n);
    r->edge = *ret = name;
    if (s->n_edges > 1 && strcmp(s->edges[s->n_edges - 2].name, name) >= 0)
        return malformed(r, "it is out of order, or there twice");
    return 0;
}

/* The edge is counted before it is read, so that what is half read is freed with the rest. */
static int read_edge(struct reader *r, struct statistics *s)
{
    if (unpack_array(&r->c) != EDGE_FIELDS)
        r->c.failed = true;
    struct edge_statistics *e = &s->edges[s->n_edges++];
    int result = read_name(r, s, &e->name);
    if (result == 0)
        result = read_observer(r, &e->all);
    if (result < 0)
        return result;
    const uint64_t axis = unpack_u64(&r->c);
    const uint32_t n_channels = unpack_array(&r->c);
    if (r->c.failed || axis > UINT32_MAX || n_channels > STATISTICS_CHANNELS_MAX || (n_channels == 0 && axis))
        return malformed(r, "its channels are malformed");
    result = spend(r, n_channels * sizeof(struct observer *));
    if (result < 0)
        return result;
    e->channels = n_channels ? calloc(n_channels, sizeof(struct observer *)) : NULL;
    if (n_channels && !e->channels)
        return err_new(r->err, QD_E_NO_MEMORY, "statistics");
    e->axis = (uint32_t)axis;
    e->n_channels = n_channels;
    for (uint32_t i = 0; i < n_channels && result == 0; i++)
        result = read_observer(r, &e->channels[i]);
    return result;
}

static int read_head(struct reader *r, struct digest *ret_model)
{
    if (unpack_map(&r->c) != HEAD_FIELDS)
        r->c.failed = true;
    unpack_key(&r->c, "statistics");
    const uint64_t format = unpack_u64(&r->c);
    if (r->c.failed)
        return malformed(r, "this is no file of statistics");
    if (format != STATISTICS_FORMAT)
        return err_new(r->err, QD_E_UNSUPPORTED, "statistics of format %llu, this version knows %d",
                       (unsigned long long)format, STATISTICS_FORMAT);
    unpack_key(&r->c, "model");
    unpack_raw(&r->c, ret_model->bytes, DIGEST_BYTES);
    return r->c.failed ? malformed(r, "the model's digest is malformed") : 0;
}

static int read_sets(struct reader *r, struct statistics *s)
{
    unpack_key(&r->c, "data");
    const uint32_t n = unpack_array(&r->c);
    struct digest set, before = {{0}};
    int result = 0;
    for (uint32_t i = 0; i < n && result == 0; i++) {
        unpack_raw(&r->c, set.bytes, DIGEST_BYTES);
        if (r->c.failed || (i && memcmp(before.bytes, set.bytes, DIGEST_BYTES) >= 0))
            return malformed(r, "the digests of its data are malformed");
        before = set;
        result = statistics_add_set(s, &set, r->err);
    }
    return result < 0 || !r->c.failed ? result : malformed(r, "the digests of its data are malformed");
}

static uint64_t room_for(uint32_t n_edges)
{
    uint64_t room = 1;
    while (room < n_edges)
        room *= 2;
    return room;
}

static int read_edges(struct reader *r, struct statistics *s)
{
    unpack_key(&r->c, "edges");
    const uint32_t n = unpack_array(&r->c);
    if (r->c.failed || n > STATISTICS_EDGES_MAX)
        return malformed(r, "the list of its tensors is malformed");
    int result = spend(r, room_for(n) * sizeof *s->edges);
    if (result < 0)
        return result;
    s->edges = calloc(room_for(n), sizeof *s->edges); /* as edge_insert would have it */
    if (!s->edges)
        return err_new(r->err, QD_E_NO_MEMORY, "statistics");
    for (uint32_t i = 0; i < n && result == 0; i++)
        result = read_edge(r, s);
    r->edge = NULL;
    return result < 0 || cursor_left(&r->c) == 0 ? result : malformed(r, "bytes follow its end");
}

int statistics_decode(struct bytes file, uint64_t budget_bytes, struct statistics **ret, struct qd_error *err)
{
    struct reader r = {.c = cursor_over(file), .budget = budget_bytes, .err = err};
    struct digest model;
    if (file.n > STATISTICS_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "the statistics have %zu bytes, at most %d", file.n, STATISTICS_BYTES_MAX);
    int result = read_head(&r, &model);
    if (result < 0)
        return result;
    CLEANUP(statistics_free) struct statistics *s = statistics_new(&model);
    if (!s)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    result = read_sets(&r, s);
    if (result == 0)
        result = read_edges(&r, s);
    if (result == 0)
        *ret = steal(&s);
    return result;
}
