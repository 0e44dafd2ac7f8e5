#include "tests/kernels/fixture.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu.h"

enum { GUARD = 0xa5 };

static int n_tests, n_failed;
static const char *running_op = "", *running_variant = "";

void report(bool ok, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("%sok %d - ", ok ? "" : "not ", ++n_tests);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    n_failed += !ok;
}

int report_end(void)
{
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}

/* A fence was touched: whose fault it was, as TAP says it; the plan is then missing. */
static void on_fault(int signal_number)
{
    char text[256];
    const int n = snprintf(text, sizeof text, "not ok %d - %s %s: signal %d, memory outside its operands\n",
                           n_tests + 1, running_op, running_variant, signal_number);
    (void)!write(STDOUT_FILENO, text, (size_t)n); /* there is no other way to say it */
    _exit(1);
}

struct check_options check_begin(int argc, char **argv)
{
    struct check_options o = {.word = ""};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--short") == 0)
            o.brief = true;
        else
            o.word = argv[i];
    }
    char text[512];
    (void)cpu_features_string(cpu_features_detected(), text, sizeof text); /* for people */
    setvbuf(stdout, NULL, _IOLBF, 0);                                      /* what was tried before a crash is seen */
    printf("# %s: %s\n", cpu_name(), text);
#ifdef __SANITIZE_ADDRESS__ /* which says more */
    (void)on_fault;
#else
    (void)signal(SIGSEGV, on_fault); /* cannot fail */
#endif
    return o;
}

bool check_wanted(const struct check_options *o, const char *op, const char *variant, uint64_t needs)
{
    const uint64_t missing = needs & ~cpu_features_detected();
    char text[512];
    running_op = op;
    running_variant = variant;
    if (!strstr(op, o->word))
        return false;
    if (missing) {
        (void)cpu_features_string(missing, text, sizeof text); /* for people */
        printf("# left out: %s %s (this CPU lacks %s)\n", op, variant, text);
    }
    return !missing;
}

uint8_t *fenced(void)
{
    uint8_t *p = mmap(NULL, ROOM + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE) < 0 || mprotect(p + PAGE + ROOM, PAGE, PROT_NONE) < 0) {
        perror("mmap");
        exit(1);
    }
    return p + PAGE;
}

uint8_t *place_last(uint8_t *room, size_t bytes, size_t from_end)
{
    if (bytes + from_end > ROOM)
        abort(); /* the room is too small for this trial */
    return room + ROOM - from_end - bytes;
}

uint8_t *place_first(uint8_t *room, size_t from_start)
{
    return room + from_start;
}

static size_t at_most_guard(ptrdiff_t room)
{
    return room > GUARD_BYTES ? GUARD_BYTES : (size_t)room;
}

void guard(uint8_t *room, uint8_t *out, size_t bytes)
{
    const size_t before = at_most_guard(out - room), after = at_most_guard(room + ROOM - (out + bytes));
    memset(out - before, GUARD, before);
    memset(out + bytes, GUARD, after);
}

bool is_guarded(const uint8_t *room, const uint8_t *out, size_t bytes)
{
    const size_t before = at_most_guard(out - room), after = at_most_guard(room + ROOM - (out + bytes));
    for (size_t i = 0; i < before; i++)
        if (out[-1 - (ptrdiff_t)i] != GUARD)
            return false;
    for (size_t i = 0; i < after; i++)
        if (out[bytes + i] != GUARD)
            return false;
    return true;
}

void one_nan(void *floats, size_t n)
{
    uint8_t *out = floats;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, out + 4 * i, 4);
        if ((bits & 0x7fffffff) > 0x7f800000)
            memcpy(out + 4 * i, &(uint32_t){0x7fc00000}, 4);
    }
}

/*
 * Digests of what each operation makes of all kinds of data. They are facts of the formats: the
 * same on every architecture and with every compiler. A change here changes artifacts.
 */
static const struct {
    const char *op;
    uint64_t digest;
} golden[] = {
#include "tests/kernels/golden.inc"
};

void check_golden(const char *op, const char *variant, uint64_t digest)
{
    uint64_t want = 0;
    for (size_t i = 0; i < COUNT(golden); i++)
        if (strcmp(golden[i].op, op) == 0)
            want = golden[i].digest;
    if (digest != want)
        printf("# {\"%s\", UINT64_C(0x%016llx)},\n", op, (unsigned long long)digest);
    report(digest == want, "%s %s: digest", op, variant);
}
