#include <quantd/dtype.h>

#include <string.h>

static const struct qd_type_info types[QD_N_TYPES] = {
#define QD_DTYPE(name, NAME, id, elements, bytes, kind) [QD_TYPE_##NAME] = {#name, id, elements, bytes, QD_KIND_##kind},
#include <quantd/dtypes.def>
#undef QD_DTYPE
};

const struct qd_type_info *qd_type_info(enum qd_type type)
{
    return (unsigned)type < QD_N_TYPES ? &types[type] : NULL;
}

int qd_type_by_name(const char *name)
{
    for (int i = 0; i < QD_N_TYPES; i++)
        if (types[i].name[0] == name[0] && strcmp(types[i].name, name) == 0) /* a table asks twice a tensor */
            return i;
    return -1;
}

int qd_type_by_ggml_id(int32_t id)
{
    for (int i = 0; i < QD_N_TYPES && id >= 0; i++)
        if (types[i].ggml_id == id)
            return i;
    return -1;
}

uint64_t qd_type_row_bytes(enum qd_type type, uint64_t n_elements)
{
    const struct qd_type_info *t = qd_type_info(type);
    uint64_t bytes;
    if (!t || n_elements % t->block_elements ||
        __builtin_mul_overflow(n_elements / t->block_elements, (uint64_t)t->block_bytes, &bytes))
        return 0;
    return bytes;
}
