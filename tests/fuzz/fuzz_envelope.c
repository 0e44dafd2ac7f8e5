/* Input: an envelope. What decodes must encode to the same bytes, and is trusted by nobody here. */
#include <stdlib.h>
#include <string.h>

#include "artifact/envelope.h"
#include "tests/fuzz/fuzz.h"

/* One trusted key, whose id the seed bears: signatures are really checked. */
static const struct public_key trusted = {{7, 7, 7}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(keyring_free) struct keyring *k = keyring_new();
    CLEANUP(buffer_clear) struct buffer again = {0};
    struct envelope e;
    struct qd_error err;
    if (!k || keyring_trust(k, &trusted, &err) < 0 || envelope_decode((struct bytes){data, n_bytes}, &e, &err) < 0)
        return 0;
    if (envelope_encode(&e, &again, &err) == 0 && (again.n != n_bytes || memcmp(again.data, data, n_bytes) != 0))
        abort();
    if (envelope_verify(&e, k, &err) == 0)
        abort();
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer raw = {0};
    struct envelope e = {.manifest = {(const uint8_t *)"a manifest", 10}, .signature = {1, 2, 3}};
    if (key_id_of(&trusted, &e.key_id) < 0 || envelope_encode(&e, &raw, NULL) < 0)
        abort();
    use(buffer_span(&raw), data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    static const uint8_t lying_bin[] = {0x83, 0xa8, 'm',  'a',  'n',  'i',  'f', 'e',
                                        's',  't',  0xc6, 0xff, 0xff, 0xff, 0xff};
    use((struct bytes){lying_bin, sizeof lying_bin}, data);
}
