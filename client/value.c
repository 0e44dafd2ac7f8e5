#include "client/value.h"

#include <string.h>

#include "client/client.h"

enum { PARAMS_MAX = 32 };

void qd_value_free(struct qd_value *v)
{
    (void)value_free(v ? &v->v : NULL);
}

enum qd_value_kind qd_value_kind(const struct qd_value *v)
{
    static const enum qd_value_kind kinds[] = {
        [VALUE_NIL] = QD_NIL,       [VALUE_BOOL] = QD_BOOL,     [VALUE_INT] = QD_INT,     [VALUE_UINT] = QD_UINT,
        [VALUE_NUMBER] = QD_NUMBER, [VALUE_STRING] = QD_STRING, [VALUE_ARRAY] = QD_ARRAY, [VALUE_MAP] = QD_MAP,
    };
    return v ? kinds[v->v.kind] : QD_NIL;
}

static bool has_items(const struct qd_value *v)
{
    return v && (v->v.kind == VALUE_ARRAY || v->v.kind == VALUE_MAP);
}

size_t qd_value_n(const struct qd_value *v)
{
    return has_items(v) ? v->v.n : 0;
}

const struct qd_value *qd_value_at(const struct qd_value *v, size_t i)
{
    return i < qd_value_n(v) ? value_public(&v->v.items[i]) : NULL;
}

const char *qd_value_key_at(const struct qd_value *v, size_t i)
{
    return i < qd_value_n(v) && v->v.kind == VALUE_MAP ? v->v.keys[i] : NULL;
}

const struct qd_value *qd_value_get(const struct qd_value *map, const char *key)
{
    for (size_t i = 0; qd_value_key_at(map, i); i++)
        if (strcmp(map->v.keys[i], key) == 0)
            return value_public(&map->v.items[i]);
    return NULL;
}

const char *qd_value_str(const struct qd_value *v)
{
    return v && v->v.kind == VALUE_STRING ? v->v.text : "";
}

uint64_t qd_value_u64(const struct qd_value *v)
{
    return v && v->v.kind == VALUE_UINT ? v->v.u : 0;
}

int64_t qd_value_i64(const struct qd_value *v)
{
    if (v && v->v.kind == VALUE_INT)
        return v->v.i;
    return v && v->v.kind == VALUE_UINT && v->v.u <= INT64_MAX ? (int64_t)v->v.u : 0;
}

double qd_value_f64(const struct qd_value *v)
{
    if (v && v->v.kind == VALUE_NUMBER)
        return v->v.f;
    if (v && v->v.kind == VALUE_UINT)
        return (double)v->v.u;
    return (double)qd_value_i64(v);
}

bool qd_value_bool(const struct qd_value *v)
{
    return v && v->v.kind == VALUE_BOOL && v->v.b;
}

/* ---- calls --------------------------------------------------------------------------------------- */

/* A parameter that stands for a descriptor is said as true; the descriptors go in the order of their parameters. */
static int add_fd(struct call *call, const struct qd_param *p, struct qd_error *err)
{
    if (call->n_fds == CALL_FDS_MAX)
        return err_new(err, QD_E_LIMIT, "more than %d descriptors", CALL_FDS_MAX);
    call->fds[call->n_fds++] = (int)p->u64;
    return 0;
}

static int loose_params(const struct qd_param *params, struct param dst[PARAMS_MAX], struct call *call,
                        struct qd_error *err)
{
    size_t n = 0;
    for (; params && params[n].key; n++) {
        if (n == PARAMS_MAX)
            return err_new(err, QD_E_LIMIT, "more than %d parameters", PARAMS_MAX);
        dst[n] = (struct param){.key = params[n].key, .text = params[n].str, .number = params[n].u64};
        switch (params[n].kind) {
        case QD_PARAM_STR:
            dst[n].kind = PARAM_STR;
            break;
        case QD_PARAM_U64:
            dst[n].kind = PARAM_U64;
            break;
        case QD_PARAM_BOOL:
            dst[n].kind = PARAM_BOOL;
            break;
        case QD_PARAM_FD:
            dst[n].kind = PARAM_BOOL;
            dst[n].number = 1;
            if (add_fd(call, &params[n], err) < 0)
                return QD_E_LIMIT;
            break;
        }
    }
    call->n_loose = n;
    return 0;
}

int qd_call(struct qd_client *c, const char *method, const struct qd_param *params, qd_event_fn *event, void *data,
            struct qd_value **ret, struct qd_error *err)
{
    struct param loose[PARAMS_MAX];
    struct call call = {.method = method, .loose = loose};
    CLEANUP(incoming_clear) struct incoming answer = {0};
    CLEANUP(value_free) struct value *tree = NULL;
    int r = loose_params(params, loose, &call, err);
    if (r == 0)
        r = call_run(c, &call, event, data, &answer, err);
    if (r == 0)
        r = value_of_incoming(&answer, &tree, err);
    if (r < 0)
        return r;
    if (ret)
        *ret = (struct qd_value *)(void *)steal(&tree);
    return 0;
}
