/*
 * A value: what flows along an edge of a graph. A tensor (elements in row-major order in memory of its own), a sequence
 * of values, or an optional that is empty. Made by one operator, then never changed; shared by reference count. Values
 * are made, taken and freed by the thread that runs the graph; threads that share an operator's rows only read and
 * write elements.
 *
 * In memory bool is a byte of 0 or 1, 4- and 2-bit integers are a byte each (sign-extended where signed), float16 and
 * bfloat16 are their 16 bits, strings are `struct bytes`, owned by the value.
 */
#ifndef QUANTD_GRAPH_VALUE_H
#define QUANTD_GRAPH_VALUE_H

#include "kernels/core/error.h"
#include "quant/format/onnx.h"

enum {
    VALUE_DIMS_MAX = 12,  /* ONNX sets no limit; the deepest of its own tests has 10 (a reshape within an einsum) */
    VALUE_ALIGNMENT = 64, /* of elements in memory */
};

enum value_kind { VALUE_TENSOR, VALUE_SEQUENCE, VALUE_NOTHING /* an optional that is empty */ };

struct shape {
    uint32_t n_dims; /* 0: a scalar */
    int64_t dims[VALUE_DIMS_MAX];
};

struct value {
    enum value_kind kind;
    enum onnx_type type; /* of a tensor, or of a sequence's tensors (ONNX_UNDEFINED where nobody said) */
    struct shape shape;
    uint64_t n;            /* elements of a tensor, items of a sequence */
    void *data;            /* tensor: elements; sequence: struct value *[n], a reference each */
    unsigned refs;         /* value_take, value_release */
    uint64_t bytes;        /* charged to @memory */
    struct memory *memory; /* borrowed: whose ceiling this counts against */
    struct value *owner;   /* of the elements, where another value has them (value_reshaped); a reference */
};

/* What the values of a run may cost at once. Freed blocks are kept for the next value of about that size. */
struct memory;
struct memory *memory_new(uint64_t ceiling_bytes);
struct memory *memory_free(struct memory *m);
DEFINE_CLEANUP(memory_free, struct memory *)
uint64_t memory_used(const struct memory *m);
uint64_t memory_peak(const struct memory *m);

/* Scratch of an operator, 64-byte aligned, not zeroed, charged like a value. Beyond the ceiling: QD_E_LIMIT. */
int memory_take(struct memory *m, uint64_t bytes, void **ret, struct qd_error *err);
void memory_give(struct memory *m, void *block);

/* A tensor with one reference; elements are not set (strings are empty). */
int value_new(struct memory *m, enum onnx_type type, const struct shape *shape, struct value **ret,
              struct qd_error *err);

/* The elements of @src under another shape of as many elements: shared, never copied. */
int value_reshaped(struct value *src, const struct shape *shape, struct value **ret, struct qd_error *err);

/* A sequence of @n items, none of them set: the caller gives a reference for each to data[i]. */
int value_sequence(struct memory *m, enum onnx_type type, uint64_t n, struct value **ret, struct qd_error *err);
int value_nothing(struct memory *m, enum onnx_type type, struct value **ret, struct qd_error *err);

struct value *value_take(struct value *v);    /* another reference; NULL for NULL */
struct value *value_release(struct value *v); /* NULL */
DEFINE_CLEANUP(value_release, struct value *)

/* Every reference in @list, each of which is NULL then. */
static inline void values_release(struct value **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        list[i] = value_release(list[i]);
}

/* Copies a string into element @i of a string tensor. */
int value_set_string(struct value *v, uint64_t i, struct bytes text, struct qd_error *err);

/* Elements of dimensions [first, end). */
static inline uint64_t dims_product(const struct shape *s, uint32_t first, uint32_t end)
{
    uint64_t n = 1;
    for (uint32_t d = first; d < end; d++)
        n *= (uint64_t)s->dims[d];
    return n;
}

/* Bytes of an element in memory (bool and 4-bit: 1; strings: sizeof(struct bytes)); 0 for a type that no value has. */
size_t value_element_bytes(enum onnx_type type);

/*
 * Elements of @s; QD_E_INVALID for a negative dimension. QD_E_LIMIT where the product of the dimensions that are not 0
 * passes 2^58: so no product of a value's dimensions overflows, whether it has elements or none.
 */
int shape_count(const struct shape *s, uint64_t *ret, struct qd_error *err);
bool shape_equal(const struct shape *a, const struct shape *b);

/* "[1,3,48,320]" into @dst; for messages. Returns @dst. */
enum { SHAPE_TEXT_BYTES = 22 * VALUE_DIMS_MAX + 3 };
char *shape_text(const struct shape *s, char dst[SHAPE_TEXT_BYTES]);

#endif
