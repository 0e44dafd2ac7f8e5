/* Input: an importance matrix, in either form. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/importance.h"
#include "tests/data/bad/bad_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check(const struct importance *i)
{
    must(i->n_entries > 0);
    for (size_t k = 0; k < i->n_entries; k++) {
        const struct importance_entry *e = &i->entries[k];
        size_t n;
        must(e->name[0] && e->n > 0 && (e->n_counts == 0 || e->n % e->n_counts == 0));
        must(k == 0 || strcmp(i->entries[k - 1].name, e->name) < 0);
        must(importance_of(i, e->name, &n) == e->values && n == e->n);
        for (size_t v = 0; v < e->n; v++)
            must(isfinite(e->values[v]) && e->values[v] >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(source_free) struct source *s = source_of_bytes((struct bytes){data, n_bytes}, "x.imatrix");
    CLEANUP(importance_free) struct importance *i = NULL;
    struct qd_error err = {0};
    if (!s)
        return 0;
    int r = importance_read(s, 0, FUZZ_BUDGET_BYTES, &i, &err);
    if (r == 0)
        check(i);
    must(r == 0 || r == QD_E_CORRUPT || r == QD_E_UNSUPPORTED || r == QD_E_LIMIT);
    must(r == 0 || (err.code == r && err.message[0] && err.hint[0]));
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    CLEANUP(buffer_clear) struct buffer gguf = {0}, dat = {0};
    good_imatrix_gguf(&gguf);
    good_imatrix_dat(&dat);
    use(buffer_span(&gguf), data);
    use(buffer_span(&dat), data);
}

struct forward {
    fuzz_use *use;
    void *data;
};

static void forward_one(const struct bad_file *f, void *data)
{
    const struct forward *to = data;
    to->use(f->content, to->data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    bad_imatrix_files(forward_one, &(struct forward){use, data});
}
