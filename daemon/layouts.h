/*
 * Layouts in requests: what is meant by one, and which artifacts have nothing that one packs.
 *
 *     portable, or nothing   any runtime's; never made from another artifact
 *     native                 the one that this CPU's kernels read; an open waits until it is made
 *     auto                   policy's choice (quant/policy.h); until it is made the portable artifact is served
 *     r16k4p128 and others       that one, where this CPU has what it needs; an open waits
 *
 * Loop thread.
 */
#ifndef QUANTD_DAEMON_LAYOUTS_H
#define QUANTD_DAEMON_LAYOUTS_H

#include <stdbool.h>

#include <quantd/layout.h>

#include "artifact/digest.h"
#include "quant/policy.h"

enum {
    UNPACKED_KEPT = 64,                      /* portable artifacts without anything to pack */
    LAYOUT_WHY_MAX = 2 * POLICY_WHY_MAX + 64 /* scheme and layout */
};

struct layout_wish {
    enum { WISH_NAMED, WISH_NATIVE, WISH_AUTO } kind;
    enum qd_layout named;
};

/* @text NULL: portable. An unknown name is QD_E_INVALID, with the nearest one and the list as hint. */
int layout_wish_parse(const char *text, struct layout_wish *ret, struct qd_error *err);

/*
 * What it comes to for @recipe (resolved) with @facts. @ret_why[POLICY_WHY_MAX]: why, in words, "" where portable was
 * asked for. QD_E_UNSUPPORTED: a named one needs what the CPU has not; says what.
 */
int layout_wish_resolve(const struct layout_wish *w, const struct recipe *recipe, const struct policy_facts *facts,
                        enum qd_layout *ret, char *ret_why, struct qd_error *err);

/* Portable artifacts of which nothing is packed in some layouts; all zero is empty. Forgotten at a restart. */
struct unpacked_memo {
    struct {
        struct digest portable;
        uint32_t layouts; /* bits of enum qd_layout */
    } kept[UNPACKED_KEPT];
    size_t next; /* to be replaced */
};
bool unpacked_get(const struct unpacked_memo *m, const struct digest *portable, enum qd_layout layout);
void unpacked_put(struct unpacked_memo *m, const struct digest *portable, enum qd_layout layout);

#endif
