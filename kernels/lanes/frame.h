/*
 * What every encoder over lanes does around its search: batches of blocks, the last one filled up; batches in which
 * vectors would round otherwise go to the definition.
 */
#ifndef QUANTD_KERNELS_LANES_FRAME_H
#define QUANTD_KERNELS_LANES_FRAME_H

#include "kernels/kernels.h"
#include "kernels/lanes/vec.h"
#include "kernels/layout/prefetch.h"

enum { FRAME_ROOM = 8192 /* bytes of the largest batch */ };

struct frame {
    size_t batch;                       /* blocks searched side by side */
    size_t block_elements, block_bytes; /* of the type */
    /*
     * Encodes the first @n blocks of the batch at @src, which is whole. @importance: NULL without. False: one of them
     * is for the definition.
     */
    bool (*encode)(void *dst, const char *src, const char *importance, float mean_square, size_t n);
    quantize_fn *plain;             /* the definition; NULL: the type has a kernel of its own */
    quantize_weighted_fn *weighted; /* the definition */
};

static inline void by_definition(const struct frame *f, void *dst, const char *src, const char *importance,
                                 float mean_square, size_t n)
{
    const float *x = (const float *)(const void *)src, *w = (const float *)(const void *)importance;
    if (w)
        f->weighted(dst, x, n * f->block_elements, w, mean_square);
    else
        f->plain(dst, x, n * f->block_elements);
}

static inline void in_batches(const struct frame *f, void *dst, const float *src, size_t n_elements,
                              const float *importance, float mean_square)
{
    const size_t bytes = f->block_elements * sizeof(float);
    char *out = dst, last[FRAME_ROOM], last_w[FRAME_ROOM];
    const char *x = (const char *)src, *w = (const char *)importance;
    for (size_t n = n_elements / f->block_elements, now; n > 0; n -= now) {
        now = n < f->batch ? n : f->batch;
        prefetch_stream(x, now * bytes);
        const char *batch = whole_batch(x, now, f->batch, bytes, last);
        const char *batch_w = w ? whole_batch(w, now, f->batch, bytes, last_w) : NULL;
        if (!f->encode(out, batch, batch_w, mean_square, now))
            by_definition(f, out, x, w, mean_square, now);
        out += now * f->block_bytes;
        x += now * bytes;
        w = w ? w + now * bytes : NULL;
    }
}

#endif
