/* Builds that nobody waits for: of warm roots, of what was found damaged, of what `auto` will serve next. */
#ifndef QUANTD_DAEMON_BACKGROUND_H
#define QUANTD_DAEMON_BACKGROUND_H

#include <quantd/layout.h>

#include "artifact/manifest.h"
#include "daemon/daemon.h"
#include "quant/recipe.h"

/* Queues a background job for a model: the portable artifact, and from it the packed one where @layout is one. */
int build_in_background(struct daemon *d, const char *model, const struct recipe *recipe, enum qd_layout layout,
                        struct qd_error *err);

/* What an artifact was made from and how, but for its layout; all of it borrowed. */
struct artifact_origin {
    const char *model;
    struct digest source;
    const char *recipe; /* canonical text */
    uint32_t encoder_revision;
};

/*
 * Queues what makes such an artifact in @layout: packing alone, where the portable one is in the store, or what
 * build_in_background does.
 */
int make_in_background(struct daemon *d, const struct artifact_origin *o, enum qd_layout layout, struct qd_error *err);

/*
 * Has the artifact @portable packed in the background. Nothing is done where that is under way, in back-off after a
 * failure, or where no tensor of it would be packed.
 */
void pack_in_background(struct daemon *d, const struct manifest *portable, enum qd_layout layout);

#endif
