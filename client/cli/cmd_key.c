/* key: the daemon's signing key, and which public keys this machine's clients trust. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/print.h"
#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"
#include "kernels/core/io.h"

enum { PUB_BYTES_MAX = 4096 };

static const struct column key_facts[] = {
    {"key id", "key_id", COLUMN_TEXT},
    {"public key", "public_key", COLUMN_TEXT},
    {"comes from", "origin", COLUMN_TEXT},
    {"published", "path", COLUMN_TEXT},
    {NULL, NULL, COLUMN_TEXT},
};

static int show_key(struct cli *cli)
{
    struct qd_error err;
    json_t *answer;
    if (cli_call(cli, "key", NULL, NULL, &answer, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(answer);
    print_facts(answer, key_facts);
    json_decref(answer);
    return 0;
}

/* /etc/quantd for root, the XDG folder for everybody else; made when missing. */
static int trust_folder(const char *which, char dst[PATH_MAX], struct qd_error *err)
{
    const char *xdg = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int n;
    if (geteuid() == 0 && !xdg)
        n = snprintf(dst, PATH_MAX, "/etc/quantd/%s.d", which);
    else if (xdg && *xdg == '/')
        n = snprintf(dst, PATH_MAX, "%s/quantd/%s.d", xdg, which);
    else if (home && *home == '/')
        n = snprintf(dst, PATH_MAX, "%s/.config/quantd/%s.d", home, which);
    else
        return err_new(err, QD_E_NOT_FOUND, "neither XDG_CONFIG_HOME nor HOME says where trusted keys are kept");
    if (n < 0 || n >= PATH_MAX)
        return err_new(err, QD_E_LIMIT, "the configuration folder's path is too long");
    for (char *p = dst + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        if (mkdir(dst, 0755) < 0 && errno != EEXIST)
            return err_sys(err, errno, "create '%s'", dst);
        *p = '/';
    }
    if (mkdir(dst, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "create '%s'", dst);
    return 0;
}

static int read_public_key(const char *path, char text[PUB_BYTES_MAX], size_t *ret_n, struct qd_error *err)
{
    static const char head[] = "quantd-ed25519 ";
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_sys(err, errno, "open '%s'", path);
    ssize_t n = pread_whole(fd, text, PUB_BYTES_MAX - 1, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read '%s'", path);
    text[n] = '\0';
    size_t digits = strncmp(text, head, sizeof head - 1) == 0 ? strspn(text + sizeof head - 1, "0123456789abcdef") : 0;
    if (digits != 64) {
        (void)err_new(err, QD_E_CORRUPT, "'%s' is no quantd public key", path);
        return err_hint(
            err, QD_E_CORRUPT,
            "a key file is one line: quantd-ed25519 and 64 hex digits; the daemon's own is beside its socket");
    }
    *ret_n = (size_t)n;
    return 0;
}

/* Writes beside, then renames: a reader never sees half a key. The file is named after the key. */
static int install_key(const char *folder, const char *text, size_t n, char dst[PATH_MAX], struct qd_error *err)
{
    char tmp[PATH_MAX];
    int a = snprintf(dst, PATH_MAX, "%s/%.16s.pub", folder, text + strlen("quantd-ed25519 "));
    int b = snprintf(tmp, sizeof tmp, "%s.tmp", dst);
    if (a < 0 || a >= PATH_MAX || b < 0 || b >= (int)sizeof tmp)
        return err_new(err, QD_E_LIMIT, "the path in '%s' is too long", folder);
    CLEANUP(fd_close) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return err_sys(err, errno, "create '%s'", tmp);
    int r = write_whole(fd, text, n);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && rename(tmp, dst) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(tmp); /* the failure is already told */
        return err_sys(err, -r, "write '%s'", dst);
    }
    return 0;
}

static int change_trust(struct cli *cli, const char *which, const char *path)
{
    struct qd_error err;
    char text[PUB_BYTES_MAX], folder[PATH_MAX], file[PATH_MAX];
    size_t n = 0;
    if (read_public_key(path, text, &n, &err) < 0 || trust_folder(which, folder, &err) < 0 ||
        install_key(folder, text, n, file, &err) < 0)
        return cli_fail(cli, &err);
    if (cli->json)
        return print_json(json_pack("{s:s, s:s}", "file", file, "done", which));
    if (!cli->quiet)
        printf("%s: %s\n", which, file);
    return 0;
}

int cmd_key(struct cli *cli, int argc, char **argv)
{
    int first;
    int status = cli_parse(cli, argc, argv, NULL, 0, 2, &first);
    if (status)
        return status;
    const char *what = argv[first] ? argv[first] : "show";
    const char *file = argv[first] ? argv[first + 1] : NULL;
    if (strcmp(what, "show") == 0 && !file)
        return show_key(cli);
    if (strcmp(what, "trust") == 0 && file)
        return change_trust(cli, "trusted", file);
    if (strcmp(what, "revoke") == 0 && file)
        return change_trust(cli, "revoked", file);
    if (!file && (strcmp(what, "trust") == 0 || strcmp(what, "revoke") == 0))
        return cli_misuse(cli, argv[0], "%s which key? Name its FILE.pub", what);
    return cli_misuse(cli, argv[0], "'%s' is none of show, trust FILE, revoke FILE", what);
}
