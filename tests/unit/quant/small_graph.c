#include "tests/unit/quant/small_graph.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "quant/limits.h"
#include "tests/test.h"

/* y = Relu(x), z = Neg(y): float32 of any shape. onnx:onnx/onnx.proto */
const char relu_neg[RELU_NEG_BYTES + 1] = "\x08\x07"                               /* ir_version */
                                          "\x3a\x34"                               /* graph */
                                          "\x0a\x0c\x0a\x01x\x12\x01y\x22\x04Relu" /* node */
                                          "\x0a\x0b\x0a\x01y\x12\x01z\x22\x03Neg"
                                          "\x12\x01g"
                                          "\x5a\x09\x0a\x01x\x12\x04\x0a\x02\x08\x01" /* input x */
                                          "\x62\x09\x0a\x01z\x12\x04\x0a\x02\x08\x01" /* output z */
                                          "\x42\x02\x10\x0d";                         /* opset 13 */

/* b -> Cast(to=1) -> c; a, c -> Add -> z; made by the same rules */
const char add_cast[ADD_CAST_BYTES + 1] =
    "\010\007\072\125\012\027\012\001\142\022\001\143\042\004\103\141\163\164\052\011\012\002\164\157"
    "\030\001\240\001\002\012\016\012\001\141\012\001\143\022\001\172\042\003\101\144\144\022\001\147"
    "\132\021\012\001\141\022\014\012\012\010\001\022\006\012\000\012\002\010\002\132\011\012\001\142"
    "\022\004\012\002\010\007\142\011\012\001\172\022\004\012\002\010\001\102\002\020\015";

struct small_graph *small_graph_new(const char *model, size_t n_bytes)
{
    struct small_graph *s = calloc(1, sizeof *s);
    struct qd_error err = {0};
    const int fd = memfd_create("model", MFD_CLOEXEC);
    assert_int_equal(write(fd, model, n_bytes), n_bytes);
    s->memory = memory_new(1 << 20);
    int r = source_from_fd(fd, "small.onnx", &s->source, &err);
    if (r == 0)
        r = onnx_read(s->source, LIMIT_HEADER_BUDGET_BYTES, &s->model, &err);
    if (r == 0)
        r = graph_prepare(s->model, s->source, s->memory, &s->graph, &err);
    if (r == 0)
        r = qd_team_new(1, &s->team, &err);
    if (r < 0)
        fail_msg("%s", err.message);
    return s;
}

struct small_graph *small_graph_free(struct small_graph *s)
{
    (void)graph_free(s->graph);
    (void)onnx_model_free(s->model);
    (void)source_free(s->source);
    (void)memory_free(s->memory);
    qd_team_free(s->team);
    free(s);
    return NULL;
}
