/*
 * peer_chat [--fd-from-path] MODEL PROMPT N: N greedy tokens after the prompt, by the peer, never ending early. A line
 * each: the likeliest token, its logit, the next one, its logit; as `chat --trace` of client/examples writes them. Then
 * a line "made N tokens, R per second". One thread, f32 keys and values, no flash attention.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/peers/peer.h"

struct two {
    int first, second;
};

/* The two largest; of equals the lower number first. */
static struct two likeliest(const float *logits, int n)
{
    struct two t = {.first = 0, .second = -1};
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[t.first])
            t = (struct two){.first = i, .second = t.first};
        else if (t.second < 0 || logits[i] > logits[t.second])
            t.second = i;
    return t;
}

/* The prompt's tokens as the model wants them, <s> before them; malloc'ed, with room for @n_more. */
static llama_token *read_prompt(const struct peer *p, const struct llama_vocab *vocab, const char *text, int n_more,
                                int *ret_n)
{
    llama_token *tokens = peer_tokenize(p, vocab, text, strlen(text), ret_n);
    llama_token *fed = calloc((size_t)(*ret_n + 1 + n_more), sizeof *fed);
    if (!fed)
        peer_die("out of memory");
    fed[0] = p->llama_vocab_bos(vocab);
    memcpy(fed + 1, tokens, (size_t)*ret_n * sizeof *tokens);
    ++*ret_n;
    free(tokens);
    return fed;
}

static void chat(const struct peer *p, struct llama_model *model, const char *prompt, int n_more)
{
    const struct llama_vocab *vocab = p->llama_model_get_vocab(model);
    int n, n_vocab = p->llama_vocab_n_tokens(vocab);
    llama_token *fed = read_prompt(p, vocab, prompt, n_more, &n);
    struct llama_context *context = peer_context(p, model, (unsigned)(n + n_more));
    struct llama_batch batch = p->llama_batch_init(n + n_more, 0, 1);
    peer_feed(p, context, &batch, fed, n, 0);
    double start = peer_seconds();
    for (int i = 0, at = n - 1; i < n_more; i++, at = 0) {
        const float *logits = p->llama_get_logits_ith(context, at);
        struct two best = likeliest(logits, n_vocab);
        printf("%d %.9g %d %.9g\n", best.first, (double)logits[best.first], best.second, (double)logits[best.second]);
        if (i + 1 < n_more)
            peer_feed(p, context, &batch, &best.first, 1, n + i);
    }
    printf("made %d tokens, %.1f per second\n", n_more, n_more / (peer_seconds() - start));
    free(fed);
    p->llama_batch_free(batch);
    p->llama_free(context);
}

int main(int argc, char **argv)
{
    bool by_descriptor = peer_option(&argc, argv, "--fd-from-path");
    if (argc != 4)
        peer_die("usage: peer_chat [--fd-from-path] MODEL PROMPT N");
    struct peer p;
    peer_load(&p);
    struct llama_model *model = peer_model(&p, peer_path(argv[1], by_descriptor));
    chat(&p, model, argv[2], atoi(argv[3]));
    p.llama_model_free(model);
    return EXIT_SUCCESS;
}
