#include "ipc/packet.h"

void packet_reset(struct packet *p)
{
    for (size_t i = 0; i < p->n_fds; i++)
        (void)fd_close(p->fds[i]); /* -1 where stolen */
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
