/*
 * peer_load MODEL [no-mmap] [no-repack]: the peer loads a model and prints a line. For each line on standard input:
 * reads one token with all of it, one thread, and prints how long that took. Ends with the input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/peers/peer.h"

static void take_word(struct llama_model_params *params, const char *word)
{
    if (strcmp(word, "no-mmap") == 0)
        params->load_mode = LLAMA_LOAD_MODE_NONE;
    else if (strcmp(word, "no-repack") == 0)
        params->use_extra_bufts = false;
    else
        peer_die("no word '%s'", word);
}

static void read_token(const struct peer *p, struct llama_context *context, struct llama_batch *batch, int at)
{
    llama_token token = 1;
    double start = peer_seconds();
    peer_feed(p, context, batch, &token, 1, at);
    printf("whole model: %.3f s, logit %.9g\n", peer_seconds() - start, (double)p->llama_get_logits_ith(context, 0)[0]);
    (void)fflush(stdout); /* whoever waits for the line */
}

int main(int argc, char **argv)
{
    struct peer p;
    char line[64];
    if (argc < 2)
        peer_die("usage: peer_load MODEL [no-mmap] [no-repack]");
    peer_load(&p);
    struct llama_model_params params = p.llama_model_default_params();
    for (int i = 2; i < argc; i++)
        take_word(&params, argv[i]);
    struct llama_model *model = p.llama_model_load_from_file(argv[1], params);
    if (!model)
        peer_die("the peer cannot load '%s'", argv[1]);
    printf("loaded\n");
    (void)fflush(stdout); /* as above */
    struct llama_context *context = NULL;
    struct llama_batch batch = p.llama_batch_init(1, 0, 1);
    for (int at = 0; fgets(line, sizeof line, stdin); at++) {
        context = context ? context : peer_context(&p, model, 64);
        read_token(&p, context, &batch, at);
    }
    p.llama_batch_free(batch);
    if (context)
        p.llama_free(context);
    p.llama_model_free(model);
    return EXIT_SUCCESS;
}
