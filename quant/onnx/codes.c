#include "quant/onnx/codes.h"

#include <math.h>

struct channels channels_of(const struct onnx_tensor *t, uint32_t axis)
{
    struct channels c = {.n = (uint64_t)t->dims[axis], .inner = 1};
    for (size_t d = axis + 1; d < t->n_dims; d++)
        c.inner *= (uint64_t)t->dims[d];
    return c;
}

/* Largest magnitudes by channel, in one pass. */
int channels_magnitudes(struct builder *b, const struct onnx_tensor *t, struct channels c, float *most)
{
    struct weight_reader r;
    CLEANUP(free) float *slice = malloc(WEIGHT_SLICE * sizeof *slice);
    int e = slice ? weight_reader_open(&r, b->source, t, b->ops, b->err) : build_out_of_budget(b);
    if (!slice)
        return e;
    for (uint64_t at = 0; at < t->n_elements && e == 0; at += WEIGHT_SLICE) {
        const size_t n = t->n_elements - at < WEIGHT_SLICE ? (size_t)(t->n_elements - at) : WEIGHT_SLICE;
        e = weight_reader_get(&r, at, n, slice, b->err);
        for (size_t i = 0; i < n && e == 0; i++) {
            float *m = &most[(at + i) / c.inner % c.n];
            const float x = fabsf(slice[i]);
            *m = x > *m ? x : *m;
        }
    }
    weight_reader_close(&r);
    return e;
}

double codes_round(double x)
{
    return (x + 0x1.8p52) - 0x1.8p52; /* |x| is below 2^51 */
}

int codes_open(struct codes *k, uint64_t offset, struct qd_error *err)
{
    if (offset != 0 || k->open)
        return 0;
    k->open = true;
    k->decision->deviation = (struct deviation){.signal = 0.0};
    k->slice = malloc(WEIGHT_SLICE * sizeof *k->slice);
    if (!k->slice)
        return err_new(err, QD_E_NO_MEMORY, "a slice of weights");
    return weight_reader_open(&k->reader, k->source, k->tensor, k->ops, err);
}

void codes_close(struct codes *k, uint64_t elements_done)
{
    if (elements_done < k->tensor->n_elements)
        return;
    weight_reader_close(&k->reader);
    free(k->slice);
    k->slice = NULL;
    k->open = false;
}

void codes_note(struct onnx_decision *d, float was, double is)
{
    deviation_add(&d->deviation, (double)was, is);
}

struct codes *codes_new(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    struct codes *k = build_take(b, 1, sizeof *k);
    if (k) {
        k->source = b->source;
        k->tensor = w->tensor;
        k->ops = b->ops;
        k->decision = d;
    }
    return k;
}
