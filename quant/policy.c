#include "quant/policy.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "kernels/cpu.h"
#include "kernels/layout/packed.h"

enum within { PACE, ROOM, ANY };

/* A part of memory that weights may take. */
struct share {
    uint32_t part, of; /* 0, 0: any */
};

static const struct machine {
    const char *name;
    uint64_t needs;    /* features */
    struct share pace; /* for text to keep the pace of reading */
} machines[] = {
#define MACHINE(name, needs, part, of, facts) {name, needs, {part, of}},
#include "quant/policy.def"
};

static const struct rule {
    enum scheme scheme;
    uint32_t milli_bpw;
    enum within within;
    const char *facts;
} rules[] = {
#define SCHEME(NAME, milli_bpw, loss, within, facts) {SCHEME_##NAME, milli_bpw, within, facts},
#include "quant/policy.def"
};
enum { N_RULES = sizeof rules / sizeof rules[0] };

/* --- bytes --- */

/* Where the elements are not known yet, a source is taken to hold two bytes for each. */
static uint64_t elements_of(const struct policy_facts *facts)
{
    return facts->n_elements ? facts->n_elements : facts->model_bytes / 2;
}

/* Without overflow for any count a model can have. */
static uint64_t bytes_at(uint32_t milli_bpw, uint64_t n_elements)
{
    return n_elements / 8000 * milli_bpw + n_elements % 8000 * milli_bpw / 8000;
}

/* What @scheme makes of the weights: by the table, else as if all of them had its type. */
static uint64_t weight_bytes(enum scheme scheme, const struct policy_facts *facts)
{
    const struct qd_type_info *t = qd_type_info(scheme_type(scheme));
    uint32_t milli_bpw = t->block_bytes * 8000 / t->block_elements;
    for (size_t i = 0; i < N_RULES; i++)
        if (rules[i].scheme == scheme)
            milli_bpw = rules[i].milli_bpw;
    return bytes_at(milli_bpw, elements_of(facts));
}

static const char *human(uint64_t n_bytes, char dst[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n_bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    (void)snprintf(dst, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]); /* fits: 2^64 bytes are 16777216 TiB */
    return dst;
}

/* --- scheme --- */

static const struct machine *machine_of(uint64_t features)
{
    const struct machine *m = machines;
    while ((features & m->needs) != m->needs)
        m++; /* the last needs nothing */
    return m;
}

static struct share share_of(const struct rule *rule, const struct machine *m)
{
    static const struct share room = {2, 3}, any = {0, 0};
    return rule->within == PACE ? m->pace : rule->within == ROOM ? room : any;
}

static const char *share_name(struct share share)
{
    return share.of == 3 ? "two thirds" : share.of == 4 ? "a quarter" : "an eighth";
}

static bool fits(const struct rule *rule, const struct machine *m, const struct policy_facts *facts)
{
    struct share share = share_of(rule, m);
    return share.of == 0 || weight_bytes(rule->scheme, facts) <= facts->memory_bytes / share.of * share.part;
}

/* "q8_0's 1.2 GiB would pass a quarter; q6_k's 967.0 MiB fit in a quarter of the 4.0 GiB there is" */
static void say_why(const struct rule *rule, const struct machine *m, const struct policy_facts *facts, char *ret_why)
{
    char need[32], less[32], have[32], before[96] = "", now[128];
    const struct share share = share_of(rule, m);
    if (rule > rules)
        (void)snprintf(before, sizeof before, "%s's %s would pass %s; ", scheme_name(rule[-1].scheme),
                       human(weight_bytes(rule[-1].scheme, facts), less), share_name(share_of(&rule[-1], m)));
    (void)snprintf(now, sizeof now, "%s's %s %s%s of the %s there is", scheme_name(rule->scheme),
                   human(weight_bytes(rule->scheme, facts), need), share.of ? "fit in " : "out",
                   share.of ? share_name(share) : "", human(facts->memory_bytes, have));
    (void)snprintf(ret_why, POLICY_WHY_MAX, "auto, table %d, %s: %s%s%s%s", POLICY_VERSION, m->name, before, now,
                   rule->facts[0] ? "; " : "", rule->facts); /* for people */
}

static void resolve_auto(const struct policy_facts *facts, struct recipe *ret, char *ret_why)
{
    const struct machine *m = machine_of(facts->cpu_features);
    const struct rule *rule = rules;
    while (!fits(rule, m, facts))
        rule++; /* the last always fits */
    ret->scheme = rule->scheme;
    say_why(rule, m, facts, ret_why);
}

/* --- ONNX models --- */

/* The first whose features are all there. */
static const struct codes {
    uint64_t needs;
    uint32_t bits, speed;
} codes[] = {
#define CODES(needs, bits, speed, facts) {needs, bits, speed},
#include "quant/policy.def"
};

static const struct codes *codes_of(uint64_t features)
{
    const struct codes *c = codes;
    while ((features & c->needs) != c->needs)
        c++; /* the last needs nothing */
    return c;
}

/* What the scheme needs, by this CPU where it was not said, and nothing else. */
static void settle_onnx(const struct policy_facts *facts, struct recipe *r)
{
    const struct codes *c = codes_of(facts->cpu_features);
    const bool any = r->scheme == SCHEME_INT8, calibrated = any || r->scheme == SCHEME_INT8_STATIC;
    const bool meets_codes = calibrated || r->scheme == SCHEME_INT8_DYNAMIC, nibbles = r->scheme == SCHEME_INT4;
    r->bits = !meets_codes ? 0 : r->bits ? r->bits : c->bits;
    r->method = !calibrated ? RANGE_MIN_MAX : r->has_method ? r->method : RANGE_PERCENTILE;
    r->has_method = calibrated;
    r->has_statistics = r->has_statistics && calibrated;
    r->speed = !any ? 0 : facts->int8_speed ? facts->int8_speed : c->speed;
    r->block = !nibbles ? 0 : r->block ? r->block : 32;
    r->asymmetric = nibbles && r->asymmetric;
}

void policy_resolve(const struct recipe *asked, const struct policy_facts *facts, struct recipe *ret, char *ret_why)
{
    struct recipe recipe = *asked;
    if (asked->scheme == SCHEME_AUTO && facts->is_onnx) {
        recipe.scheme = SCHEME_INT8;
        (void)snprintf(ret_why, POLICY_WHY_MAX, "auto: of an ONNX model that is int8"); /* fits by far */
    } else if (asked->scheme == SCHEME_AUTO)
        resolve_auto(facts, &recipe, ret_why);
    else
        (void)snprintf(ret_why, POLICY_WHY_MAX, "%s was asked for", scheme_name(asked->scheme)); /* fits by far */
    settle_onnx(facts, &recipe);
    *ret = recipe;
}

/* --- layout --- */

static bool no_packed_form(enum scheme scheme, const struct policy_facts *facts)
{
    (void)facts;
    return packed_block_bytes(scheme_type(scheme)) == 0;
}

static bool no_vector_kernels(enum scheme scheme, const struct policy_facts *facts)
{
    (void)scheme;
    return layout_native(facts->cpu_features) == QD_LAYOUT_PORTABLE;
}

static bool more_than_memory(enum scheme scheme, const struct policy_facts *facts)
{
    return weight_bytes(scheme, facts) > facts->memory_bytes;
}

static bool twice_more_than_cache(enum scheme scheme, const struct policy_facts *facts)
{
    return facts->cache_bytes && weight_bytes(scheme, facts) > facts->cache_bytes / 2;
}

static const struct {
    bool (*holds)(enum scheme scheme, const struct policy_facts *facts);
    const char *why;
} portable[] = {
#define PORTABLE(test, why) {test, why},
#include "quant/policy.def"
};

enum qd_layout policy_layout(const struct recipe *recipe, const struct policy_facts *facts, char *ret_why)
{
    for (size_t i = 0; i < sizeof portable / sizeof portable[0]; i++)
        if (portable[i].holds(recipe->scheme, facts)) {
            (void)snprintf(ret_why, POLICY_WHY_MAX, "%s", portable[i].why); /* a test holds them short enough */
            return QD_LAYOUT_PORTABLE;
        }
    enum qd_layout native = layout_native(facts->cpu_features);
    (void)snprintf(ret_why, POLICY_WHY_MAX, "kernels for %s read it", layout_features(native)); /* fits by far */
    return native;
}

/* --- memory --- */

/* The first @n - 1 bytes of a small file of the kernel; false where there is none. */
static bool read_small(const char *path, char *dst, size_t n)
{
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = pread_whole(fd, dst, n - 1, 0);
    if (got < 0)
        return false;
    dst[got] = 0;
    return true;
}

/* A limit file's number; UINT64_MAX for "max", for no file and for v1's "unlimited" (near 2^63). */
static uint64_t limit_of(const char *path)
{
    char text[64];
    if (!read_small(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* The smallest limit of the group at @path below @mount and of its ancestors: each one binds. */
static uint64_t group_limit(const char *mount, char *path, const char *file)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        char name[4400];
        (void)snprintf(name, sizeof name, "%s%s/%s", mount, path, file); /* a cut name has no file */
        uint64_t limit = limit_of(name);
        least = limit < least ? limit : least;
        char *slash = strrchr(path, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

static uint64_t cgroup_limit(void)
{
    char text[8192];
    if (!read_small("/proc/self/cgroup", text, sizeof text))
        return UINT64_MAX;
    uint64_t least = UINT64_MAX;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        uint64_t limit = UINT64_MAX;
        if (controllers[1] == 0)
            limit = group_limit("/sys/fs/cgroup", path, "memory.max");
        else if (strcmp(controllers + 1, "memory") == 0)
            limit = group_limit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes");
        least = limit < least ? limit : least;
    }
    return least;
}

uint64_t policy_memory_bytes(void)
{
    char text[256];
    uint64_t total_kib = 0;
    const char *at = read_small("/proc/meminfo", text, sizeof text) ? strstr(text, "MemTotal:") : NULL;
    if (at)
        total_kib = strtoull(at + strlen("MemTotal:"), NULL, 10);
    uint64_t limit = cgroup_limit();
    uint64_t total = total_kib * 1024;
    return total && total < limit ? total : limit == UINT64_MAX ? total : limit;
}
