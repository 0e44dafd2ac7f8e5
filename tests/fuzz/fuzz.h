/*
 * What a fuzz target offers beside libFuzzer's LLVMFuzzerTestOneInput: seeds. A target aborts when
 * a property does not hold; whatever the input, it returns 0.
 *
 * Two mains use it: libFuzzer's (`./dev fuzz`), and tests/fuzz/replay.c, which runs in every test
 * run: the seeds, every prefix of them, every byte of them changed, the bad-file corpus, and all
 * files of tests/data/fuzz/<target>, where what fuzzing once found is kept for ever.
 */
#ifndef QUANTD_TESTS_FUZZ_H
#define QUANTD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

typedef void fuzz_use(struct bytes input, void *data);

/* Small valid inputs: each is also cut and changed everywhere. */
void fuzz_seeds(fuzz_use *use, void *data);

/* Further inputs, taken as they are. */
void fuzz_more(fuzz_use *use, void *data);

#endif
