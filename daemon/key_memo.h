/*
 * Key memo: keys of artifacts made lately. A key is a function of source, recipe, layout and encoder revision alone,
 * and a warm `open` asks for the same ones again: a look here costs a comparison, the digest 1 to 3 us. Loop thread.
 */
#ifndef QUANTD_DAEMON_KEY_MEMO_H
#define QUANTD_DAEMON_KEY_MEMO_H

#include <quantd/layout.h>

#include "artifact/digest.h"
#include "quant/recipe.h"

enum { KEYS_KEPT = 128 };

/* All zero is empty. */
struct key_memo {
    struct kept_key {
        bool used;
        struct digest source;
        char recipe[RECIPE_TEXT_MAX];
        enum qd_layout layout;
        uint32_t encoder_revision;
        struct digest key;
    } kept[KEYS_KEPT]; /* by the source's first byte and the layout; the newer takes the place */
};

/* artifact_key. @recipe: canonical text, shorter than RECIPE_TEXT_MAX. */
int key_memo_get(struct key_memo *m, const struct digest *source, const char *recipe, enum qd_layout layout,
                 uint32_t encoder_revision, struct digest *ret, struct qd_error *err);

#endif
