/*
 * peer_perplexity [--fd-from-path] TEXT MODEL...: perplexity of the text under each model, by the peer.
 * The text is cut into windows of 255 tokens, each read after <s>; f64 sums; one thread. One line per model:
 * MODEL, tokens, perplexity. Two files with the same weights give the same digits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/peers/peer.h"

enum { WINDOW = 256 };

struct text {
    char *data;
    size_t bytes;
};

static struct text read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        peer_die("cannot read '%s'", path);
    long bytes = ftell(file);
    rewind(file);
    struct text text = {.data = malloc((size_t)bytes + 1), .bytes = (size_t)bytes};
    if (!text.data || fread(text.data, 1, text.bytes, file) != text.bytes)
        peer_die("cannot read '%s'", path);
    (void)fclose(file); /* was only read */
    return text;
}

/* -log p(@token) under @logits of @n entries. */
static double surprise(const float *logits, int n, llama_token token)
{
    double highest = logits[0], sum = 0;
    for (int i = 1; i < n; i++)
        if ((double)logits[i] > highest)
            highest = (double)logits[i];
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - highest);
    return highest + log(sum) - (double)logits[token];
}

/* Sum of surprises of @n tokens (at most WINDOW - 1) after <s>. */
static double read_window(const struct peer *p, struct llama_context *context, struct llama_batch *batch,
                          const struct llama_vocab *vocab, const llama_token *tokens, int n)
{
    llama_token fed[WINDOW];
    fed[0] = p->llama_vocab_bos(vocab);
    for (int i = 0; i < n; i++)
        fed[i + 1] = tokens[i];
    p->llama_memory_clear(p->llama_get_memory(context), true);
    peer_feed(p, context, batch, fed, n, 0);
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += surprise(p->llama_get_logits_ith(context, i), p->llama_vocab_n_tokens(vocab), fed[i + 1]);
    return sum;
}

static void judge(const struct peer *p, const struct text *text, const char *name, const char *path)
{
    struct llama_model *model = peer_model(p, path);
    struct llama_context *context = peer_context(p, model, WINDOW);
    const struct llama_vocab *vocab = p->llama_model_get_vocab(model);
    struct llama_batch batch = p->llama_batch_init(WINDOW, 0, 1);
    int n_tokens;
    llama_token *tokens = peer_tokenize(p, vocab, text->data, text->bytes, &n_tokens);

    double sum = 0;
    for (int at = 0; at < n_tokens; at += WINDOW - 1) {
        int n = n_tokens - at < WINDOW - 1 ? n_tokens - at : WINDOW - 1;
        sum += read_window(p, context, &batch, vocab, tokens + at, n);
    }
    printf("%s tokens %d perplexity %.6f\n", name, n_tokens, exp(sum / n_tokens));

    free(tokens);
    p->llama_batch_free(batch);
    p->llama_free(context);
    p->llama_model_free(model);
}

int main(int argc, char **argv)
{
    bool by_descriptor = peer_option(&argc, argv, "--fd-from-path");
    if (argc < 3)
        peer_die("usage: peer_perplexity [--fd-from-path] TEXT MODEL...");
    struct peer p;
    peer_load(&p);
    struct text text = read_text(argv[1]);
    for (int i = 2; i < argc; i++)
        judge(&p, &text, argv[i], peer_path(argv[i], by_descriptor));
    free(text.data);
    return EXIT_SUCCESS;
}
