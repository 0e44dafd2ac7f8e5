/* quantd-worker: quantizes one model. By hand with --direct; the daemon starts it with descriptors only. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/worker/control.h"
#include "daemon/worker/direct.h"

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--direct") == 0) {
        argv[1] = argv[0];
        return direct_main(argc - 1, argv + 1);
    }
#if QUANTD_HAVE_CONTROL
    if (argc > 1 && strcmp(argv[1], "--control") == 0) {
        argv[1] = argv[0];
        return control_main(argc - 1, argv + 1);
    }
#endif
    fprintf(stderr, "usage: quantd-worker --direct IN OUT [--scheme S] [--pure] ...\n");
    return EX_USAGE;
}
