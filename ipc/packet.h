/*
 * Packet: the bytes of one message and the descriptors that came, or go, with it. The packet owns
 * its descriptors: packet_clear closes what nobody stole.
 */
#ifndef QUANTD_IPC_PACKET_H
#define QUANTD_IPC_PACKET_H

#include "kernels/core/bytes.h"
#include "kernels/core/cleanup.h"

enum {
    PACKET_BYTES_MAX = 64 << 10,
    PACKET_FDS_MAX = 65 /* an envelope and the 64 files a manifest may name; the kernel's limit is 253 */
};

struct packet {
    struct buffer bytes;
    int fds[PACKET_FDS_MAX]; /* owned; -1 once stolen */
    size_t n_fds;
    bool cut; /* descriptors were lost on the way: too many, or none left in this process */
};

/* Closes the descriptors that were not stolen and forgets the bytes; the memory is kept for the next message. */
void packet_reset(struct packet *p);

/* packet_reset, and the memory is freed. A zeroed packet is empty and valid. */
void packet_clear(struct packet *p);
static inline void packet_clear_cleanup(struct packet *p)
{
    packet_clear(p);
}

/* Takes ownership of descriptor @i; -1 where there is none or it is gone already. */
int packet_steal_fd(struct packet *p, size_t i);

/* Gives @fd to the packet. False when it is full: @fd stays the caller's. */
bool packet_add_fd(struct packet *p, int fd);

struct bytes packet_span(const struct packet *p);

#endif
