/* usage: replay_<target> [--write-seeds FOLDER] [FILE | FOLDER]...: the plain main of a fuzz target, see fuzz.h. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "tests/fuzz/fuzz.h"

static size_t n_runs;

static void run_one(struct bytes input, void *data)
{
    (void)data;
    uint8_t *copy = calloc(1, input.n ? input.n : 1); /* of just this size: reading beyond it is seen */
    if (!copy)
        abort();
    if (input.n)
        memcpy(copy, input.data, input.n);
    (void)LLVMFuzzerTestOneInput(copy, input.n); /* always 0 */
    free(copy);
    n_runs++;
}

/* Values that a byte becomes: those that counts, lengths and flags break at. */
static const uint8_t edits[] = {0x00, 0x01, 0x7f, 0x80, 0xff, ' ', '"', '{', ']', '0'};

static void run_around(struct bytes seed, void *data)
{
    run_one(seed, data);
    for (size_t n = 0; n < seed.n; n++)
        run_one((struct bytes){seed.data, n}, data);
    uint8_t *changed = malloc(seed.n);
    if (!changed)
        abort();
    memcpy(changed, seed.data, seed.n);
    for (size_t i = 0; i < seed.n; i++) {
        for (size_t k = 0; k < sizeof edits; k++) {
            changed[i] = edits[k];
            run_one((struct bytes){changed, seed.n}, data);
        }
        for (int bit = 0; bit < 8; bit++) {
            changed[i] = (uint8_t)(seed.data[i] ^ 1 << bit);
            run_one((struct bytes){changed, seed.n}, data);
        }
        changed[i] = seed.data[i];
    }
    free(changed);
}

static void run_file(const char *path)
{
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        perror(path);
        exit(1);
    }
    CLEANUP(free) uint8_t *content = malloc((size_t)st.st_size + 1);
    ssize_t n = content ? pread_whole(fd, content, (size_t)st.st_size, 0) : -1;
    if (n < 0)
        abort();
    run_one((struct bytes){content, (size_t)n}, NULL);
}

static void run_path(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) {
        run_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(folder));) {
        char file[4096];
        (void)snprintf(file, sizeof file, "%s/%s", path, e->d_name); /* cut: open says so */
        if (e->d_name[0] != '.')
            run_file(file);
    }
    (void)closedir(folder); /* only read */
}

struct seed_folder {
    const char *path;
    int n;
};

static void write_seed(struct bytes seed, void *data)
{
    struct seed_folder *f = data;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/seed-%02d", f->path, f->n++); /* cut: open says so */
    CLEANUP(fd_close) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write_whole(fd, seed.data, seed.n) < 0) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write-seeds") == 0) {
        fuzz_seeds(write_seed, &(struct seed_folder){argv[2], 0});
        return 0;
    }
    fuzz_seeds(run_around, NULL);
    fuzz_more(run_one, NULL);
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("%zu inputs\n", n_runs);
    return 0;
}
