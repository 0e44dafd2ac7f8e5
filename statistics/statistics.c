#include "statistics/statistics.h"

#include <string.h>

#include "kernels/core/checked.h"

struct statistics *statistics_new(const struct digest *model)
{
    struct statistics *s = calloc(1, sizeof *s);
    if (s)
        s->model = *model;
    return s;
}

static void edge_clear(struct edge_statistics *e)
{
    free(e->name);
    (void)observer_free(e->all);
    for (uint32_t i = 0; e->channels && i < e->n_channels; i++)
        (void)observer_free(e->channels[i]);
    free(e->channels);
    *e = (struct edge_statistics){.name = NULL};
}

static void edge_clear_cleanup(struct edge_statistics *e)
{
    edge_clear(e);
}

struct statistics *statistics_free(struct statistics *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n_edges; i++)
        edge_clear(&s->edges[i]);
    free(s->edges);
    free(s->sets);
    free(s);
    return NULL;
}

/* ---- sets of data ------------------------------------------------------------------------- */

/* Where @set stands, or would. */
static size_t set_place(const struct statistics *s, const struct digest *set)
{
    size_t i = 0;
    while (i < s->n_sets && memcmp(s->sets[i].bytes, set->bytes, DIGEST_BYTES) < 0)
        i++;
    return i;
}

static bool has_set(const struct statistics *s, const struct digest *set)
{
    const size_t i = set_place(s, set);
    return i < s->n_sets && digest_equal(&s->sets[i], set);
}

static int refuse_twice(const struct digest *set, struct qd_error *err)
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(set, hex);
    return err_new(err, QD_E_INVALID, "calibration data %.16s is in the statistics already: it would count twice", hex);
}

int statistics_add_set(struct statistics *s, const struct digest *set, struct qd_error *err)
{
    if (has_set(s, set))
        return refuse_twice(set, err);
    if (s->n_sets == STATISTICS_SETS_MAX)
        return err_new(err, QD_E_LIMIT, "statistics of more than %d sets of calibration data", STATISTICS_SETS_MAX);
    struct digest *more = realloc(s->sets, (s->n_sets + 1) * sizeof *more);
    if (!more)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    s->sets = more;
    const size_t at = set_place(s, set);
    memmove(more + at + 1, more + at, (s->n_sets - at) * sizeof *more);
    more[at] = *set;
    s->n_sets++;
    return 0;
}

/* ---- edges -------------------------------------------------------------------------------- */

/* Where @name stands, or would. */
static size_t edge_place(const struct statistics *s, const char *name)
{
    size_t low = 0, high = s->n_edges;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (strcmp(s->edges[mid].name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct edge_statistics *statistics_find(const struct statistics *s, const char *name)
{
    const size_t i = edge_place(s, name);
    return i < s->n_edges && strcmp(s->edges[i].name, name) == 0 ? &s->edges[i] : NULL;
}

static int edge_fill(struct edge_statistics *e, const char *name, bool with_histogram, uint32_t axis,
                     uint32_t n_channels, struct qd_error *err)
{
    e->name = strdup(name);
    e->channels = n_channels ? calloc(n_channels, sizeof(struct observer *)) : NULL;
    e->axis = axis;
    e->n_channels = n_channels;
    if (!e->name || (n_channels && !e->channels))
        return err_new(err, QD_E_NO_MEMORY, "statistics of '%.200s'", name);
    int r = observer_new(with_histogram, &e->all, err);
    for (uint32_t i = 0; i < n_channels && r == 0; i++)
        r = observer_new(false, &e->channels[i], err);
    return r;
}

static int edge_insert(struct statistics *s, struct edge_statistics *e, struct qd_error *err)
{
    if (s->n_edges == STATISTICS_EDGES_MAX)
        return err_new(err, QD_E_LIMIT, "statistics of more than %d edges", STATISTICS_EDGES_MAX);
    if (s->n_edges == 0 || is_power_of_two(s->n_edges)) {
        struct edge_statistics *more = realloc(s->edges, (s->n_edges ? 2 * s->n_edges : 1) * sizeof *more);
        if (!more)
            return err_new(err, QD_E_NO_MEMORY, "statistics of %zu edges", s->n_edges);
        s->edges = more;
    }
    const size_t at = edge_place(s, e->name);
    memmove(s->edges + at + 1, s->edges + at, (s->n_edges - at) * sizeof *s->edges);
    s->edges[at] = *e;
    s->n_edges++;
    *e = (struct edge_statistics){.name = NULL};
    return 0;
}

int statistics_edge(struct statistics *s, const char *name, bool with_histogram, uint32_t axis, uint32_t n_channels,
                    struct edge_statistics **ret, struct qd_error *err)
{
    struct edge_statistics *there = statistics_find(s, name);
    if (there && (there->n_channels != n_channels || (n_channels && there->axis != axis)))
        return err_new(err, QD_E_INVALID, "tensor '%.200s' has %u channels on axis %u here, and %u on axis %u before",
                       name, n_channels, axis, there->n_channels, there->axis);
    if (!there) {
        __attribute__((cleanup(edge_clear_cleanup))) struct edge_statistics e = {.name = NULL};
        int r = edge_fill(&e, name, with_histogram, axis, n_channels, err);
        if (r == 0)
            r = edge_insert(s, &e, err);
        if (r < 0)
            return r;
        there = statistics_find(s, name);
    }
    *ret = there;
    return 0;
}

/* ---- merging ------------------------------------------------------------------------------ */

static int check_mergeable(const struct statistics *s, const struct statistics *other, struct qd_error *err)
{
    if (!digest_equal(&s->model, &other->model))
        return err_new(err, QD_E_INVALID, "these statistics are of another model");
    for (size_t i = 0; i < other->n_sets; i++)
        if (has_set(s, &other->sets[i]))
            return refuse_twice(&other->sets[i], err);
    for (size_t i = 0; i < other->n_edges; i++) {
        const struct edge_statistics *theirs = &other->edges[i], *ours = statistics_find(s, theirs->name);
        if (ours && (ours->n_channels != theirs->n_channels || ours->axis != theirs->axis))
            return err_new(err, QD_E_INVALID, "tensor '%.200s' has %u channels in one and %u in the other",
                           theirs->name, ours->n_channels, theirs->n_channels);
    }
    return 0;
}

int statistics_merge(struct statistics *s, const struct statistics *other, struct qd_error *err)
{
    int r = check_mergeable(s, other, err);
    for (size_t i = 0; i < other->n_sets && r == 0; i++)
        r = statistics_add_set(s, &other->sets[i], err);
    for (size_t i = 0; i < other->n_edges && r == 0; i++) {
        const struct edge_statistics *theirs = &other->edges[i];
        struct edge_statistics *ours;
        r = statistics_edge(s, theirs->name, theirs->all->histogram, theirs->axis, theirs->n_channels, &ours, err);
        if (r < 0)
            return r;
        observer_merge(ours->all, theirs->all);
        for (uint32_t k = 0; k < theirs->n_channels; k++)
            observer_merge(ours->channels[k], theirs->channels[k]);
    }
    return r;
}
