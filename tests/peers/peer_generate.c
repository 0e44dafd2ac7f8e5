/*
 * peer_generate [--fd-from-path] MODEL PROMPT N: the prompt and N more tokens, each the likeliest, by the peer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/peers/peer.h"

enum { CONTEXT = 256 };

static llama_token likeliest(const struct peer *p, const struct llama_vocab *vocab, const float *logits)
{
    int best = 0;
    for (int i = 1; i < p->llama_vocab_n_tokens(vocab); i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static void print_token(const struct peer *p, const struct llama_vocab *vocab, llama_token token)
{
    char piece[256];
    int n = p->llama_token_to_piece(vocab, token, piece, sizeof piece, 0, false);
    if (n > 0)
        (void)fwrite(piece, 1, (size_t)n, stdout);
}

static void generate(const struct peer *p, struct llama_model *model, const char *prompt, int n_more)
{
    struct llama_context *context = peer_context(p, model, CONTEXT);
    const struct llama_vocab *vocab = p->llama_model_get_vocab(model);
    struct llama_batch batch = p->llama_batch_init(CONTEXT, 0, 1);
    int n;
    llama_token *tokens = peer_tokenize(p, vocab, prompt, strlen(prompt), &n);
    llama_token fed[CONTEXT] = {p->llama_vocab_bos(vocab)};
    if (n + n_more + 1 > CONTEXT)
        peer_die("at most %d tokens", CONTEXT - 1);
    memcpy(fed + 1, tokens, (size_t)n * sizeof *tokens);

    printf("%s", prompt);
    int fresh = n + 1, at = 0; /* tokens not yet fed, and the position of the first of them */
    for (int i = 0; i < n_more; i++) {
        peer_feed(p, context, &batch, fed + at, fresh, at);
        llama_token next = likeliest(p, vocab, p->llama_get_logits_ith(context, fresh - 1));
        at += fresh;
        fresh = 1;
        if (next == p->llama_vocab_eos(vocab))
            break;
        print_token(p, vocab, next);
        fed[at] = next;
    }
    printf("\n");
    free(tokens);
    p->llama_batch_free(batch);
    p->llama_free(context);
}

int main(int argc, char **argv)
{
    bool by_descriptor = peer_option(&argc, argv, "--fd-from-path");
    if (argc != 4)
        peer_die("usage: peer_generate [--fd-from-path] MODEL PROMPT N");
    struct peer p;
    peer_load(&p);
    struct llama_model *model = peer_model(&p, peer_path(argv[1], by_descriptor));
    generate(&p, model, argv[2], atoi(argv[3]));
    p.llama_model_free(model);
    return EXIT_SUCCESS;
}
