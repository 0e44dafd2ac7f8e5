/*
 * map_artifact MODEL SCHEME: what an application does. Opens the artifact, reads every byte of its mapping, says so,
 * waits for a line on standard input, and tells what the kernel counts for that mapping (in KiB): pss is this process's
 * share of the pages, private_dirty what it holds alone. Ends at the next line, so that others can count meanwhile.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quantd/quantd.h>

struct usage {
    uint64_t rss_kib, pss_kib, private_dirty_kib;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "map_artifact: %s\n", what);
    exit(EXIT_FAILURE);
}

/* One pass over all pages; the sum keeps the compiler from leaving it out. */
static uint64_t sum_bytes(const uint8_t *data, uint64_t bytes)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++)
        sum += data[i];
    return sum;
}

static void take_line(const char *line, struct usage *u)
{
    (void)sscanf(line, "Rss: %" SCNu64, &u->rss_kib); /* each line matches one of them, or none */
    (void)sscanf(line, "Pss: %" SCNu64, &u->pss_kib);
    (void)sscanf(line, "Private_Dirty: %" SCNu64, &u->private_dirty_kib);
}

/* What /proc/self/smaps says of the mapping that starts at @map. */
static struct usage usage_of(const void *map)
{
    struct usage u = {0};
    char line[512], start[32];
    bool inside = false;
    int n = snprintf(start, sizeof start, "%" PRIxPTR "-", (uintptr_t)map);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    if (!smaps)
        die("no /proc/self/smaps");
    while (fgets(line, sizeof line, smaps)) {
        if (strchr("0123456789abcdef", line[0]))
            inside = strncmp(line, start, (size_t)n) == 0;
        else if (inside)
            take_line(line, &u);
    }
    (void)fclose(smaps); /* was only read */
    return u;
}

static void wait_for_line(void)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(EXIT_FAILURE); /* whoever waited for us is gone */
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: map_artifact MODEL SCHEME");
    struct qd_error err;
    struct qd_client *client;
    struct qd_artifact *artifact = NULL;
    struct qd_open_options options = {.model = argv[1], .scheme = argv[2]};
    if (qd_connect(NULL, &client, &err) < 0 || qd_open(client, &options, &artifact, &err) < 0)
        die(err.message);
    uint64_t bytes;
    const void *map = qd_artifact_map(artifact, 0, &bytes);
    uint64_t sum = sum_bytes(map, bytes);
    printf("process %d maps %" PRIu64 " KiB in %zu tensors, byte sum %" PRIu64 "\n", (int)getpid(), bytes / 1024,
           qd_artifact_n_tensors(artifact), sum);
    (void)fflush(stdout); /* the reader waits for this line; if it is gone we end below */

    wait_for_line();
    struct usage u = usage_of(map);
    printf("rss_kib %" PRIu64 " pss_kib %" PRIu64 " private_dirty_kib %" PRIu64 "\n", u.rss_kib, u.pss_kib,
           u.private_dirty_kib);
    (void)fflush(stdout); /* as above */
    wait_for_line();
    qd_artifact_free(artifact);
    qd_client_free(client);
    return EXIT_SUCCESS;
}
