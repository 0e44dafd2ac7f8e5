/* quantd killed at fifty points of a job. Its client is told, its store is whole, the next open gives the same bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/digest.h"
#include "kernels/core/cleanup.h"
#include "tests/integration/big_model.h"
#include "tests/integration/harness.h"

enum { N_KILLS = 50, AN_OPEN_EVERY = 5 };

/* Of the largest descriptor: the payload. */
static struct digest payload_digest(const struct packet *p)
{
    struct digest d = {{0}};
    struct stat st, best = {0};
    int fd = -1;
    for (size_t i = 0; i < p->n_fds; i++)
        if (fstat(p->fds[i], &st) == 0 && st.st_size > best.st_size) {
            best = st;
            fd = p->fds[i];
        }
    assert_int_equal(digest_file(fd, (uint64_t)best.st_size, 1, &d, NULL, NULL, NULL, NULL), 0);
    return d;
}

static size_t count_files(const struct harness *h, const char *folder)
{
    char command[256];
    (void)snprintf(command, sizeof command, "find %s -path '*/%s/*' -type f | wc -l", h->folder, folder);
    FILE *f = popen(command, "r");
    size_t n = 99;
    assert_int_equal(fscanf(f, "%zu", &n), 1);
    (void)pclose(f);
    return n;
}

/* Whatever an earlier round finished, so that the next has work. */
static void remove_artifact(int fd)
{
    CLEANUP(incoming_clear) struct incoming in = {0};
    CLEANUP(packet_clear) struct packet reply = {0};
    struct qd_error err = {0};
    struct msg_which which = {.artifact = "big:q8_0"};
    int r = harness_call(fd, "remove", MESSAGE(which, &which), &in, &reply, &err);
    if (r < 0 && r != QD_E_NOT_FOUND)
        fail_msg("remove: %s (%s)", err.message, err.hint);
}

static void open_and_compare(int fd, struct digest *first)
{
    CLEANUP(packet_clear) struct packet packet = {0};
    struct msg_opened opened;
    struct qd_error err = {0};
    if (harness_open(fd, "big", "q8_0", &opened, &packet, &err) < 0)
        fail_msg("open: %s (%s)", err.message, err.hint);
    struct digest d = payload_digest(&packet), none = {{0}};
    if (digest_equal(first, &none))
        *first = d;
    assert_memory_equal(&d, first, sizeof d);
}

/* Until the daemon is gone: progress, perhaps an answer (true), then the end. */
static bool read_to_the_end(int fd)
{
    bool answered = false;
    for (bool more = true; more;) {
        CLEANUP(incoming_clear) struct incoming in = {0};
        CLEANUP(packet_clear) struct packet packet = {0};
        more = harness_receive(fd, &in, &packet);
        answered |= more && in.kind == INCOMING_REPLY;
    }
    (void)close(fd);
    return answered;
}

static void daemon__killed_at_fifty_points__next_open_gives_the_same_bytes(void **state)
{
    struct harness h;
    struct digest first = {{0}};
    struct msg_open m = {.model = "big", .scheme = "q8_0"};
    uint32_t seed = 11;
    unsigned n_hit = 0;
    (void)state;
    harness_prepare(&h, NULL);
    big_model_write(harness_path(&h, "models/big.gguf"), 1);
    for (unsigned i = 0; i < N_KILLS; i++) {
        harness_start(&h);
        harness_wait_model(&h, "big", "ready");
        int fd = harness_hello(&h);
        if (i % AN_OPEN_EVERY == 0)
            open_and_compare(fd, &first);
        remove_artifact(fd);
        harness_request(fd, 99, "open", MESSAGE(open, &m), NULL, 0);
        (void)usleep(1000 * (big_model_random(&seed) % 130));
        harness_kill(&h);
        n_hit += !read_to_the_end(fd);
    }
    print_message("# %u of %d daemons died before their answer\n", n_hit, N_KILLS);
    assert_true(n_hit > N_KILLS / 2);
    harness_start(&h);
    harness_wait_model(&h, "big", "ready");
    int fd = harness_hello(&h);
    open_and_compare(fd, &first);
    (void)close(fd);
    assert_int_equal(harness_stop(&h), 0);
    assert_int_equal(count_files(&h, "work"), 0);
    assert_int_equal(count_files(&h, "quarantine"), 0);
    assert_int_equal(count_files(&h, "refs"), 1);
    assert_true(count_files(&h, "objects") <= 4);
    harness_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(daemon__killed_at_fifty_points__next_open_gives_the_same_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
