#include "kernels/kernels.h"

#include <pthread.h>
#include <stdlib.h>

#include "kernels/cpu.h"
#include "kernels/variants.h"

static const struct kernel_entry entries[] = {
#define KERNEL(op, variant, needs, kind, slot, type) \
    {#op, #variant, needs, KERNEL_##kind, type, (void (*)(void))op##__##variant},
#include "kernels/kernels.def"
#undef KERNEL
};

const struct kernel_entry *kernels_list(size_t *ret_n)
{
    *ret_n = sizeof entries / sizeof entries[0];
    return entries;
}

static const struct packed_entry packed_entries[] = {
#define KERNEL(op, variant, needs, kind, slot, type, layout) \
    {#op, #variant, needs, PACKED_##kind, type, layout, (void (*)(void))op##__##variant},
#include "kernels/packed.def"
#undef KERNEL
};

const struct packed_entry *packed_list(size_t *ret_n)
{
    *ret_n = sizeof packed_entries / sizeof packed_entries[0];
    return packed_entries;
}

/* Later lines overwrite earlier ones: the fastest that @features allow stays. */
static void ops_fill(struct ops *ops, uint64_t features)
{
#define KERNEL(op, variant, needs, kind, slot, ...)          \
    if ((features & (uint64_t)(needs)) == (uint64_t)(needs)) \
        ops->slot = op##__##variant;
#include "kernels/kernels.def"
#include "kernels/packed.def"
#undef KERNEL
}

/* Feature bits that some kernel asks for; the others make no difference to the table. */
static uint64_t features_that_matter(void)
{
    uint64_t all = 0;
#define KERNEL(op, variant, needs, ...) all |= (uint64_t)(needs);
#include "kernels/kernels.def"
#include "kernels/packed.def"
#undef KERNEL
    return all;
}

struct known_ops {
    struct known_ops *next; /* owned by the list, which lives as long as the process */
    uint64_t features;
    struct ops ops;
};

static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known_ops *known; /* guarded by known_lock; entries never change or go */
static struct known_ops scalar; /* for when memory is out: slower, same bytes */

static const struct ops *ops_for_locked(uint64_t features)
{
    for (struct known_ops *k = known; k; k = k->next)
        if (k->features == features)
            return &k->ops;
    struct known_ops *made = calloc(1, sizeof *made);
    if (!made) {
        ops_fill(&scalar.ops, 0);
        return &scalar.ops;
    }
    made->features = features;
    made->next = known;
    ops_fill(&made->ops, features);
    known = made;
    return &made->ops;
}

const struct ops *ops_for(uint64_t features)
{
    (void)pthread_mutex_lock(&known_lock); /* a plain mutex cannot fail here */
    const struct ops *found = ops_for_locked(features & features_that_matter());
    (void)pthread_mutex_unlock(&known_lock);
    return found;
}

bool quantize_weighted_by_row(enum qd_type type)
{
    return type == QD_TYPE_Q4_0 || type == QD_TYPE_Q4_1 || type == QD_TYPE_Q5_0 || type == QD_TYPE_Q5_1;
}

const struct ops *ops_native(void)
{
    return ops_for(cpu_features());
}
