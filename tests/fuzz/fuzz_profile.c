/* Input: the text of a hardware profile. What parses is a machine whose features print and read back. */
#include <stdlib.h>
#include <string.h>

#include "daemon/profile.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char text[2 * PROFILE_BYTES] = "", features[512];
    struct profile p, again;
    struct qd_error err;
    if (n_bytes >= sizeof text)
        return 0;
    memcpy(text, data, n_bytes);
    if (profile_parse(text, &p, &err) < 0)
        return 0;
    (void)cpu_features_string_of(p.architecture, p.features, features, sizeof features); /* all names fit */
    if (cpu_features_read(features, &again.architecture, &again.features, &err) < 0 ||
        again.architecture != p.architecture || again.features != p.features || p.memory_bytes == 0)
        abort();
    return 0;
}

static void use_text(const char *text, fuzz_use *use, void *data)
{
    use((struct bytes){(const uint8_t *)text, strlen(text)}, data);
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    use_text("# a board\nname = Raspberry Pi 5\nfeatures = aarch64+dotprod+fp16+neon\nmemory = 8 GiB\ncores = 4\n", use,
             data);
    use_text("features = x86_64+amxint8+avx512vnni\nmemory = 549755813888", use, data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static const char *const texts[] = {"[x]\nfeatures = x86_64\n",
                                        "features : +\nmemory = 1G",
                                        "\357\273\277name=\n",
                                        "memory=18446744073709551615T\n",
                                        "=\n",
                                        "[\n",
                                        "\r\n\r\n",
                                        ";\n#\n = "};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        use_text(texts[i], use, data);
}
