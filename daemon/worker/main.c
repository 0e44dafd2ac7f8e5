/* quantd-worker: quantizes or packs one model. By hand with --direct, --pack, --unpack; the daemon starts it with
 * descriptors only. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/worker/control.h"
#include "daemon/worker/direct.h"

static const struct {
    const char *option;
    enum direct_verb verb;
} direct_forms[] = {{"--direct", DIRECT_QUANTIZE}, {"--pack", DIRECT_PACK}, {"--unpack", DIRECT_UNPACK}};

int main(int argc, char **argv)
{
    const char *form = argc > 1 ? argv[1] : "";
    if (argc > 1)
        argv[1] = argv[0];
    for (size_t i = 0; i < sizeof direct_forms / sizeof direct_forms[0]; i++)
        if (strcmp(form, direct_forms[i].option) == 0)
            return direct_main(direct_forms[i].verb, argc - 1, argv + 1);
#if QUANTD_HAVE_CONTROL
    if (strcmp(form, "--control") == 0)
        return control_main(argc - 1, argv + 1);
#endif
    fprintf(stderr, "usage: quantd-worker --direct IN OUT [--scheme S] [--pure] ...\n"
                    "       quantd-worker --pack IN OUT [--layout L] ...\n"
                    "       quantd-worker --unpack IN OUT ...\n");
    return EX_USAGE;
}
