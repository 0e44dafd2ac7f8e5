#include "daemon/layouts.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/error.h"
#include "kernels/cpu.h"
#include "kernels/layout/packed.h"

/* ---- wishes ----------------------------------------------------------------------------------- */

static int refuse_name(const char *text, struct qd_error *err)
{
    static const char *const names[] = {"native", "auto",
#define QD_LAYOUT(name, NAME, rows, run, panel, columns) #name,
#include <quantd/layouts.def>
#undef QD_LAYOUT
                                        NULL};
    return err_unknown_name(err, "layout", text, nearest_name(text, names), names);
}

int layout_wish_parse(const char *text, struct layout_wish *ret, struct qd_error *err)
{
    int named = text ? qd_layout_by_name(text) : QD_LAYOUT_PORTABLE;
    if (named >= 0)
        *ret = (struct layout_wish){.kind = WISH_NAMED, .named = (enum qd_layout)named};
    else if (strcmp(text, "native") == 0)
        *ret = (struct layout_wish){.kind = WISH_NATIVE};
    else if (strcmp(text, "auto") == 0)
        *ret = (struct layout_wish){.kind = WISH_AUTO};
    else
        return refuse_name(text, err);
    return 0;
}

static int refuse_needs(enum qd_layout layout, uint64_t features, struct qd_error *err)
{
    char here[256];
    (void)cpu_features_string(features, here, sizeof here);
    (void)err_new(err, QD_E_UNSUPPORTED, "layout '%s' needs %s; the CPU has %s", qd_layout_info(layout)->name,
                  layout_features(layout), here);
    return err_hint(err, QD_E_UNSUPPORTED, "ask for native: it is %s here",
                    qd_layout_info(layout_native(features))->name);
}

static void say_native(enum qd_layout layout, char *ret_why)
{
    if (layout == QD_LAYOUT_PORTABLE)
        (void)snprintf(ret_why, POLICY_WHY_MAX, "this CPU has no vector kernels"); /* fits */
    else
        (void)snprintf(ret_why, POLICY_WHY_MAX, "kernels for %s read it", layout_features(layout)); /* fits */
}

int layout_wish_resolve(const struct layout_wish *w, const struct recipe *recipe, const struct policy_facts *facts,
                        enum qd_layout *ret, char *ret_why, struct qd_error *err)
{
    ret_why[0] = '\0';
    switch (w->kind) {
    case WISH_NAMED:
        if (layout_needs(w->named) & ~facts->cpu_features)
            return refuse_needs(w->named, facts->cpu_features, err);
        *ret = w->named;
        if (w->named != QD_LAYOUT_PORTABLE)
            (void)snprintf(ret_why, POLICY_WHY_MAX, "it was asked for"); /* fits */
        break;
    case WISH_NATIVE:
        *ret = layout_native(facts->cpu_features);
        say_native(*ret, ret_why);
        break;
    case WISH_AUTO:
        *ret = policy_layout(recipe, facts, ret_why);
        break;
    }
    return 0;
}

/* ---- nothing to pack ------------------------------------------------------------------------------ */

static size_t find(const struct unpacked_memo *m, const struct digest *portable)
{
    size_t i = 0;
    while (i < UNPACKED_KEPT && !(m->kept[i].layouts && digest_equal(&m->kept[i].portable, portable)))
        i++;
    return i;
}

bool unpacked_get(const struct unpacked_memo *m, const struct digest *portable, enum qd_layout layout)
{
    size_t i = find(m, portable);
    return i < UNPACKED_KEPT && (m->kept[i].layouts >> layout & 1);
}

void unpacked_put(struct unpacked_memo *m, const struct digest *portable, enum qd_layout layout)
{
    size_t i = find(m, portable);
    if (i == UNPACKED_KEPT) {
        i = m->next;
        m->next = (m->next + 1) % UNPACKED_KEPT;
        m->kept[i].portable = *portable;
        m->kept[i].layouts = 0;
    }
    m->kept[i].layouts |= UINT32_C(1) << layout;
}
