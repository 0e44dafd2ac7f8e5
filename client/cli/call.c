/* Calls: the connection, answers as JSON, pages collected. */
#include "client/cli/cli.h"

#include <math.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

DEFINE_CLEANUP(json_decref, json_t *)

struct qd_client *cli_client(struct cli *cli, struct qd_error *err)
{
    if (!cli->client && qd_connect(cli->socket, &cli->client, err) < 0)
        return NULL;
    return cli->client;
}

static json_t *json_of_items(const struct qd_value *v, bool is_map)
{
    json_t *json = is_map ? json_object() : json_array();
    for (size_t i = 0; json && i < qd_value_n(v); i++) {
        json_t *item = json_of_value(qd_value_at(v, i));
        int r = is_map ? json_object_set_new(json, qd_value_key_at(v, i), item) : json_array_append_new(json, item);
        if (r < 0) {
            json_decref(json);
            return NULL;
        }
    }
    return json;
}

/* JSON has no infinity: an exact tensor's SQNR is the text "inf". */
static json_t *json_of_number(double v)
{
    return isfinite(v) ? json_real(v) : json_string(isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
}

json_t *json_of_value(const struct qd_value *v)
{
    switch (qd_value_kind(v)) {
    case QD_NIL:
        return json_null();
    case QD_BOOL:
        return json_boolean(qd_value_bool(v));
    case QD_INT:
        return json_integer(qd_value_i64(v));
    case QD_UINT:
        return json_integer((json_int_t)qd_value_u64(v));
    case QD_NUMBER:
        return json_of_number(qd_value_f64(v));
    case QD_STRING:
        return json_string(qd_value_str(v));
    case QD_ARRAY:
        return json_of_items(v, false);
    case QD_MAP:
        return json_of_items(v, true);
    }
    return NULL;
}

static int call_once(struct cli *cli, const char *method, const struct qd_param *params, json_t **ret,
                     struct qd_error *err)
{
    struct qd_client *client = cli_client(cli, err);
    if (!client)
        return err->code;
    struct qd_value *answer = NULL;
    int r = qd_call(client, method, params, NULL, NULL, &answer, err);
    if (r < 0)
        return r;
    *ret = json_of_value(answer);
    qd_value_free(answer);
    return *ret ? 0 : err_new(err, QD_E_NO_MEMORY, "answer of '%s'", method);
}

/* @params with `from` set to @from; @dst has room for all and the end. */
static void params_from(const struct qd_param *params, uint64_t from, struct qd_param *dst)
{
    for (; params && params->key; params++)
        *dst++ = *params;
    *dst++ = (struct qd_param){.key = "from", .kind = QD_PARAM_U64, .u64 = from};
    *dst = (struct qd_param){0};
}

int cli_call(struct cli *cli, const char *method, const struct qd_param *params, const char *list, json_t **ret,
             struct qd_error *err)
{
    CLEANUP(json_decref) json_t *all = NULL;
    int r = call_once(cli, method, params, &all, err);
    if (r < 0)
        return r;
    json_int_t next = list ? json_integer_value(json_object_get(all, "next")) : 0;
    while (next > 0) {
        struct qd_param paged[16];
        CLEANUP(json_decref) json_t *page = NULL;
        params_from(params, (uint64_t)next, paged);
        r = call_once(cli, method, paged, &page, err);
        if (r < 0)
            return r;
        if (json_array_extend(json_object_get(all, list), json_object_get(page, list)) < 0)
            return err_new(err, QD_E_PROTOCOL, "'%s' answered a page without '%s'", method, list);
        json_int_t after = json_integer_value(json_object_get(page, "next"));
        if (after != 0 && after <= next)
            return err_new(err, QD_E_PROTOCOL, "'%s' answered pages in a circle", method);
        next = after;
    }
    (void)json_object_del(all, "next"); /* absent where there was one page */
    *ret = steal(&all);
    return 0;
}
