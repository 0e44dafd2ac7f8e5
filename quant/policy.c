#include "quant/policy.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/io.h"
#include "kernels/layout/packed.h"

/*
 * What "auto" means, first rule that holds. The weights may take a share of the memory that the
 * machine has (not of what happens to be free), since activations, caches and other programs want
 * the rest. Any change here raises POLICY_VERSION.
 */
struct policy_rule {
    enum scheme scheme;
    uint32_t share;     /* weights fit in memory / share; 0: always holds */
    uint32_t milli_bpw; /* bits per 1000 weights, of Llama 3.1 8B: llama.cpp's tools/quantize/README.md */
    const char *why;
};

static const struct policy_rule rules[] = {
    {SCHEME_Q8_0, 4, 8501,
     "q8_0 is all but lossless and its %s of weights fit in a quarter of the %s this machine has"},
    {SCHEME_Q6_K, 4, 6563, "q8_0 would pass a quarter of memory; q6_k's %s fit in a quarter of the %s there is"},
    {SCHEME_Q5_K_M, 4, 5704, "q6_k would pass a quarter of memory; q5_k_m's %s fit in a quarter of the %s there is"},
    {SCHEME_Q4_K_M, 4, 4894, "q5_k_m would pass a quarter of memory; q4_k_m's %s fit in a quarter of the %s there is"},
    {SCHEME_Q4_K_M, 2, 4894, "q4_k_m passes a quarter of memory, and its %s fit in half of the %s there is"},
    {SCHEME_Q3_K_M, 2, 3996, "q4_k_m would pass half of memory; q3_k_m's %s fit in half of the %s there is"},
    {SCHEME_Q2_K, 0, 3159, "q3_k_m would pass half of memory; q2_k is the smallest, %s of the %s there is"},
};

/* Where the elements are not known yet, a source is taken to hold two bytes for each. */
static uint64_t elements_of(const struct policy_facts *facts)
{
    return facts->n_elements ? facts->n_elements : facts->model_bytes / 2;
}

/* Bytes that @n_elements take, without overflow for any count a model can have. */
static uint64_t weight_bytes(const struct policy_rule *rule, uint64_t n_elements)
{
    return n_elements / 8000 * rule->milli_bpw + n_elements % 8000 * rule->milli_bpw / 8000;
}

static const char *human(uint64_t n_bytes, char *dst, size_t n)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n_bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    (void)snprintf(dst, n, u ? "%.1f %s" : "%.0f %s", v, units[u]); /* for people; cut when too long */
    return dst;
}

static void say_why(const struct policy_rule *rule, uint64_t n_bytes, const struct policy_facts *facts, char *ret_why)
{
    char need[32], have[32];
    int n = snprintf(ret_why, POLICY_WHY_MAX, "auto, table %d: ", POLICY_VERSION);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* from the table above, two %s each */
    (void)snprintf(ret_why + n, POLICY_WHY_MAX - (size_t)n, rule->why, human(n_bytes, need, sizeof need),
                   human(facts->memory_bytes, have, sizeof have)); /* for people */
#pragma GCC diagnostic pop
}

static int resolve_auto(const struct policy_facts *facts, struct recipe *ret, char *ret_why)
{
    uint64_t n_elements = elements_of(facts);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        uint64_t n_bytes = weight_bytes(&rules[i], n_elements);
        if (rules[i].share && n_bytes > facts->memory_bytes / rules[i].share)
            continue;
        ret->scheme = rules[i].scheme;
        say_why(&rules[i], n_bytes, facts, ret_why);
        return 0;
    }
    return QD_E_INTERNAL; /* the last rule always holds */
}

int policy_resolve(const struct recipe *asked, const struct policy_facts *facts, struct recipe *ret, char *ret_why,
                   struct qd_error *err)
{
    struct recipe recipe = *asked;
    if (asked->scheme == SCHEME_AUTO) {
        if (resolve_auto(facts, &recipe, ret_why) < 0)
            return err_new(err, QD_E_INTERNAL, "no rule of the policy table holds");
    } else {
        (void)snprintf(ret_why, POLICY_WHY_MAX, "%s was asked for", scheme_name(asked->scheme)); /* fits by far */
    }
    *ret = recipe;
    return 0;
}

/* --- layout --- */

/* The artifact is in the store twice: packed, and portable, which it is made from. */
static bool both_fit(enum qd_type type, const struct policy_facts *facts)
{
    const struct qd_type_info *t = qd_type_info(type);
    uint64_t n_blocks = elements_of(facts) / t->block_elements;
    return facts->cache_bytes == 0 || n_blocks <= facts->cache_bytes / 2 / t->block_bytes;
}

enum qd_layout policy_layout(const struct recipe *recipe, const struct policy_facts *facts, char *ret_why)
{
    const struct packed_field *fields;
    const enum qd_type type = scheme_type(recipe->scheme);
    const enum qd_layout native = layout_native(facts->cpu_features);
    char budget[32];
    if (packed_fields(type, &fields) == 0) {
        (void)snprintf(ret_why, POLICY_WHY_MAX, "%s has no packed form", qd_type_info(type)->name); /* fits by far */
        return QD_LAYOUT_PORTABLE;
    }
    if (native == QD_LAYOUT_PORTABLE) {
        (void)snprintf(ret_why, POLICY_WHY_MAX, "no vector kernels for this CPU"); /* fits by far */
        return QD_LAYOUT_PORTABLE;
    }
    if (!both_fit(type, facts)) {
        (void)snprintf(ret_why, POLICY_WHY_MAX, "packed and portable together would pass the cache's budget of %s",
                       human(facts->cache_bytes, budget, sizeof budget)); /* fits by far */
        return QD_LAYOUT_PORTABLE;
    }
    (void)snprintf(ret_why, POLICY_WHY_MAX, "kernels of %s read it", layout_features(native)); /* fits by far */
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
