#include "tests/integration/big_model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "quant/format/gguf_write.h"
#include "tests/test.h"

uint32_t big_model_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void fill(float *dst, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = (float)big_model_random(&seed) / (1 << 23) - 1;
}

void big_model_write(const char *path, uint32_t seed)
{
    static const char architecture[] = "test";
    const struct bytes text = {(const uint8_t *)architecture, 4};
    struct meta_entry entry = {"general.architecture", {META_STRING, META_STRING, 1, &text}};
    struct meta_table meta = {&entry, 1};
    struct gguf_tensor tensors[BIG_TENSORS];
    char names[BIG_TENSORS][32];
    for (size_t i = 0; i < BIG_TENSORS; i++) {
        (void)snprintf(names[i], sizeof names[i], "blk.%zu.ffn_up.weight", i);
        tensors[i] = (struct gguf_tensor){.name = names[i],
                                          .type = QD_TYPE_F32,
                                          .n_dims = 2,
                                          .shape = {BIG_COLS, BIG_ROWS, 1, 1},
                                          .offset = i * BIG_TENSOR_BYTES};
    }
    CLEANUP(buffer_clear) struct buffer header = {0};
    struct qd_error err;
    assert_int_equal(gguf_header(&meta, tensors, BIG_TENSORS, 32, &header, &err), 0);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_whole(fd, header.data, header.n, 0), 0);
    float *data = malloc(BIG_TENSOR_BYTES);
    for (size_t i = 0; i < BIG_TENSORS; i++) {
        fill(data, (size_t)BIG_ROWS * BIG_COLS, seed + (uint32_t)i);
        assert_int_equal(pwrite_whole(fd, data, BIG_TENSOR_BYTES, header.n + i * BIG_TENSOR_BYTES), 0);
    }
    free(data);
    assert_int_equal(close(fd), 0);
}
