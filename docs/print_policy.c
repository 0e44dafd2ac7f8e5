/*
 * Prints docs/policy.md from quant/policy.def. Built and run by `ninja docs-policy`; a test compares the committed page.
 */
#include <stdint.h>
#include <stdio.h>

#include "kernels/cpu.h"
#include "quant/policy.h"

static const char introduction[] =
    "# What auto decides by\n\n"
    "Printed from quant/policy.def by docs/print_policy.c; `ninja -C build docs-policy` renews it and a test compares. "
    "This is table %d; `quantctl plan` and `quantctl open` name the table and the rule they went by. Why these and not "
    "others: adr/0017-what-auto-decides-by.md. What they give for ten machines and five models: "
    "tests/golden/policy.txt.\n\n"
    "Facts are the CPU's features, memory (MemTotal or the limit of the control group, whichever is less), the weights "
    "of "
    "the model (its elements, or half the bytes of its source), and the budget of the cache. Free memory, load and "
    "clocks "
    "are none: the same machine and model give the same answer.\n\n";

static const char pace_and_room[] =
    "*Pace*: one token reads every weight once, so it takes at least their bytes over the bandwidth of memory. Weights "
    "that stay within the machine's share of memory give text at about the pace of reading. *Room*: activations, "
    "caches "
    "and other programs want a third of memory.\n\n";

static void print_features(uint64_t needs)
{
    char text[256];
    (void)cpu_features_string(needs, text, sizeof text); /* all names fit */
    if (needs)
        printf("`%s`", text);
}

static void print_machines(void)
{
    printf("## Machines\n\nThe first whose features are all there.\n\n| machine | features | pace | why |\n"
           "|---|---|---|---|\n");
#define MACHINE(name, needs, part, of, facts) \
    printf("| %s | ", name);                  \
    print_features(needs);                    \
    printf(" | %d/%d of memory | %s |\n", part, of, facts);
#include "quant/policy.def"
}

static void print_schemes(void)
{
    static const char *const within[] = {"pace: the machine's share", "room: two thirds of memory", "always"};
    enum { PACE, ROOM, ANY };
    printf("\n## Schemes\n\nThe first whose weights fit. A scheme that is named is taken as it is.\n\n");
    fputs(pace_and_room, stdout);
    printf("| scheme | bits per weight | perplexity of Llama 3 8B rises by | fits within | |\n|---|---|---|---|---|\n");
#define SCHEME(NAME, milli_bpw, loss, fits, facts)                                                                  \
    printf("| %s | %d.%03d | %s | %s | %s |\n", scheme_name(SCHEME_##NAME), (milli_bpw) / 1000, (milli_bpw) % 1000, \
           loss, within[fits], facts);
#include "quant/policy.def"
}

static void print_layouts(void)
{
    printf(
        "\n## Layouts\n\n`auto` is the layout that formats/packed.md gives to the CPU's features, and `portable` where "
        "one of these holds:\n\n");
#define PORTABLE(test, why) printf("- %s\n", why);
#include "quant/policy.def"
}

static void print_codes(void)
{
    printf("\n## ONNX models\n\n`auto` is `int8`: the form that suits the model and the CPU "
           "(formats/onnx-quantized.md). The first line whose features are all there gives the bits of a weight's code "
           "that meets codes, and how many times as fast as with floats products with codes are taken to be.\n\n"
           "| features | bits | times as fast | |\n|---|---|---|---|\n");
#define CODES(needs, bits, speed, facts) \
    printf("| ");                        \
    print_features(needs);               \
    printf(" | %d | %d.%d | %s |\n", bits, (speed) / 10, (speed) % 10, facts);
#include "quant/policy.def"
}

int main(void)
{
    printf(introduction, POLICY_VERSION);
    print_machines();
    print_schemes();
    print_layouts();
    print_codes();
    return 0;
}
