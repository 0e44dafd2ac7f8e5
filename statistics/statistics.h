/*
 * The statistics of a model over calibration data: an observer for each edge that was watched, and for each of its
 * channels where those were wanted. A small artifact of its own (docs/formats/statistics.md): an application may keep
 * it, merge it, or send the ranges and histograms that it gathered itself. Whatever the order of samples and of
 * merging, the same sets of data give the same bytes.
 */
#ifndef QUANTD_STATISTICS_STATISTICS_H
#define QUANTD_STATISTICS_STATISTICS_H

#include "artifact/digest.h"
#include "statistics/observer.h"

#define STATISTICS_ROLE "statistics" /* of the file among those of a job */

enum {
    STATISTICS_BYTES_MAX = 256 << 20, /* of a file */
    STATISTICS_EDGES_MAX = 1 << 16,   /* a node makes one, mostly: models have thousands */
    STATISTICS_CHANNELS_MAX = 1 << 16,
    STATISTICS_SETS_MAX = 1024,
    STATISTICS_NAME_MAX = 4096,
};

struct edge_statistics {
    char *name; /* owned; of the value in the graph */
    struct observer *all;
    uint32_t axis; /* of the channels, where there are some */
    struct observer **channels;
    uint32_t n_channels;
};

struct statistics {
    struct digest model; /* whose edges these are */
    struct digest *sets; /* sorted: the data that was seen */
    size_t n_sets;
    struct edge_statistics *edges; /* sorted by name */
    size_t n_edges;
};

struct statistics *statistics_new(const struct digest *model); /* NULL: no memory */
struct statistics *statistics_free(struct statistics *s);
DEFINE_CLEANUP(statistics_free, struct statistics *)

/* Notes that @set was seen. A second time: QD_E_INVALID, its samples would count twice. */
int statistics_add_set(struct statistics *s, const struct digest *set, struct qd_error *err);

/* The edge of that name, NULL where it was not watched. */
struct edge_statistics *statistics_find(const struct statistics *s, const char *name);

/*
 * The edge of that name, added where it is not there yet: with a histogram or not, with @n_channels observers along
 * @axis (0: none). One that is there with another number of channels: QD_E_INVALID. Good until the next is added.
 */
int statistics_edge(struct statistics *s, const char *name, bool with_histogram, uint32_t axis, uint32_t n_channels,
                    struct edge_statistics **ret, struct qd_error *err);

/*
 * Adds what @other saw. Another model, or a set of data that both saw: QD_E_INVALID, and @s is unchanged; when memory
 * is out it is of no use.
 */
int statistics_merge(struct statistics *s, const struct statistics *other, struct qd_error *err);

/* Appends the canonical form. */
int statistics_encode(const struct statistics *s, struct buffer *dst, struct qd_error *err);

/*
 * Reads exactly that form; encoding gives the same bytes again. What it costs in memory is bounded by @budget_bytes
 * (QD_E_LIMIT). Anything else than statistics: QD_E_CORRUPT with the edge and what is wrong.
 */
int statistics_decode(struct bytes file, uint64_t budget_bytes, struct statistics **ret, struct qd_error *err);

/* Of the canonical form: what a recipe holds. */
int statistics_digest(const struct statistics *s, struct digest *ret, struct qd_error *err);

#endif
