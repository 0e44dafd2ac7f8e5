/*
 * The executor: an ONNX graph that is ready to run, and its runs. graph_prepare() resolves names to slots, orders the
 * nodes, expands functions, checks that every operator is known (all that are not stand in one error), and finds where
 * each value is used last; graph_run() then computes outputs from inputs. Shapes are those of the values of the run:
 * nothing is inferred before.
 *
 * A graph is immutable but for its constants, which are loaded at first use and stay. One run of a graph at a time.
 */
#ifndef QUANTD_GRAPH_GRAPH_H
#define QUANTD_GRAPH_GRAPH_H

#include "quant/graph/op.h"

struct graph;

/* @m and @s outlive the graph. Constants and values count against @memory. */
int graph_prepare(const struct onnx_model *m, struct source *s, struct memory *memory, struct graph **ret,
                  struct qd_error *err);
struct graph *graph_free(struct graph *g);
DEFINE_CLEANUP(graph_free, struct graph *)

/*
 * Called for every value that a node made, and for every input (@node is NULL), right after it is there. Non-zero
 * ends the run.
 */
typedef int graph_observe_fn(void *data, const char *name, const struct value *v, const struct onnx_node *node,
                             struct qd_error *err);

struct graph_run_options {
    const struct ops *kernels;
    struct qd_team *team;
    graph_observe_fn *observe; /* may be NULL; also called for the values of subgraphs */
    void *observe_data;
    const _Atomic int *cancel; /* non-zero: QD_E_CANCELLED soon; may be NULL */
};

/*
 * @inputs: one for each graph_input(). An input that an initializer gives a default is none: it is a constant.
 * @outputs: [graph_n_outputs], a reference each for the caller.
 * An input of another type or rank than the graph says: QD_E_INVALID by name.
 */
int graph_run(struct graph *g, const struct graph_run_options *o, struct value *const *inputs, struct value **outputs,
              struct qd_error *err);

size_t graph_n_inputs(const struct graph *g);
const struct onnx_value_info *graph_input(const struct graph *g, size_t i);
size_t graph_n_outputs(const struct graph *g);
const char *graph_output_name(const struct graph *g, size_t i);

/* A tensor of a model, or of a file of its own, as a value. More dimensions than VALUE_DIMS_MAX: QD_E_UNSUPPORTED. */
int value_from_tensor(struct memory *m, struct source *s, const struct onnx_tensor *t, struct value **ret,
                      struct qd_error *err);

#endif
