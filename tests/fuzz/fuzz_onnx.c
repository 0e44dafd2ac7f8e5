/* Input: an ONNX model. One that is read is written again and made ready to run, or refused. */
#include <string.h>

#include "quant/format/onnx_write.h"
#include "quant/graph/graph.h"
#include "tests/data/bad/bad_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_same_bytes(const struct onnx_model *m, struct source *s, struct bytes file)
{
    CLEANUP(onnx_output_free) struct onnx_output *out = NULL;
    const struct onnx_edits none = {.n_drops = 0};
    struct qd_error err;
    if (onnx_write_plan(m, s, &none, "x.data", UINT64_MAX, &out, &err) == 0)
        must(out->model.n <= file.n + 16); /* lengths that were written long are written short */
}

static void check_graph(const struct onnx_model *m, struct source *s)
{
    CLEANUP(memory_free) struct memory *memory = memory_new(1 << 20);
    CLEANUP(graph_free) struct graph *g = NULL;
    struct qd_error err;
    must(memory != NULL);
    const int r = graph_prepare(m, s, memory, &g, &err);
    must(r == 0 || (err.code == r && err.message[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(source_free) struct source *s = source_of_bytes((struct bytes){data, n_bytes}, "x.onnx");
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    struct qd_error err = {0};
    if (!s)
        return 0;
    const int r = onnx_read(s, FUZZ_BUDGET_BYTES, &m, &err);
    must(r == 0 || (err.code == r && err.message[0] && r != QD_E_INTERNAL));
    if (r == 0) {
        check_same_bytes(m, s, (struct bytes){data, n_bytes});
        check_graph(m, s);
    }
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer good = {0};
    good_onnx(&good);
    use(buffer_span(&good), data);
}

struct forward {
    fuzz_use *use;
    void *data;
};

static void forward_one(const struct bad_file *f, void *data)
{
    const struct forward *to = data;
    to->use(f->content, to->data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    bad_onnx_files(forward_one, &(struct forward){use, data});
}
