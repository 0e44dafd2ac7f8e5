#include "quant/tensor_rules.h"

#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_BYTES = TENSOR_PATTERN_MAX + 40 /* "--tensor '...=iq4_xs'" */ };

/* --- what a pattern may be --- */

static int refuse_pattern(const char *pattern, const char *why, const char *hint, struct qd_error *err)
{
    int r = err_new(err, QD_E_INVALID, "pattern '%.80s': %s", pattern, why);
    return err_hint(err, r, "%s", hint);
}

/* What other programs' expressions have and POSIX reads as something else: better refused than never matching. */
static int check_dialect(const char *pattern, struct qd_error *err)
{
    if (!pattern[0])
        return refuse_pattern(pattern, "is empty", "'.' matches every name", err);
    if (strstr(pattern, "(?"))
        return refuse_pattern(pattern, "'(?' has no meaning in POSIX extended regular expressions",
                              "groups are (...), and the first rule that matches holds", err);
    for (const char *at = strchr(pattern, '\\'); at && at[1]; at = strchr(at + 2, '\\'))
        if (isalnum((unsigned char)at[1]))
            return refuse_pattern(pattern, "a backslash before a letter or digit has no meaning in POSIX",
                                  "write [0-9] for \\d, [A-Za-z0-9_] for \\w", err);
    return 0;
}

/* At most how large the compiled form is: "+" doubles what it stands behind, {m,n} makes n copies of it. */
static unsigned long work_of(const char *pattern)
{
    unsigned long work = strlen(pattern);
    for (const char *at = pattern; *at && work <= TENSOR_PATTERN_WORK_MAX; at++) {
        if (*at == '\\' && at[1])
            at++;
        else if (*at == '+')
            work *= 2;
        else if (*at == '{' || (*at == ',' && isdigit((unsigned char)at[1])))
            work *= 1 + strtoul(at + 1, NULL, 10) % (1u << 16);
    }
    return work;
}

/* The C library's compiler trusts its input: what takes it seconds or gigabytes is refused before. */
static int check_pattern(const char *pattern, struct qd_error *err)
{
    if (strlen(pattern) > TENSOR_PATTERN_MAX)
        return err_new(err, QD_E_LIMIT, "pattern '%.40s...' is longer than %d bytes", pattern, TENSOR_PATTERN_MAX);
    int r = check_dialect(pattern, err);
    if (r < 0)
        return r;
    if (work_of(pattern) > TENSOR_PATTERN_WORK_MAX) {
        r = err_new(err, QD_E_LIMIT,
                    "pattern '%.80s': its length, doubled by each + and multiplied by each {n}, passes %d", pattern,
                    TENSOR_PATTERN_WORK_MAX);
        return err_hint(err, r, "write * for +, or use several rules");
    }
    return 0;
}

static int compile(const char *pattern, regex_t *ret, struct qd_error *err)
{
    char why[128];
    int code = regcomp(ret, pattern, REG_EXTENDED | REG_NOSUB);
    if (code == 0)
        return 0;
    (void)regerror(code, ret, why, sizeof why);
    return refuse_pattern(pattern, why, "see regex(7); a dot as itself is \\.", err);
}

/* --- canonical text --- */

/* @dst[3 * strlen + 1]. */
static void escape(const char *pattern, char *dst)
{
    for (const unsigned char *at = (const unsigned char *)pattern; *at; at++)
        if (*at > 0x20 && *at < 0x7f && *at != '%')
            *dst++ = (char)*at;
        else
            dst += sprintf(dst, "%%%02X", *at); /* three bytes */
    *dst = 0;
}

void tensor_rules_unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        unsigned byte;
        bool escaped = *at == '%' && at[1] && at[2] && sscanf(at + 1, "%2X", &byte) == 1;
        *to++ = escaped ? (char)byte : *at;
        at += escaped ? 2 : 0;
    }
    *to = 0;
}

static int refuse_room(const char *pattern, struct qd_error *err)
{
    int r = err_new(err, QD_E_LIMIT, "pattern '%.80s' is one rule too many: there may be %d, of %d bytes together",
                    pattern, TENSOR_RULES_MAX, RECIPE_RULES_BYTES - 1);
    return err_hint(err, r, "one pattern may name several parts: ffn_(up|gate)");
}

static unsigned count_rules(const char *rules)
{
    unsigned n = 0;
    for (; *rules; rules++)
        n += *rules == ' ';
    return n;
}

int tensor_rules_add(char *rules, const char *pattern, const char *type, struct qd_error *err)
{
    char escaped[3 * TENSOR_PATTERN_MAX + 1], rule[RECIPE_RULES_BYTES];
    enum qd_type target = QD_TYPE_F32;
    regex_t regex;
    int r = check_pattern(pattern, err);
    if (r == 0 && type)
        r = target_type_parse(type, &target, err);
    if (r == 0)
        r = compile(pattern, &regex, err);
    if (r < 0)
        return r;
    regfree(&regex);
    escape(pattern, escaped);
    int n = type ? snprintf(rule, sizeof rule, " tensor=%s=%s", escaped, qd_type_info(target)->name)
                 : snprintf(rule, sizeof rule, " keep=%s", escaped);
    if ((size_t)n + strlen(rules) >= RECIPE_RULES_BYTES || count_rules(rules) >= TENSOR_RULES_MAX)
        return refuse_room(pattern, err);
    (void)strcat(rules, rule); /* fits, as just seen */
    return 0;
}

/* One rule of the text. */
struct parsed {
    char pattern[3 * TENSOR_PATTERN_MAX + 1]; /* room for it escaped */
    bool keep;
    enum qd_type type;
};

/* The rule at *@at, which moves behind it; false at the end. The text is tensor_rules_add's, so it is sound. */
static bool next_rule(const char **at, struct parsed *ret)
{
    if (**at != ' ')
        return false;
    const char *key = *at + 1, *end = key + strcspn(key, " "), *pattern = strchr(key, '=') + 1, *type = end;
    char name[16] = "";
    ret->keep = strncmp(key, "keep=", 5) == 0;
    while (!ret->keep && *--type != '=')
        continue;
    (void)snprintf(ret->pattern, sizeof ret->pattern, "%.*s", (int)(type - pattern), pattern); /* fits */
    tensor_rules_unescape(ret->pattern);
    if (!ret->keep)
        (void)snprintf(name, sizeof name, "%.*s", (int)(end - type - 1), type + 1); /* fits: a type */
    int found = qd_type_by_name(name);
    ret->type = found < 0 ? QD_TYPE_F32 : (enum qd_type)found;
    *at = end;
    return true;
}

uint64_t tensor_rules_types(const char *rules)
{
    struct parsed rule;
    uint64_t types = 0;
    while (next_rule(&rules, &rule))
        types |= rule.keep ? 0 : 1ull << rule.type;
    return types;
}

/* --- compiled --- */

struct compiled {
    struct tensor_rule rule;
    regex_t regex;
    bool matched;
};

struct tensor_rules {
    size_t n;
    struct compiled items[TENSOR_RULES_MAX];
};

static const char *shown(const struct parsed *rule, struct arena *arena)
{
    char text[SHOWN_BYTES];
    int n = snprintf(text, sizeof text, "--%s '%s%s%s'", rule->keep ? "keep" : "tensor", rule->pattern,
                     rule->keep ? "" : "=", rule->keep ? "" : qd_type_info(rule->type)->name); /* fits */
    return arena_text(arena, (struct bytes){(const uint8_t *)text, (size_t)n});
}

int tensor_rules_compile(const char *rules, struct arena *arena, struct tensor_rules **ret, struct qd_error *err)
{
    CLEANUP(tensor_rules_free) struct tensor_rules *t = calloc(1, sizeof *t);
    struct parsed parsed;
    if (!t)
        return err_new(err, QD_E_NO_MEMORY, "rules");
    while (t->n < TENSOR_RULES_MAX && next_rule(&rules, &parsed)) {
        struct compiled *c = &t->items[t->n];
        c->rule = (struct tensor_rule){parsed.keep, parsed.type, shown(&parsed, arena)};
        int r = c->rule.text ? compile(parsed.pattern, &c->regex, err) : err_new(err, QD_E_NO_MEMORY, "rules");
        if (r < 0)
            return r;
        t->n++;
    }
    *ret = steal(&t);
    return 0;
}

struct tensor_rules *tensor_rules_free(struct tensor_rules *r)
{
    for (size_t i = 0; r && i < r->n; i++)
        regfree(&r->items[i].regex);
    free(r);
    return NULL;
}

const struct tensor_rule *tensor_rules_match(struct tensor_rules *r, const char *name)
{
    const struct tensor_rule *first = NULL;
    for (size_t i = 0; i < r->n; i++) {
        struct compiled *c = &r->items[i];
        if ((first && c->matched) || regexec(&c->regex, name, 0, NULL, 0) != 0)
            continue;
        c->matched = true;
        first = first ? first : &c->rule;
    }
    return first;
}

const struct tensor_rule *tensor_rules_unused(const struct tensor_rules *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (!r->items[i].matched)
            return &r->items[i].rule;
    return NULL;
}
