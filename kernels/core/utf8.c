#include "kernels/core/utf8.h"

#include <stdbool.h>

static bool is_tail(uint8_t b)
{
    return (b & 0xc0) == 0x80;
}

size_t utf8_sequence(const uint8_t *at, size_t n_bytes)
{
    uint8_t a = at[0];
    if (a < 0x80)
        return 1;
    if (n_bytes < 2 || a < 0xc2 || !is_tail(at[1]))
        return 0;
    if (a < 0xe0)
        return 2;
    if (n_bytes < 3 || !is_tail(at[2]))
        return 0;
    if (a < 0xf0) {
        bool overlong = a == 0xe0 && at[1] < 0xa0;
        bool surrogate = a == 0xed && at[1] >= 0xa0;
        return overlong || surrogate ? 0 : 3;
    }
    if (n_bytes < 4 || a > 0xf4 || !is_tail(at[3]))
        return 0;
    bool overlong = a == 0xf0 && at[1] < 0x90;
    bool beyond = a == 0xf4 && at[1] >= 0x90;
    return overlong || beyond ? 0 : 4;
}
