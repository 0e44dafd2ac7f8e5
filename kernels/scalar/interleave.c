/* Packing, the definition: docs/formats/packed.md. */
#include "kernels/variants.h"

#include <string.h>

static inline void take_turns(uint8_t *dst, const uint8_t *src, size_t n_rows, const struct turns *t)
{
    for (size_t b = 0; b < t->n_blocks; b++)
        for (size_t i = 0; i < t->field_bytes; i += t->run)
            for (size_t r = 0; r < n_rows; r++, dst += t->run)
                memcpy(dst, src + r * t->row_bytes + b * t->block_bytes + i, t->run);
}

static inline void give_back(uint8_t *dst, const uint8_t *src, size_t n_rows, const struct turns *t)
{
    for (size_t b = 0; b < t->n_blocks; b++)
        for (size_t i = 0; i < t->field_bytes; i += t->run)
            for (size_t r = 0; r < n_rows; r++, src += t->run)
                memcpy(dst + r * t->row_bytes + b * t->block_bytes + i, src, t->run);
}

#define LAYOUT(name, rows)                                                                \
    void interleave_##name##__scalar(void *dst, const void *src, const struct turns *t)   \
    {                                                                                     \
        take_turns(dst, src, rows, t);                                                    \
    }                                                                                     \
    void deinterleave_##name##__scalar(void *dst, const void *src, const struct turns *t) \
    {                                                                                     \
        give_back(dst, src, rows, t);                                                     \
    }
LAYOUT(r4k4, 4)
LAYOUT(r4k8, 4)
LAYOUT(r8k4, 8)
LAYOUT(r16k4, 16)
