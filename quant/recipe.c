#include "quant/recipe.h"

#include <stdio.h>
#include <string.h>

/*
 * What an encoder's bytes are numbered by. A number rises when, and only when, the bytes of that
 * type change for some input; artifacts under the old number then no longer match their key.
 */
static const uint32_t type_revision[QD_N_TYPES] = {
    [QD_TYPE_F16] = 1,
    [QD_TYPE_BF16] = 1,
    [QD_TYPE_Q8_0] = 1,
    [QD_TYPE_Q4_0] = 1,
};

/* Rises when the planner gives some tensor another type, or the header other keys. */
enum { PLAN_REVISION = 1 };

struct scheme_info {
    const char *name;
    enum qd_type type;
    uint32_t file_type;
};

static const struct scheme_info schemes[N_SCHEMES] = {[SCHEME_AUTO] = {"auto", QD_TYPE_F32, 0},
#define S(name, NAME, file_type) [SCHEME_##NAME] = {#name, QD_TYPE_##NAME, file_type},
                                                      SCHEMES(S)
#undef S
};

static const char *const scheme_names[N_SCHEMES + 1] = {
    "auto",
#define S(name, NAME, file_type) #name,
    SCHEMES(S)
#undef S
        NULL,
};

const char *scheme_name(enum scheme s)
{
    return schemes[s].name;
}

enum qd_type scheme_type(enum scheme s)
{
    return schemes[s].type;
}

uint32_t scheme_file_type(enum scheme s)
{
    return schemes[s].file_type;
}

static int scheme_unknown(const char *name, struct qd_error *err)
{
    char list[RECIPE_TEXT_MAX] = "";
    size_t n = 0;
    for (size_t i = 0; scheme_names[i]; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", scheme_names[i]);

    int r = err_new(err, QD_E_INVALID, "unknown scheme '%.64s'", name);
    const char *near = nearest_name(name, scheme_names);
    if (near)
        return err_hint(err, r, "did you mean '%s'? Schemes: %s", near, list);
    return err_hint(err, r, "schemes: %s", list);
}

int scheme_parse(const char *name, enum scheme *ret, struct qd_error *err)
{
    for (int i = 0; i < N_SCHEMES; i++) {
        if (strcmp(scheme_names[i], name) == 0) {
            *ret = (enum scheme)i;
            return 0;
        }
    }
    return scheme_unknown(name, err);
}

void recipe_text(const struct recipe *r, char *dst)
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(&r->importance, hex);
    (void)snprintf(dst, RECIPE_TEXT_MAX, "scheme=%s pure=%d%s%s", scheme_name(r->scheme), r->pure ? 1 : 0,
                   r->weighted ? " imatrix=" : "", r->weighted ? hex : ""); /* fits by far */
}

/* One canonical text per recipe, so parsing is finding the recipe that prints it. */
int recipe_parse(const char *text, struct recipe *ret, struct qd_error *err)
{
    static const char weighted[] = " imatrix=";
    const char *found = strstr(text, weighted);
    struct recipe r = {0};
    r.weighted = found && digest_parse(found + sizeof weighted - 1, &r.importance);
    for (int scheme = SCHEME_AUTO + 1; scheme < N_SCHEMES; scheme++) {
        for (int pure = 0; pure <= 1; pure++) {
            char canonical[RECIPE_TEXT_MAX];
            r.scheme = (enum scheme)scheme;
            r.pure = pure != 0;
            recipe_text(&r, canonical);
            if (strcmp(canonical, text) == 0) {
                *ret = r;
                return 0;
            }
        }
    }
    return err_new(err, QD_E_INVALID, "'%.*s' is not a recipe", RECIPE_TEXT_MAX, text);
}

/* The sum rises when any part does: the scheme's type, and those that fall-backs and mixtures use (f16, q8_0). */
uint32_t recipe_encoder_revision(const struct recipe *r)
{
    uint32_t sum = PLAN_REVISION + type_revision[scheme_type(r->scheme)];
    if (qd_type_info(scheme_type(r->scheme))->kind != QD_KIND_BLOCK)
        return sum;
    sum += type_revision[QD_TYPE_F16];
    return r->pure ? sum : sum + type_revision[QD_TYPE_Q8_0];
}
