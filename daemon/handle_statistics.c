/* statistics: what an app saw of a model's values while it ran the model by itself becomes calibration data. */
#include <stdlib.h>
#include <sys/stat.h>

#include "daemon/handlers.h"
#include "daemon/job.h"
#include "daemon/listener.h"
#include "daemon/pool.h"
#include "daemon/rights.h"
#include "daemon/sent.h"
#include "kernels/core/cleanup.h"

struct sending {
    struct pending pending; /* first: abandon() casts back */
    struct daemon *daemon;
    int fd; /* owned */
    struct sent_file file;
    bool abandoned;
};

static void sending_free(struct sending *g)
{
    g->daemon->serving->n_openings--;
    (void)fd_close(g->fd); /* only read */
    free(g);
}

/* The pool still has it. */
static void on_abandon(struct pending *pending)
{
    struct sending *g = (struct sending *)pending;
    g->abandoned = true;
}

static int write_work(void *data, struct qd_error *err)
{
    struct sending *g = data;
    return sent_write(g->daemon->sent, g->fd, &g->file, err);
}

static void write_done(void *data, int result, const struct qd_error *err)
{
    struct sending *g = data;
    struct qd_error why = result < 0 ? *err : (struct qd_error){0};
    if (result == 0)
        result = sent_take(g->daemon->sent, &g->file, &why);
    if (!g->abandoned) {
        struct peer *peer = g->pending.peer;
        uint32_t id = g->pending.id;
        pending_done(&g->pending);
        if (!peer->closing && result < 0)
            peer_fail(peer, id, &why);
        else if (!peer->closing)
            peer_reply(peer, id, MESSAGE(nothing, &(struct msg_nothing){}));
    }
    sending_free(g);
}

/* Others are served by what is sent: it is for those who could put samples beside the model. */
static int check_owner(const struct peer *p, const struct catalog_model *m, struct qd_error *err)
{
    struct stat st;
    if (rights_is_admin(p->daemon->config, &p->who) || (stat(m->first_file, &st) == 0 && st.st_uid == p->who.uid))
        return 0;
    (void)err_new(err, QD_E_DENIED, "model '%s' is another user's", m->name);
    return err_hint(err, QD_E_DENIED, "its owner and admins ([daemon] admins) may send statistics of it");
}

int handle_statistics(struct peer *peer, struct request *rq, const struct msg_statistics *p, struct qd_error *err)
{
    const struct catalog_model *m;
    CLEANUP(fd_close) int fd = packet_steal_fd(rq->packet, 0);
    int r = find_model(peer, p->model, &m, err);
    if (r == 0 && m->state != MODEL_READY)
        r = err_hint(err, err_new(err, QD_E_BUSY, "model '%s' is not ready", m->name),
                     "send them again when its files have been quiet for a second (`quantctl models`)");
    if (r == 0)
        r = check_owner(peer, m, err);
    if (r == 0 && fd < 0)
        r = err_new(err, QD_E_INVALID, "statistics: the packet carries no descriptor");
    if (r < 0)
        return r;
    struct sending *g = calloc(1, sizeof *g);
    if (!g)
        return err_new(err, QD_E_NO_MEMORY, "statistics");
    *g = (struct sending){.daemon = peer->daemon, .fd = steal_fd(&fd)};
    g->pending.abandon = on_abandon;
    sent_begin(m->first_file, &m->stamp, &g->file);
    peer->daemon->serving->n_openings++;
    r = peer_pend(peer, &g->pending, rq->id, err);
    if (r == 0 && (r = pool_submit_long(peer->daemon->loop, write_work, write_done, g, err)) < 0)
        pending_done(&g->pending);
    if (r < 0)
        sending_free(g);
    return r;
}
