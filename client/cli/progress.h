/*
 * Progress of an open: a bar on a terminal, plain lines elsewhere, both on stderr; nothing of what is
 * over before a person would ask (half a second on a terminal, two seconds elsewhere).
 */
#ifndef QUANTD_CLI_PROGRESS_H
#define QUANTD_CLI_PROGRESS_H

#include <quantd/quantd.h>

struct progress_view {
    bool silent;
    bool is_terminal;
    bool bar_shown;
    char state[24]; /* last one said */
    uint64_t begun_ms;
    uint64_t said_ms; /* when a line was printed last */
};

void progress_begin(struct progress_view *v, bool silent);
void progress_show(struct progress_view *v, const struct qd_progress *p);

/* Takes the bar off the screen. */
void progress_end(struct progress_view *v);

#endif
