/* Packing, the definition: docs/formats/packed.md. */
#include "kernels/variants.h"

#include "kernels/layout/turns.h"

#define LAYOUT(name, rows)                                                                \
    void interleave_##name##__scalar(void *dst, const void *src, const struct turns *t)   \
    {                                                                                     \
        take_turns(dst, src, rows, t->field_bytes, t->run, *t);                           \
    }                                                                                     \
    void deinterleave_##name##__scalar(void *dst, const void *src, const struct turns *t) \
    {                                                                                     \
        give_back(dst, src, rows, t->field_bytes, t->run, *t);                            \
    }
LAYOUT(r4k4p128, 4)
LAYOUT(r4k8p128, 4)
LAYOUT(r8k4p128, 8)
LAYOUT(r16k4p128, 16)
