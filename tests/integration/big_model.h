/* A GGUF of four f32 matrices of 16 MiB each: more shards than threads, so that a job can be caught in the middle. */
#ifndef QUANTD_TESTS_BIG_MODEL_H
#define QUANTD_TESTS_BIG_MODEL_H

#include <stdint.h>

enum { BIG_ROWS = 1024, BIG_COLS = 4096, BIG_TENSORS = 4, BIG_TENSOR_BYTES = BIG_ROWS * BIG_COLS * 4 };

uint32_t big_model_random(uint32_t *state);

/* The same @seed gives the same bytes. Asserts. */
void big_model_write(const char *path, uint32_t seed);

#endif
