/*
 * What the parts of quantd share: pointers to each other and nothing more. Made and torn down by
 * main.c in the order of the fields. Everything here runs on the loop thread unless a header says
 * otherwise.
 */
#ifndef QUANTD_DAEMON_H
#define QUANTD_DAEMON_H

#include <uv.h>

struct config;
struct store;
struct hints;
struct signing_key;
struct keyring;
struct catalog;
struct jobs;
struct listener;
struct serving;
struct hardware;
struct relayout;
struct sent;

struct daemon {
    uv_loop_t *loop;
    uint64_t
        turn; /* of the loop, from 1; requests served in one turn had all been sent when it began. 0: not counted */
    struct config *config;
    struct signing_key *key; /* NULL: signing stopped; status says why */
    char key_problem[512];
    struct keyring *keyring;
    struct store *store;
    struct hints *hints;
    struct catalog *catalog;
    struct sent *sent;
    struct jobs *jobs;
    struct relayout *relayout;
    const struct hardware *hardware; /* as it was looked at last; serving's */
    struct serving *serving;         /* what the handlers keep between requests */
    struct listener *listener;
};

#endif
