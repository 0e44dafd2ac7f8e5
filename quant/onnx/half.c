/* Weights as 16-bit floats. */
#include "quant/onnx/codes.h"

static const float f16_max = 65504.0f;

static int make_half(void *data, uint64_t offset, size_t n_bytes, void *dst, struct qd_error *err)
{
    struct codes *k = data;
    CLEANUP(free) float *back = malloc(WEIGHT_SLICE * sizeof *back);
    int r = back ? codes_open(k, offset, err) : err_new(err, QD_E_NO_MEMORY, "a slice of weights");
    const uint64_t first = offset / 2;
    for (size_t done = 0; done < n_bytes / 2 && r == 0;) {
        const size_t left = n_bytes / 2 - done, n = left < WEIGHT_SLICE ? left : WEIGHT_SLICE;
        uint16_t *halves = (uint16_t *)dst + done;
        r = weight_reader_get(&k->reader, first + done, n, k->slice, err);
        if (r < 0)
            break;
        k->ops->quantize[k->half](halves, k->slice, n);
        k->ops->dequantize[k->half](back, halves, n);
        for (size_t i = 0; i < n; i++)
            codes_note(k->decision, k->slice[i], (double)back[i]);
        done += n;
    }
    codes_close(k, first + n_bytes / 2);
    return r;
}

int half_plan(struct builder *b, const struct weight *w, struct onnx_decision *d)
{
    const bool f16 = b->plan->recipe.scheme == ONNX_SCHEME_F16;
    if (onnx_type_bits(w->tensor->type) == 16) {
        d->reason = "of 16 bits already";
        return 0;
    }
    struct codes *k = codes_new(b, w, d);
    float most = 0.0f;
    int r = k ? channels_magnitudes(b, w->tensor, (struct channels){1, UINT64_MAX}, &most) : build_out_of_budget(b);
    if (r < 0)
        return r;
    if (f16 && most > f16_max) {
        d->reason = "beyond float16's range";
        return 0;
    }
    k->half = f16 ? QD_TYPE_F16 : QD_TYPE_BF16;
    b->n_made++;
    struct onnx_made *h = build_tensor(b, build_name(b, w->name, f16 ? "float16" : "bfloat16"),
                                       f16 ? ONNX_FLOAT16 : ONNX_BFLOAT16, w->tensor->n_dims, w->tensor->dims, NULL);
    struct onnx_node *n = h ? build_node(b, "Cast", "", (const char *[]){h->tensor.name}, 1, w->name, 1) : NULL;
    if (!n)
        return build_out_of_budget(b);
    h->make = make_half;
    h->make_data = k;
    build_set_int(n, "to", w->tensor->type);
    build_drop_weight(b, w);
    build_add(b, w->graph, build_place(w), n, NULL);
    build_add(b, w->graph, build_place(w), NULL, h);
    d->codes = &h->tensor;
    d->form = f16 ? "float16" : "bfloat16";
    d->bytes_after = h->tensor.bytes;
    return 0;
}
