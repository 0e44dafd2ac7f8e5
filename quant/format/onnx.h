/*
 * An ONNX model as read: graphs, nodes, attributes and tensors, all in one arena, immutable. Payloads of tensors are
 * not in memory: a tensor says where its payload stands, onnx_tensor_load() brings it.
 *
 * The reader checks form alone (docs/formats/onnx.md): every range lies in its file, every count and depth is bounded,
 * names of a graph are unique, shapes multiply to what the payload holds. Whether operators exist is the executor's
 * question. A model that somebody changes is made of the same structs in another arena; a tensor of one has @memory.
 */
#ifndef QUANTD_QUANT_ONNX_H
#define QUANTD_QUANT_ONNX_H

#include <stdbool.h>

#include "kernels/core/arena.h"
#include "quant/source.h"

/* onnx:onnx/onnx.proto, TensorProto.DataType */
enum onnx_type {
    ONNX_UNDEFINED = 0,
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8 = 3,
    ONNX_UINT16 = 4,
    ONNX_INT16 = 5,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_STRING = 8,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_UINT32 = 12,
    ONNX_UINT64 = 13,
    ONNX_COMPLEX64 = 14,
    ONNX_COMPLEX128 = 15,
    ONNX_BFLOAT16 = 16,
    ONNX_FLOAT8E4M3FN = 17,
    ONNX_FLOAT8E4M3FNUZ = 18,
    ONNX_FLOAT8E5M2 = 19,
    ONNX_FLOAT8E5M2FNUZ = 20,
    ONNX_UINT4 = 21,
    ONNX_INT4 = 22,
    ONNX_FLOAT4E2M1 = 23,
    ONNX_FLOAT8E8M0 = 24,
    ONNX_UINT2 = 25,
    ONNX_INT2 = 26,
};

/* Where a message stands in the first file, its tag and length left out: how the writer keeps what it does not know. */
struct onnx_range {
    uint64_t offset;
    uint64_t bytes;
};

enum onnx_storage {
    ONNX_RAW,   /* little-endian elements, as they are in memory (4-bit types packed, the first in the low nibble) */
    ONNX_TYPED, /* float_data, int32_data, int64_data, double_data, uint64_data, string_data: fields in the message */
    ONNX_SPARSE /* of a SparseTensorProto: kept, never loaded */
};

struct onnx_prop {
    const char *key, *value;
};

struct onnx_tensor {
    const char *name; /* "" where it has none (an attribute) */
    enum onnx_type type;
    size_t n_dims;
    const int64_t *dims; /* [n_dims], none negative */
    uint64_t n_elements;
    enum onnx_storage storage;
    uint32_t typed_field;            /* of a typed payload: the field's number in the TensorProto; 0: none is there */
    uint64_t n_typed;                /* values of that field */
    bool external;                   /* the payload is a companion's: "external data" */
    uint32_t file;                   /* of the payload, an index into the source */
    uint64_t offset, bytes;          /* of a raw payload in that file; a typed one is found again in @range */
    struct onnx_range range;         /* of the TensorProto */
    const void *memory;              /* borrowed: raw payload of @bytes that was made, not read; NULL: in the source */
    int32_t location;                /* as the file says it: 1 is external */
    bool has_raw;                    /* as the file says it: there is a raw_data, which may be empty */
    const struct onnx_prop *entries; /* external_data as the file says it */
    size_t n_entries;
};

/* onnx:onnx/onnx.proto, AttributeProto.AttributeType */
enum onnx_attr_kind {
    ONNX_ATTR_UNDEFINED = 0,
    ONNX_ATTR_FLOAT = 1,
    ONNX_ATTR_INT = 2,
    ONNX_ATTR_STRING = 3,
    ONNX_ATTR_TENSOR = 4,
    ONNX_ATTR_GRAPH = 5,
    ONNX_ATTR_FLOATS = 6,
    ONNX_ATTR_INTS = 7,
    ONNX_ATTR_STRINGS = 8,
    ONNX_ATTR_TENSORS = 9,
    ONNX_ATTR_GRAPHS = 10,
    ONNX_ATTR_SPARSE_TENSOR = 11,
    ONNX_ATTR_SPARSE_TENSORS = 12,
    ONNX_ATTR_TYPE_PROTO = 13,
    ONNX_ATTR_TYPE_PROTOS = 14,
};

struct onnx_graph;

struct onnx_attr {
    const char *name;
    const char
        *ref; /* in a function's body: the function's attribute whose value this takes; NULL: a value of its own */
    enum onnx_attr_kind kind;
    float f;
    int64_t i;
    struct bytes s;
    const float *floats;
    size_t n_floats;
    const int64_t *ints;
    size_t n_ints;
    const struct bytes *strings;
    size_t n_strings;
    const struct onnx_tensor *tensors; /* ONNX_ATTR_TENSOR: one */
    size_t n_tensors;
    const struct onnx_graph *graphs; /* ONNX_ATTR_GRAPH: one */
    size_t n_graphs;
};

struct onnx_node {
    const char *name, *op_type;
    const char *domain;   /* "" is ai.onnx, whichever way the file says it */
    const char *overload; /* of a function; "" where it has none */
    const char *const *inputs;
    size_t n_inputs; /* "": absent */
    const char *const *outputs;
    size_t n_outputs; /* "": nobody wants it */
    const struct onnx_attr *attrs;
    size_t n_attrs;
    size_t index; /* in its graph, in file order */
    struct onnx_range range;
};

enum onnx_kind {
    ONNX_KIND_NONE,
    ONNX_KIND_TENSOR,
    ONNX_KIND_SEQUENCE,
    ONNX_KIND_MAP,
    ONNX_KIND_OPTIONAL,
    ONNX_KIND_SPARSE
};

struct onnx_dim {
    int64_t value;     /* -1: not said, or a parameter */
    const char *param; /* "" where it has none */
};

struct onnx_value_info {
    const char *name;
    enum onnx_kind kind;
    enum onnx_type type; /* of the tensor, or of the elements of a sequence or optional of tensors */
    bool has_shape;
    size_t n_dims;
    const struct onnx_dim *dims;
    struct onnx_range range;
};

struct onnx_graph {
    const char *name;
    const struct onnx_node *nodes; /* file order, which need not be an order of execution */
    size_t n_nodes;
    const size_t *order; /* [n_nodes]: every node behind those that make its inputs; file order where that is so */
    const struct onnx_tensor *initializers;
    size_t n_initializers;
    const struct onnx_value_info *inputs, *outputs, *value_infos;
    size_t n_inputs, n_outputs, n_value_infos; /* inputs may name initializers, too (IR 3) */
    struct onnx_range range;
};

struct onnx_opset {
    const char *domain; /* "" is ai.onnx */
    int64_t version;
};

struct onnx_function {
    const char *domain, *name;
    const char *overload; /* "" where it has none */
    const char *const *inputs, *const *outputs;
    size_t n_inputs, n_outputs;
    const char *const *attr_names; /* those without a default */
    size_t n_attr_names;
    const struct onnx_attr *attr_defaults;
    size_t n_attr_defaults;
    const struct onnx_node *nodes;
    size_t n_nodes;
    const size_t *order; /* as a graph's */
    const struct onnx_opset *opsets;
    size_t n_opsets;
    struct onnx_range range;
};

struct onnx_model {
    struct arena *arena; /* owned: everything below lives in it */
    int64_t ir_version;
    const char *producer;
    const struct onnx_opset *opsets;
    size_t n_opsets;
    const struct onnx_graph *graph;
    size_t n_graphs; /* 1 */
    const struct onnx_function *functions;
    size_t n_functions;
    const struct onnx_prop *props; /* metadata_props */
    size_t n_props;
    struct onnx_range range; /* all of the file */
};

/*
 * Reads the first file of @s. External data of tensors is looked for among the files of @s (source_find by the location
 * the tensor says); model_probe() names them, so that they are there. @budget_bytes bounds what the result may cost.
 * Not of the form: QD_E_CORRUPT with file, byte, what and reason; beyond a limit: QD_E_LIMIT.
 */
int onnx_read(struct source *s, size_t budget_bytes, struct onnx_model **ret, struct qd_error *err);
struct onnx_model *onnx_model_free(struct onnx_model *m);
DEFINE_CLEANUP(onnx_model_free, struct onnx_model *)

/*
 * A single TensorProto in a file of its own (input_0.pb), or at @range of it (NULL: all), the first file of @s: *ret
 * and what it points to are in @arena; onnx_tensor_load() brings its elements.
 */
int onnx_tensor_read(struct source *s, const struct onnx_range *range, struct arena *arena,
                     const struct onnx_tensor **ret, struct qd_error *err);

/* "NAME.onnx": what tells an ONNX model before it was read. */
bool onnx_is_named(const char *name);

/* Bits of an element; 0 for strings and types that this reader does not know. */
unsigned onnx_type_bits(enum onnx_type type);

/* "float32", "int64": how messages call it. Never NULL. */
const char *onnx_type_name(enum onnx_type type);

/* Bytes of the elements in memory: whole elements, 4- and 2-bit ones packed. 0 for strings. */
uint64_t onnx_tensor_bytes(const struct onnx_tensor *t);

/*
 * Brings the elements of @t to @dst [onnx_tensor_bytes(t)] as little-endian elements of its type, whatever field holds
 * them. Strings: onnx_tensor_strings. Reads in slices; one thread at a time for one source.
 */
int onnx_tensor_load(struct source *s, const struct onnx_tensor *t, void *dst, struct qd_error *err);

/* The strings of @t: *ret is an array of @t->n_elements in @arena. */
int onnx_tensor_strings(struct source *s, const struct onnx_tensor *t, struct arena *arena, const struct bytes **ret,
                        struct qd_error *err);

/* NULL where the node has none of that name. */
const struct onnx_attr *onnx_attr_find(const struct onnx_node *n, const char *name);

/* The model's own function that @n calls, or NULL. */
const struct onnx_function *onnx_function_find(const struct onnx_model *m, const struct onnx_node *n);

/* Version of @domain's operators that the model imports; 0 where it does not. */
int64_t onnx_opset_version(const struct onnx_opset *opsets, size_t n_opsets, const char *domain);

#endif
