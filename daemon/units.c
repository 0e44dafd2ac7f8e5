#include "daemon/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool units_parse(const char *text, const struct unit *units, uint64_t *ret)
{
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    while (*end == ' ')
        end++;
    for (const struct unit *u = units; u->name; u++) {
        uint64_t v;
        if (strcasecmp(end, u->name) != 0)
            continue;
        if (__builtin_mul_overflow((uint64_t)n, u->factor, &v))
            return false;
        *ret = v;
        return true;
    }
    return false;
}

bool units_size(const char *text, uint64_t *ret)
{
    static const struct unit sizes[] = {
        {"", 1},           {"B", 1},
        {"K", 1ull << 10}, {"KiB", 1ull << 10},
        {"M", 1ull << 20}, {"MiB", 1ull << 20},
        {"G", 1ull << 30}, {"GiB", 1ull << 30},
        {"T", 1ull << 40}, {"TiB", 1ull << 40},
        {NULL, 0},
    };
    return units_parse(text, sizes, ret);
}

bool units_count(const char *text, uint32_t *ret)
{
    static const struct unit plain[] = {{"", 1}, {NULL, 0}};
    uint64_t v;
    if (!units_parse(text, plain, &v) || v > UINT32_MAX)
        return false;
    *ret = (uint32_t)v;
    return true;
}
