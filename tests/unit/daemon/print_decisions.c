/*
 * Prints what auto decides for the machines of a folder of hardware profiles and models of five sizes. A test compares
 * it with tests/golden/policy.txt; where that should change, say why in the commit and renew it with
 * build/tests/unit/daemon/print_decisions tests/data/profiles > tests/golden/policy.txt
 */
#include <stdio.h>
#include <string.h>

#include "daemon/profile.h"
#include "quant/policy.h"

static const char *const machines[] = {
    "cortex-a53", "cortex-a72", "cortex-a76", "i8mm",     "x86-64",          "zen4-container",
    "haswell",    "alder-lake", "skylake-x",  "ice-lake", "sapphire-rapids",
};

/* Elements of matrices as published; sources of f16. */
static const struct {
    const char *name;
    uint64_t n_elements;
} models[] = {
    {"0.5B", 494032768},  /* Qwen 2.5 0.5B */
    {"1B", 1235814400},   /* Llama 3.2 1B */
    {"3B", 3212749824},   /* Llama 3.2 3B */
    {"8B", 8030261248},   /* Llama 3.1 8B */
    {"70B", 70553706496}, /* Llama 3.1 70B */
};

static int read_profile(const char *folder, const char *machine, struct profile *ret)
{
    char path[4096], text[PROFILE_BYTES];
    struct qd_error err;
    (void)snprintf(path, sizeof path, "%s/%s.hw", folder, machine); /* a cut name is missing */
    FILE *f = fopen(path, "r");
    if (!f)
        return printf("%s is missing\n", path), -1;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    (void)fclose(f); /* only read */
    int r = profile_parse(text, ret, &err);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", path, err.message);
    return r;
}

static void print_decision(const struct policy_facts *facts, const char *model)
{
    struct recipe asked = {0}, recipe;
    char why[POLICY_WHY_MAX], why_layout[POLICY_WHY_MAX];
    policy_resolve(&asked, facts, &recipe, why);
    enum qd_layout layout = policy_layout(&recipe, facts, why_layout);
    printf("  %-5s %-7s %-10s %s\n%27s%s\n", model, scheme_name(recipe.scheme), qd_layout_info(layout)->name, why, "",
           why_layout);
}

static void print_machine(const struct profile *p, const char *machine)
{
    char features[256];
    (void)cpu_features_string_of(p->architecture, p->features, features, sizeof features); /* all names fit */
    printf("%s: %s, %s, %llu MiB, %u cores\n", machine, p->name, features, (unsigned long long)(p->memory_bytes >> 20),
           p->cores);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        const struct policy_facts facts = {
            .memory_bytes = p->memory_bytes, .model_bytes = models[i].n_elements * 2, .cpu_features = p->features};
        print_decision(&facts, models[i].name);
    }
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof machines / sizeof machines[0]; i++) {
        struct profile profile;
        if (read_profile(argv[1], machines[i], &profile) < 0)
            return 1;
        print_machine(&profile, machines[i]);
    }
    return argc == 2 ? 0 : 64;
}
