/*
 * Relayout: what becomes of packed artifacts when the hardware has changed, or quantd.
 *
 * One that this CPU cannot use, whose layout was native before and is not now, or whose layout this quantd does not
 * know is outdated. Where it was used lately ([cache] repack) its model is packed in the layout that is native now, in
 * the background, from the portable artifact, which answers meanwhile. Once its successor is there, or where none is to
 * come, the outdated one is superseded: clients are told, and it is collected as soon as nobody has it open or mapped.
 * Should the hardware come back before, it stays. A restart needs to know the layouts that are to go
 * (daemon/hardware.h): the store tells the rest.
 *
 * Costs nothing while no artifact is outdated. Loop thread.
 */
#ifndef QUANTD_DAEMON_RELAYOUT_H
#define QUANTD_DAEMON_RELAYOUT_H

#include <quantd/layout.h>

#include "daemon/daemon.h"
#include "kernels/core/error.h"

int relayout_new(struct daemon *d, struct relayout **ret, struct qd_error *err);

/* No more work is begun: handles close with the loop, what is on the pool ends by itself. */
void relayout_stop(struct relayout *r);
struct relayout *relayout_free(struct relayout *r); /* when the loop has ended */

/* The hardware is another, or the daemon has started and knows its models: looks at every packed artifact. */
void relayout_look(struct relayout *r);

/* An artifact was made in @layout, or was found to have nothing to pack in it. */
void relayout_made(struct relayout *r, enum qd_layout layout);

#endif
