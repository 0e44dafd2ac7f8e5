#include "daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/ini_lines.h"
#include "daemon/units.h"
#include "kernels/core/cleanup.h"
#include "kernels/cpu.h"
#include "quant/recipe.h"

#ifndef QUANTD_SYSCONFDIR
#define QUANTD_SYSCONFDIR "/etc"
#endif
#ifndef QUANTD_LIBEXECDIR
#define QUANTD_LIBEXECDIR "/usr/libexec"
#endif

enum { CONFIG_WARNINGS_MAX = 64, CONFIG_DROPINS_MAX = 256 };

enum kind {
    KIND_SIZE,
    KIND_MS,
    KIND_SECONDS,
    KIND_HOURS,
    KIND_COUNT,
    KIND_BOOL,
    KIND_LEVEL,
    KIND_FEATURES,
    KIND_PATH,
    KIND_USERS,
    KIND_ALLOW,
    KIND_SCHEME
};

struct option {
    const char *section; /* NULL: of a root */
    const char *key;
    enum kind kind;
    size_t offset; /* of the field in struct config or struct config_root */
    const char *preset;
};

static const struct option options[] = {
#define OPTION(section, key, kind, field, preset, doc) \
    {#section, #key, KIND_##kind, offsetof(struct config, field), preset},
#define ROOT_OPTION(key, kind, field, preset, doc) \
    {NULL, #key, KIND_##kind, offsetof(struct config_root, field), preset},
#include "daemon/options.def"
#undef OPTION
#undef ROOT_OPTION
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

/* What one loading carries through inih's callback. */
struct loading {
    struct config *config;
    char *root_names[CONFIG_ROOTS_MAX];  /* owned; names of config->roots */
    char *root_places[CONFIG_ROOTS_MAX]; /* owned; "file:line" of their first mention */
    struct config_warning *warnings;     /* owned */
    size_t n_warnings;
    const char *file;
    struct ini_lines lines;
    struct qd_error *err;
    int result;
};

/* ---- values ------------------------------------------------------------------------------- */

static const struct unit ms_units[] = {
    {"ms", 1}, {"s", 1000}, {"min", 60000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};

/* A duration in units of @unit_ms; a bare 0 needs no unit, any other bare number is refused as ambiguous. */
static bool parse_duration(const char *text, uint64_t unit_ms, uint32_t *ret)
{
    uint64_t ms;
    if (strcmp(text, "0") == 0)
        ms = 0;
    else if (!units_parse(text, ms_units, &ms))
        return false;
    if (ms % unit_ms != 0 || ms / unit_ms > UINT32_MAX)
        return false;
    *ret = (uint32_t)(ms / unit_ms);
    return true;
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = {"yes", "on", "true", "1"}, *const no[] = {"no", "off", "false", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_level(const char *text, int *ret)
{
    static const char *const names[] = {"error", "warning", "notice", "info", "debug"};
    for (int i = 0; i < 5; i++) {
        if (strcasecmp(text, names[i]) == 0 || (text[0] == '3' + i && text[1] == '\0')) {
            *ret = 3 + i;
            return true;
        }
    }
    return false;
}

/* Absolute, without a trailing slash; "~/" is the user's home in user mode. */
static bool parse_path(const char *text, bool user_mode, char **ret)
{
    const char *home = getenv("HOME");
    char *path = NULL;
    if (text[0] == '/')
        path = strdup(text);
    else if (user_mode && home && strncmp(text, "~/", 2) == 0 && asprintf(&path, "%s/%s", home, text + 2) < 0)
        path = NULL;
    if (!path || strlen(path) >= PATH_MAX) {
        free(path);
        return false;
    }
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    free(*ret);
    *ret = path;
    return true;
}

static bool find_user(const char *name, uid_t *ret)
{
    uint32_t number;
    const struct passwd *pw = getpwnam(name);
    if (!pw && !units_count(name, &number))
        return false;
    *ret = pw ? pw->pw_uid : (uid_t)number;
    return true;
}

static bool find_group(const char *name, gid_t *ret)
{
    uint32_t number;
    const struct group *gr = getgrnam(name);
    if (!gr && !units_count(name, &number))
        return false;
    *ret = gr ? gr->gr_gid : (gid_t)number;
    return true;
}

/* Calls @take for every word of a list; false where one is refused. */
static bool each_word(const char *text, bool (*take)(const char *word, void *data), void *data)
{
    CLEANUP(free) char *copy = strdup(text);
    if (!copy)
        return false;
    char *rest = copy;
    for (char *word; (word = strsep(&rest, " ,\t"));)
        if (word[0] && !take(word, data))
            return false;
    return true;
}

static bool take_admin(const char *word, void *data)
{
    struct config *c = data;
    return c->n_admin_uids < CONFIG_UIDS_MAX && find_user(word, &c->admin_uids[c->n_admin_uids]) && ++c->n_admin_uids;
}

static bool take_allow(const char *word, void *data)
{
    struct config_root *root = data;
    if (strcmp(word, "all") == 0)
        return root->grant_all = true;
    if (strncmp(word, "user:", 5) == 0)
        return root->n_uids < CONFIG_UIDS_MAX && find_user(word + 5, &root->uids[root->n_uids]) && ++root->n_uids;
    if (strncmp(word, "group:", 6) == 0)
        return root->n_gids < CONFIG_UIDS_MAX && find_group(word + 6, &root->gids[root->n_gids]) && ++root->n_gids;
    return false;
}

static bool parse_scheme(const char *text, char **ret)
{
    enum scheme s;
    if (text[0] && scheme_parse(text, &s, NULL) < 0)
        return false;
    char *copy = text[0] ? strdup(text) : NULL;
    if (text[0] && !copy)
        return false;
    free(*ret);
    *ret = copy;
    return true;
}

static bool parse_features(const char *text, char **ret)
{
    char unknown[64];
    (void)cpu_filter(0, text, unknown, sizeof unknown);
    char *copy = unknown[0] || !text[0] ? NULL : strdup(text);
    if (text[0] && !copy)
        return false;
    free(*ret);
    *ret = copy;
    return true;
}

static const char *const kind_wants[] = {
    [KIND_SIZE] = "bytes such as 512M or 20G",
    [KIND_MS] = "a duration such as 500ms, 2s or 1min",
    [KIND_SECONDS] = "a duration of whole seconds such as 10s, 5min or 1h",
    [KIND_HOURS] = "a duration of whole hours such as 24h or 7d, or 0",
    [KIND_COUNT] = "a number",
    [KIND_BOOL] = "yes or no",
    [KIND_LEVEL] = "error, warning, notice, info or debug",
    [KIND_FEATURES] = "CPU features such as -avx512vnni",
    [KIND_PATH] = "an absolute path",
    [KIND_USERS] = "names or numbers of users that exist, 64 at most",
    [KIND_ALLOW] = "all, user:NAME or group:NAME of those that exist, 64 at most",
    [KIND_SCHEME] = "a scheme such as q8_0",
};

/* @base is the struct config or struct config_root. An empty value puts a list or path back to nothing. */
static bool set_value(const struct option *o, void *base, bool user_mode, const char *text)
{
    void *field = (char *)base + o->offset;
    switch (o->kind) {
    case KIND_SIZE:
        return units_size(text, field);
    case KIND_MS:
        return parse_duration(text, 1, field);
    case KIND_SECONDS:
        return parse_duration(text, 1000, field);
    case KIND_HOURS:
        return parse_duration(text, 3600000, field);
    case KIND_COUNT:
        return units_count(text, field);
    case KIND_BOOL:
        return parse_bool(text, field);
    case KIND_LEVEL:
        return parse_level(text, field);
    case KIND_FEATURES:
        return parse_features(text, field);
    case KIND_PATH:
        return text[0] == '\0' || parse_path(text, user_mode, field);
    case KIND_USERS:
        ((struct config *)base)->n_admin_uids = 0;
        return each_word(text, take_admin, base);
    case KIND_ALLOW: {
        struct config_root *root = base;
        root->grant_all = false;
        root->n_uids = root->n_gids = 0;
        return each_word(text, take_allow, root);
    }
    case KIND_SCHEME:
        return parse_scheme(text, field);
    }
    return false;
}

/* ---- one file ------------------------------------------------------------------------------ */

static void warn(struct loading *l, const char *what, const char *word, const char *const *known)
{
    struct config_warning *grown =
        l->n_warnings < CONFIG_WARNINGS_MAX ? reallocarray(l->warnings, l->n_warnings + 1, sizeof *grown) : NULL;
    if (!grown)
        return;
    l->warnings = grown;
    const char *near = nearest_name(word, known);
    (void)snprintf(grown[l->n_warnings++].text, sizeof grown->text, "%s:%u: unknown %s '%.64s' is ignored%s%s%s",
                   l->file, l->lines.line, what, word, near ? "; did you mean '" : "", near ? near : "",
                   near ? "'?" : "");
}

static void warn_section(struct loading *l, const char *section)
{
    static const char *const known[] = {"daemon", "watch", "cache", "jobs", "limits", "root NAME", NULL};
    warn(l, "section", section, known);
}

static void warn_key(struct loading *l, const char *section, const char *key)
{
    const char *known[N_OPTIONS + 1];
    size_t n = 0;
    for (size_t i = 0; i < N_OPTIONS; i++)
        if ((!section && !options[i].section) ||
            (section && options[i].section && strcmp(section, options[i].section) == 0))
            known[n++] = options[i].key;
    known[n] = NULL;
    warn(l, "key", key, known);
}

static bool section_known(const char *section)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].section && strcmp(options[i].section, section) == 0)
            return true;
    return false;
}

static const struct option *find_option(const char *section, const char *key)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        bool same = section ? o->section && strcmp(o->section, section) == 0 : !o->section;
        if (same && strcmp(o->key, key) == 0)
            return o;
    }
    return NULL;
}

static struct config_root *root_by_name(struct loading *l, const char *name)
{
    struct config *c = l->config;
    for (size_t i = 0; i < c->n_roots; i++)
        if (strcmp(l->root_names[i], name) == 0)
            return &c->roots[i];
    if (c->n_roots == CONFIG_ROOTS_MAX) {
        l->result = err_new(l->err, QD_E_CONFIG, "%s:%u: more than %d roots", l->file, l->lines.line, CONFIG_ROOTS_MAX);
        return NULL;
    }
    struct config_root *grown = reallocarray(c->roots, c->n_roots + 1, sizeof *grown);
    if (grown)
        c->roots = grown;
    char *copy = strdup(name), *place = NULL;
    if (!grown || !copy || asprintf(&place, "%s:%u", l->file, l->lines.line) < 0) {
        free(copy);
        l->result = err_new(l->err, QD_E_NO_MEMORY, "configuration");
        return NULL;
    }
    grown[c->n_roots] = (struct config_root){0};
    l->root_names[c->n_roots] = copy;
    l->root_places[c->n_roots] = place;
    return &grown[c->n_roots++];
}

static void apply(struct loading *l, const struct option *o, void *base, const char *text)
{
    if (base && !set_value(o, base, l->config->user_mode, text))
        l->result = err_new(l->err, QD_E_CONFIG, "%s:%u: %s = '%.200s': wanted %s", l->file, l->lines.line, o->key,
                            text, kind_wants[o->kind]);
}

static int on_pair(void *user, const char *section, const char *key, const char *value)
{
    struct loading *l = user;
    if (l->result < 0 || l->lines.too_long)
        return 1;

    bool is_root = strncmp(section, "root ", 5) == 0 && section[5 + strspn(section + 5, " ")] != '\0';
    if (!is_root && !section_known(section)) {
        warn_section(l, section);
        return 1;
    }
    const struct option *o = find_option(is_root ? NULL : section, key);
    if (!o)
        warn_key(l, is_root ? NULL : section, key);
    else if (is_root)
        apply(l, o, root_by_name(l, section + 5 + strspn(section + 5, " ")), value);
    else
        apply(l, o, l->config, value);
    return 1;
}

/* 1: read; 0: no such file. */
static int load_file(struct loading *l, const char *path, bool required)
{
    l->file = path;
    l->lines = (struct ini_lines){.stream = fopen(path, "re")};
    if (!l->lines.stream && errno == ENOENT && !required)
        return 0;
    if (!l->lines.stream) {
        (void)err_sys(l->err, errno, "configuration '%s'", path);
        if (l->err)
            l->err->code = QD_E_CONFIG;
        return QD_E_CONFIG;
    }
    int bad_line = ini_parse_stream(ini_lines_next, &l->lines, on_pair, l);
    (void)fclose(l->lines.stream); /* only read */
    l->lines.stream = NULL;
    if (l->result < 0)
        return l->result;
    if (l->lines.too_long)
        return err_new(l->err, QD_E_CONFIG, "%s:%u: line longer than %d bytes", path, l->lines.too_long,
                       INI_LINE_BYTES);
    if (bad_line > 0)
        return err_new(l->err, QD_E_CONFIG, "%s:%d: neither [section] nor key = value", path, bad_line);
    return bad_line < 0 ? err_new(l->err, QD_E_CONFIG, "cannot read configuration '%s'", path) : 1;
}

static int is_dropin(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: the order must not depend on the locale */
}

static int load_dropins(struct loading *l, const char *folder)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, is_dropin, by_name), r = 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (r >= 0 && i < CONFIG_DROPINS_MAX &&
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < (int)sizeof path)
            r = load_file(l, path, true);
        free(entries[i]);
    }
    free(entries);
    return r;
}

/* ---- folders and defaults -------------------------------------------------------------------- */

/* First folder of a systemd directory variable ("/a:/b"), else @preset. */
static char *systemd_folder(const char *variable, const char *preset)
{
    const char *value = getenv(variable);
    if (!value || value[0] != '/')
        return strdup(preset);
    return strndup(value, strcspn(value, ":"));
}

/* $@variable/quantd, else $HOME/@below/quantd. The XDG rules: a relative value is ignored. */
static char *xdg_folder(const char *variable, const char *below)
{
    const char *value = getenv(variable), *home = getenv("HOME");
    char *path = NULL;
    if (value && value[0] == '/')
        return asprintf(&path, "%s/quantd", value) < 0 ? NULL : path;
    if (!below || !home || home[0] != '/')
        return NULL;
    return asprintf(&path, "%s/%s/quantd", home, below) < 0 ? NULL : path;
}

static int set_folders(struct config *c, struct qd_error *err)
{
    c->state_dir = c->user_mode ? xdg_folder("XDG_STATE_HOME", ".local/state")
                                : systemd_folder("STATE_DIRECTORY", "/var/lib/quantd");
    c->cache_dir =
        c->user_mode ? xdg_folder("XDG_CACHE_HOME", ".cache") : systemd_folder("CACHE_DIRECTORY", "/var/cache/quantd");
    c->runtime_dir =
        c->user_mode ? xdg_folder("XDG_RUNTIME_DIR", NULL) : systemd_folder("RUNTIME_DIRECTORY", "/run/quantd");
    c->config_dir = c->user_mode ? xdg_folder("XDG_CONFIG_HOME", ".config") : strdup(QUANTD_SYSCONFDIR "/quantd");
    if (c->state_dir && c->cache_dir && c->runtime_dir && c->config_dir)
        return 0;
    (void)err_new(err, QD_E_CONFIG, "no place for %s: %s is not set",
                  c->user_mode && !c->runtime_dir ? "the socket" : "state and cache",
                  c->user_mode && !c->runtime_dir ? "XDG_RUNTIME_DIR" : "HOME");
    return err_hint(err, QD_E_CONFIG, "set XDG_RUNTIME_DIR to a folder of your own such as /run/user/1000");
}

static void set_presets(struct config *c)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].section)
            (void)set_value(&options[i], c, c->user_mode, options[i].preset); /* a test holds every preset valid */
}

/* Beside this program (a build tree), else where it is installed. */
static char *find_worker(void)
{
    static const char *const beside[] = {"quantd-worker", "worker/quantd-worker"};
    char exe[PATH_MAX], path[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    for (size_t i = 0; slash && i < sizeof beside / sizeof beside[0]; i++) {
        (void)snprintf(path, sizeof path, "%.*s/%s", (int)(slash - exe), exe, beside[i]);
        if (access(path, X_OK) == 0)
            return strdup(path);
    }
    return strdup(QUANTD_LIBEXECDIR "/quantd-worker");
}

static int finish(struct loading *l)
{
    struct config *c = l->config;
    for (size_t i = 0; i < c->n_roots; i++)
        if (!c->roots[i].path)
            return err_new(l->err, QD_E_CONFIG, "%s: [root %s] has no path", l->root_places[i], l->root_names[i]);
    if (!c->socket_path && asprintf(&c->socket_path, "%s/quantd.sock", c->runtime_dir) < 0)
        c->socket_path = NULL;
    if (!c->worker_path)
        c->worker_path = find_worker();
    return c->socket_path && c->worker_path ? 0 : err_new(l->err, QD_E_NO_MEMORY, "configuration");
}

static int load_all(struct loading *l, const char *extra_file)
{
    int r = set_folders(l->config, l->err);
    if (r < 0)
        return r;
    set_presets(l->config);

    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/quantd.conf.d", l->config->config_dir) >= (int)sizeof path)
        return err_new(l->err, QD_E_CONFIG, "the path of the configuration is too long");
    char *end = strrchr(path, '.');
    *end = '\0';
    r = load_file(l, path, false);
    *end = '.';
    if (r >= 0)
        r = load_dropins(l, path);
    if (r >= 0 && extra_file)
        r = load_file(l, extra_file, true);
    return r < 0 ? r : finish(l);
}

int config_load(bool user_mode, const char *extra_file, struct config **ret, struct config_warning **ret_warnings,
                size_t *ret_n_warnings, struct qd_error *err)
{
    struct loading l = {.config = calloc(1, sizeof *l.config), .err = err};
    if (!l.config)
        return err_new(err, QD_E_NO_MEMORY, "configuration");
    l.config->user_mode = user_mode;

    int r = load_all(&l, extra_file);
    for (size_t i = 0; i < l.config->n_roots; i++) {
        free(l.root_names[i]);
        free(l.root_places[i]);
    }
    if (r < 0) {
        (void)config_free(l.config);
        free(l.warnings);
        return r;
    }
    *ret = l.config;
    *ret_warnings = l.warnings;
    *ret_n_warnings = l.n_warnings;
    return 0;
}

struct config *config_free(struct config *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n_roots; i++) {
        free(c->roots[i].path);
        free(c->roots[i].warm);
    }
    free(c->roots);
    free(c->state_dir);
    free(c->cache_dir);
    free(c->runtime_dir);
    free(c->config_dir);
    free(c->socket_path);
    free(c->worker_path);
    free(c->hardware_path);
    free(c->cpu);
    free(c);
    return NULL;
}
