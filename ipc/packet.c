#include "ipc/packet.h"

/* The kernel hands out neighbours as a rule: then one call closes all. */
static bool are_neighbours(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i] < 0 || fds[i] != fds[0] + (int)i)
            return false;
    return n > 1;
}

static void close_all(const int *fds, size_t n)
{
    if (are_neighbours(fds, n) && close_range((unsigned)fds[0], (unsigned)fds[n - 1], 0) == 0)
        return;
    for (size_t i = 0; i < n; i++)
        (void)fd_close(fds[i]); /* -1 where stolen */
}

void packet_reset(struct packet *p)
{
    close_all(p->fds, p->n_fds);
    p->n_fds = 0;
    p->cut = false;
    p->bytes.n = 0;
    p->bytes.failed = false;
}

void packet_clear(struct packet *p)
{
    packet_reset(p);
    buffer_clear(&p->bytes);
}

int packet_steal_fd(struct packet *p, size_t i)
{
    return i < p->n_fds ? steal_fd(&p->fds[i]) : -1;
}

bool packet_add_fd(struct packet *p, int fd)
{
    if (p->n_fds == PACKET_FDS_MAX)
        return false;
    p->fds[p->n_fds++] = fd;
    return true;
}

struct bytes packet_span(const struct packet *p)
{
    return buffer_span(&p->bytes);
}
