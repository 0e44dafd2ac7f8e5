/* Values: the tree of ipc/value.h under its public name. */
#ifndef QUANTD_CLIENT_VALUE_H
#define QUANTD_CLIENT_VALUE_H

#include <quantd/quantd.h>

#include "ipc/value.h"

struct qd_value {
    struct value v; /* the first and only member: pointers to either are the same */
};

static inline const struct qd_value *value_public(const struct value *v)
{
    return (const struct qd_value *)(const void *)v;
}

#endif
