/*
 * Einsum: sums of products by labels of dimensions (onnx:docs/Operators.md; the rules are numpy's). An element of the
 * result is the sum, in order of the labels that the result has not, of products in double, rounded once.
 */
#include <inttypes.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/graph/row.h"
#include "quant/graph/types.h"

enum {
    OPERANDS_MAX = 8,
    LETTERS = 52,
    LABELS_MAX = LETTERS + VALUE_DIMS_MAX, /* dimensions of an ellipsis come behind the letters, the last one last */
    TERM_MAX = 2 * VALUE_DIMS_MAX,
};

/* Labels of an operand or of the result, in its order. */
struct term {
    uint32_t n, labels[TERM_MAX];
    bool has_ellipsis;
};

struct walk {
    uint32_t n, labels[LABELS_MAX];
};

struct einsum {
    const struct ops *kernels;
    size_t n_in;
    const struct value *in[OPERANDS_MAX];
    struct value *out;
    bool is_there[LABELS_MAX];
    int64_t dims[LABELS_MAX];
    int64_t strides[OPERANDS_MAX][LABELS_MAX];
    struct walk result, summed;
    uint64_t n_summed; /* products of an element */
};

static int bad_equation(struct op_call *c, const char *why)
{
    const struct bytes e = call_text(c, "equation", "");
    return err_new(c->err, QD_E_INVALID, "equation '%.*s': %s", (int)(e.n < 100 ? e.n : 100),
                   e.n ? (const char *)e.data : "", why);
}

static int label_of(char letter)
{
    return letter >= 'a' && letter <= 'z' ? letter - 'a' : letter >= 'A' && letter <= 'Z' ? 26 + letter - 'A' : -1;
}

/* Reads a term up to a comma, "->" or the end; its ellipsis: @n_dims less its letters, or NULL: @n_ellipsis. */
static int read_term(struct op_call *c, struct bytes *left, const uint32_t *n_dims, uint32_t n_ellipsis,
                     struct term *ret)
{
    uint32_t n_letters = 0, at_ellipsis = 0, letters[TERM_MAX];
    *ret = (struct term){.n = 0};
    for (; left->n > 0 && *left->data != ',' && *left->data != '-'; left->data++, left->n--) {
        const int label = label_of((char)*left->data);
        if (*left->data == ' ')
            continue;
        if (*left->data == '.') {
            if (ret->has_ellipsis || left->n < 3 || left->data[1] != '.' || left->data[2] != '.')
                return bad_equation(c, "a point that is no part of one ellipsis");
            ret->has_ellipsis = true;
            at_ellipsis = n_letters;
            left->data += 2;
            left->n -= 2;
            continue;
        }
        if (label < 0 || n_letters == VALUE_DIMS_MAX)
            return bad_equation(c, label < 0 ? "labels are letters" : "too many labels");
        letters[n_letters++] = (uint32_t)label;
    }
    if (n_dims && (*n_dims < n_letters || (!ret->has_ellipsis && *n_dims != n_letters)))
        return bad_equation(c, "another number of labels than dimensions");
    const uint32_t hidden = !ret->has_ellipsis ? 0 : n_dims ? *n_dims - n_letters : n_ellipsis;
    for (uint32_t i = 0; i < at_ellipsis; i++)
        ret->labels[ret->n++] = letters[i];
    for (uint32_t i = 0; i < hidden; i++)
        ret->labels[ret->n++] = LABELS_MAX - hidden + i;
    for (uint32_t i = at_ellipsis; i < n_letters; i++)
        ret->labels[ret->n++] = letters[i];
    return ret->n <= VALUE_DIMS_MAX ? 0 : bad_equation(c, "too many dimensions");
}

/* What the labels of operand @k mean for its dimensions. */
static int take_operand(struct op_call *c, struct einsum *e, size_t k, const struct term *t)
{
    const struct shape *s = &e->in[k]->shape;
    for (uint32_t d = 0; d < t->n; d++) {
        const uint32_t label = t->labels[d];
        const int64_t n = s->dims[d];
        if (!e->is_there[label] || e->dims[label] == 1)
            e->dims[label] = n;
        else if (n != 1 && n != e->dims[label])
            return bad_equation(c, "a label has dimensions that differ");
        e->is_there[label] = true;
    }
    return 0;
}

static void set_strides(struct einsum *e, size_t k, const struct term *t)
{
    const struct shape *s = &e->in[k]->shape;
    for (uint32_t d = 0; d < t->n; d++)
        if (s->dims[d] != 1)
            e->strides[k][t->labels[d]] += (int64_t)dims_product(s, d + 1, s->n_dims);
}

/* Without "->": an ellipsis, then the labels that stand once, as the alphabet has them (capitals first). */
static void implied_result(const uint32_t counts[LETTERS], uint32_t n_ellipsis, struct term *ret)
{
    *ret = (struct term){.n = 0};
    for (uint32_t i = 0; i < n_ellipsis; i++)
        ret->labels[ret->n++] = LABELS_MAX - n_ellipsis + i;
    for (uint32_t i = 0; i < LETTERS && ret->n < TERM_MAX; i++) {
        const uint32_t label = (i + 26) % LETTERS;
        if (counts[label] == 1)
            ret->labels[ret->n++] = label;
    }
}

static int read_operands(struct op_call *c, struct einsum *e, struct bytes *left, uint32_t counts[LETTERS],
                         uint32_t *ret_ellipsis)
{
    struct term terms[OPERANDS_MAX];
    int r = 0;
    for (size_t k = 0; k < e->n_in && r == 0; k++) {
        if (k > 0 && (left->n == 0 || *left->data != ','))
            return bad_equation(c, "fewer terms than operands");
        left->data += k > 0;
        left->n -= k > 0;
        r = read_term(c, left, &e->in[k]->shape.n_dims, 0, &terms[k]);
        uint32_t n_hidden = 0;
        for (uint32_t d = 0; r == 0 && d < terms[k].n; d++)
            if (terms[k].labels[d] < LETTERS)
                counts[terms[k].labels[d]]++;
            else
                n_hidden++;
        *ret_ellipsis = n_hidden > *ret_ellipsis ? n_hidden : *ret_ellipsis;
        if (r == 0)
            r = take_operand(c, e, k, &terms[k]);
    }
    for (size_t k = 0; k < e->n_in && r == 0; k++)
        set_strides(e, k, &terms[k]);
    return r;
}

static int read_equation(struct op_call *c, struct einsum *e, struct shape *ret)
{
    struct bytes left = call_text(c, "equation", "");
    uint32_t counts[LETTERS] = {0}, n_ellipsis = 0;
    struct term t;
    bool in_result[LABELS_MAX] = {false};
    int r = read_operands(c, e, &left, counts, &n_ellipsis);
    if (r < 0)
        return r;
    if (left.n == 0) {
        implied_result(counts, n_ellipsis, &t);
    } else {
        if (left.n < 2 || left.data[0] != '-' || left.data[1] != '>')
            return bad_equation(c, "more terms than operands");
        left = (struct bytes){left.data + 2, left.n - 2};
        r = read_term(c, &left, NULL, n_ellipsis, &t);
        if (r == 0 && left.n > 0)
            r = bad_equation(c, "something follows the result");
    }
    if (r == 0 && t.n > VALUE_DIMS_MAX)
        r = bad_equation(c, "too many dimensions");
    *ret = (struct shape){.n_dims = t.n};
    for (uint32_t d = 0; d < t.n && r == 0; d++) {
        const uint32_t label = t.labels[d];
        if (!e->is_there[label] || in_result[label])
            r = bad_equation(c, "a label of the result that no operand has, or twice");
        in_result[label] = true;
        ret->dims[d] = e->dims[label];
        e->result.labels[e->result.n++] = label;
    }
    for (uint32_t label = 0; label < LABELS_MAX; label++)
        if (e->is_there[label] && !in_result[label])
            e->summed.labels[e->summed.n++] = label;
    return r;
}

/* Where element @i of @w lies in each operand. */
static void places_of(const struct einsum *e, const struct walk *w, uint64_t i, int64_t at[OPERANDS_MAX])
{
    for (uint32_t d = w->n; d-- > 0;) {
        const uint32_t label = w->labels[d];
        const int64_t index = (int64_t)(i % (uint64_t)e->dims[label]);
        i /= (uint64_t)e->dims[label];
        for (size_t k = 0; k < e->n_in; k++)
            at[k] += index * e->strides[k][label];
    }
}

/* Over the last summed label, from @at on; @step: of each operand. */
static double sum_run(const struct einsum *e, const int64_t at[OPERANDS_MAX], const int64_t step[OPERANDS_MAX],
                      uint64_t n)
{
    double sum = 0.0;
    if (e->n_in == 2 && e->out->type == ONNX_FLOAT && step[0] == 1 && step[1] == 1)
        return (double)e->kernels->dot((const float *)e->in[0]->data + at[0], (const float *)e->in[1]->data + at[1], n);
    for (uint64_t i = 0; i < n; i++) {
        double product = 1.0;
        for (size_t k = 0; k < e->n_in; k++)
            product *= float_at(e->in[k], (uint64_t)(at[k] + (int64_t)i * step[k]));
        sum += product;
    }
    return sum;
}

static void einsum_rows(void *data, uint64_t first, uint64_t end)
{
    const struct einsum *e = data;
    struct walk outer = e->summed; /* but for the last */
    int64_t step[OPERANDS_MAX] = {0};
    uint64_t n = 1;
    if (outer.n > 0) {
        const uint32_t last = outer.labels[--outer.n];
        n = (uint64_t)e->dims[last];
        for (size_t k = 0; k < e->n_in; k++)
            step[k] = e->strides[k][last];
    }
    for (uint64_t i = first; i < end; i++) {
        double sum = 0.0;
        for (uint64_t done = 0; done < e->n_summed; done += n) {
            int64_t at[OPERANDS_MAX] = {0};
            places_of(e, &e->result, i, at);
            places_of(e, &outer, done / n, at);
            sum += sum_run(e, at, step, n);
        }
        const struct row row = row_of(e->out, i, 1, 1);
        row_store(&row, 0, 1, &sum);
    }
}

int op_einsum(struct op_call *c)
{
    WIDEN(c, op_einsum);
    struct einsum e = {.kernels = c->kernels, .n_in = c->n_in, .n_summed = 1};
    struct shape shape;
    int r = 0;
    if (c->n_in < 1 || c->n_in > OPERANDS_MAX)
        return err_new(c->err, QD_E_UNSUPPORTED, "%zu operands", c->n_in);
    for (size_t k = 0; k < c->n_in && r == 0; k++) {
        r = call_floats_in(c, k, &e.in[k]);
        if (r == 0 && e.in[k]->type != e.in[0]->type)
            r = err_new(c->err, QD_E_INVALID, "operands of two types");
    }
    if (r == 0)
        r = read_equation(c, &e, &shape);
    for (uint32_t i = 0; i < e.summed.n && r == 0; i++)
        if (!checked_mul(e.n_summed, (uint64_t)e.dims[e.summed.labels[i]], &e.n_summed))
            r = err_new(c->err, QD_E_LIMIT, "sums of more than 2^64 products");
    if (r == 0)
        r = call_tensor(c, 0, e.in[0]->type, &shape, &e.out);
    if (r == 0)
        call_rows(c, e.out->n, e.n_summed * c->n_in, einsum_rows, &e);
    return r;
}
