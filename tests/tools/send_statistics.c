/*
 * An app that runs a model by itself: sends what it saw of values.
 *
 * usage: send_statistics SOCKET MODEL VALUE FILE...     elements of VALUE, a sample of float32 each
 *        send_statistics SOCKET MODEL VALUE LOW HIGH N  a range alone, of N elements
 *        send_statistics SOCKET MODEL --raw FILE        the file's bytes as they are
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quantd/quantd.h>

enum { FLOATS_MAX = 1 << 20 };

static int complain(const struct qd_error *err)
{
    fprintf(stderr, "%s: %s; %s\n", qd_error_name(err->code), err->message, err->hint);
    return qd_error_exit_code(err->code);
}

static int send_raw(struct qd_client *c, const char *model, const char *path, struct qd_error *err)
{
    struct qd_value *answer = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    const struct qd_param params[] = {{.key = "model", .kind = QD_PARAM_STR, .str = model},
                                      {.key = "fd", .kind = QD_PARAM_FD, .u64 = (uint64_t)fd},
                                      {.key = NULL}};
    int r = qd_call(c, "statistics", params, NULL, NULL, &answer, err);
    qd_value_free(answer);
    return r;
}

static int add_file(struct qd_statistics *s, const char *value, const char *path, struct qd_error *err)
{
    static float x[FLOATS_MAX];
    FILE *f = fopen(path, "re");
    const size_t n = f ? fread(x, sizeof *x, FLOATS_MAX, f) : 0;
    if (f)
        (void)fclose(f); /* only read */
    return qd_statistics_add(s, value, x, n, err);
}

static int send_all(struct qd_client *c, int n, char **words, struct qd_error *err)
{
    struct qd_statistics *s = NULL;
    char *end = NULL;
    int r = qd_statistics_new(&s, err);
    const float low = strtof(words[2], &end);
    const int is_range = n == 5 && !*end;
    if (r == 0 && is_range)
        r = qd_statistics_add_range(s, words[1], strtoull(words[4], NULL, 10), low, strtof(words[3], NULL), err);
    for (int i = 2; r == 0 && !is_range && i < n; i++)
        r = add_file(s, words[1], words[i], err);
    if (r == 0)
        r = qd_statistics_send(c, words[0], s, err);
    qd_statistics_free(s);
    return r;
}

int main(int argc, char **argv)
{
    struct qd_error err;
    struct qd_client *c;
    if (argc < 5)
        return 64;
    if (qd_connect(argv[1], &c, &err) < 0)
        return complain(&err);
    int r = strcmp(argv[3], "--raw") == 0 ? send_raw(c, argv[2], argv[4], &err) : send_all(c, argc - 2, argv + 2, &err);
    qd_client_free(c);
    return r < 0 ? complain(&err) : 0;
}
