/* Prints quantd.conf(5): the template's @OPTIONS@ replaced by what daemon/options.def says. */
#include <stdio.h>
#include <string.h>

struct option_doc {
    const char *section, *key, *kind, *value, *doc;
};

/* clang-format off */
static const struct option_doc options[] = {
#define OPTION(section, key, kind, field, value, doc) {#section, #key, #kind, value, doc},
#define ROOT_OPTION(key, kind, field, value, doc) {"root NAME", #key, #kind, value, doc},
#include "daemon/options.def"
#undef OPTION
#undef ROOT_OPTION
};
/* clang-format on */

/* scdoc gives meaning to some characters: a backslash before them takes it away. */
static void print_escaped(const char *text)
{
    for (; *text; text++) {
        if (strchr("_*\\#[]", *text))
            putchar('\\');
        putchar(*text);
    }
}

static void print_options(void)
{
    const char *section = "";
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        const struct option_doc *o = &options[i];
        if (strcmp(o->section, section) != 0) {
            printf("# [%s]\n\n", o->section);
            section = o->section;
        }
        putchar('*');
        print_escaped(o->key);
        printf("* = ");
        print_escaped(o->value[0] ? o->value : "(none)");
        printf("\n\t");
        print_escaped(o->doc);
        printf("\n\n");
    }
}

int main(int argc, char **argv)
{
    FILE *template = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!template) {
        fputs("usage: print_options quantd.conf.5.scd.in\n", stderr);
        return 1;
    }
    char line[1024];
    while (fgets(line, sizeof line, template))
        if (strcmp(line, "@OPTIONS@\n") == 0)
            print_options();
        else
            fputs(line, stdout);
    fclose(template);
    return 0;
}
