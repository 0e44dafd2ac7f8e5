#include "daemon/key_memo.h"

#include <assert.h>
#include <string.h>

#include "artifact/manifest.h"

static bool is_of(const struct kept_key *k, const struct digest *source, const char *recipe, enum qd_layout layout,
                  uint32_t encoder_revision)
{
    return k->used && k->layout == layout && k->encoder_revision == encoder_revision &&
           digest_equal(&k->source, source) && strcmp(k->recipe, recipe) == 0;
}

int key_memo_get(struct key_memo *m, const struct digest *source, const char *recipe, enum qd_layout layout,
                 uint32_t encoder_revision, struct digest *ret, struct qd_error *err)
{
    struct kept_key *k = &m->kept[(source->bytes[0] + 16 * (size_t)layout) % KEYS_KEPT];
    if (!is_of(k, source, recipe, layout, encoder_revision)) {
        struct kept_key made = {
            .used = true, .source = *source, .layout = layout, .encoder_revision = encoder_revision};
        assert(strlen(recipe) < RECIPE_TEXT_MAX);
        memcpy(made.recipe, recipe, strlen(recipe) + 1);
        int r = artifact_key(source, recipe, qd_layout_info(layout)->name, encoder_revision, &made.key, err);
        if (r < 0)
            return r;
        *k = made;
    }
    *ret = k->key;
    return 0;
}
