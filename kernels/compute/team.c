#include "kernels/compute/team.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/core/cleanup.h"
#include "kernels/core/error.h"

enum {
    TEAM_THREADS_MAX = 1024,
    /*
     * Looks before a thread sleeps: some 100 us. Waking one takes 50 us; the last task of a product of one column, for
     * which the others wait, up to 30 (two threads: 86 to 90 % of what memory gives with 1000 looks, 90 to 97 so).
     */
    SPINS = 5000,
};

struct member {
    struct qd_team *team;
    pthread_t thread;
    unsigned number;
};

struct qd_team {
    unsigned n_threads;
    struct member *members; /* owned; [n_started], numbers from 1 */
    unsigned n_started;
    pthread_mutex_t lock; /* of the sleep of those who wait, for what follows */
    pthread_cond_t work_is_there, work_is_done;
    _Atomic unsigned call;   /* number of the present call */
    _Atomic unsigned n_busy; /* members that have not finished it */
    _Atomic bool stopping;
    _Atomic size_t next;
    size_t n_tasks;
    team_task_fn *run;
    void *data;
};

static void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void take_tasks(struct qd_team *t, unsigned thread)
{
    for (size_t i; (i = atomic_fetch_add(&t->next, 1)) < t->n_tasks;)
        t->run(t->data, i, thread);
}

/* Until *@value is no longer @old. */
static void wait_for_change(struct qd_team *t, const _Atomic unsigned *value, unsigned old, pthread_cond_t *cond)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(value) != old)
            return;
        relax();
    }
    (void)pthread_mutex_lock(&t->lock); /* plain mutexes and conditions cannot fail here */
    while (atomic_load(value) == old)
        (void)pthread_cond_wait(cond, &t->lock);
    (void)pthread_mutex_unlock(&t->lock);
}

static void finish(struct qd_team *t)
{
    (void)pthread_mutex_lock(&t->lock);
    atomic_fetch_sub(&t->n_busy, 1);
    (void)pthread_cond_signal(&t->work_is_done);
    (void)pthread_mutex_unlock(&t->lock);
}

static void *member_main(void *data)
{
    struct member *m = data;
    struct qd_team *t = m->team;
    for (unsigned seen = 0;;) {
        wait_for_change(t, &t->call, seen, &t->work_is_there);
        seen = atomic_load(&t->call);
        if (atomic_load(&t->stopping))
            return NULL;
        take_tasks(t, m->number);
        finish(t);
    }
}

static void begin_call(struct qd_team *t)
{
    (void)pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->call, 1);
    (void)pthread_cond_broadcast(&t->work_is_there);
    (void)pthread_mutex_unlock(&t->lock);
}

void team_run(struct qd_team *team, size_t n_tasks, team_task_fn *run, void *data)
{
    if (!team || team->n_threads == 1 || n_tasks < 2) {
        for (size_t i = 0; i < n_tasks; i++)
            run(data, i, 0);
        return;
    }
    team->n_tasks = n_tasks;
    team->run = run;
    team->data = data;
    atomic_store(&team->next, 0);
    atomic_store(&team->n_busy, team->n_started);
    begin_call(team);
    take_tasks(team, 0);
    for (unsigned busy; (busy = atomic_load(&team->n_busy)) > 0;)
        wait_for_change(team, &team->n_busy, busy, &team->work_is_done);
}

/* Signals are the program's own business, not ours. */
static int start_member(struct member *m)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* cannot fail with these arguments */
    int r = pthread_create(&m->thread, NULL, member_main, m);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int start_members(struct qd_team *t, struct qd_error *err)
{
    for (unsigned i = 0; i + 1 < t->n_threads; i++) {
        struct member *m = &t->members[i];
        *m = (struct member){.team = t, .number = i + 1};
        int r = start_member(m);
        if (r != 0)
            return err_sys(err, r, "start thread %u of %u", i + 2, t->n_threads);
        t->n_started++;
    }
    return 0;
}

int qd_team_new(unsigned n_threads, struct qd_team **ret, struct qd_error *err)
{
    if (n_threads < 1 || n_threads > TEAM_THREADS_MAX)
        return err_new(err, QD_E_INVALID, "a team of %u threads: 1 to %d are possible", n_threads, TEAM_THREADS_MAX);
    struct qd_team *t = calloc(1, sizeof *t);
    if (!t || !(t->members = calloc(n_threads, sizeof *t->members))) {
        free(t);
        return err_new(err, QD_E_NO_MEMORY, "a team of %u threads", n_threads);
    }
    t->n_threads = n_threads;
    (void)pthread_mutex_init(&t->lock, NULL); /* these cannot fail on Linux */
    (void)pthread_cond_init(&t->work_is_there, NULL);
    (void)pthread_cond_init(&t->work_is_done, NULL);
    int r = start_members(t, err);
    if (r < 0) {
        qd_team_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

void qd_team_free(struct qd_team *team)
{
    if (!team)
        return;
    atomic_store(&team->stopping, true);
    begin_call(team);
    for (unsigned i = 0; i < team->n_started; i++)
        (void)pthread_join(team->members[i].thread, NULL); /* ours, joinable, joined once */
    (void)pthread_cond_destroy(&team->work_is_there);
    (void)pthread_cond_destroy(&team->work_is_done);
    (void)pthread_mutex_destroy(&team->lock);
    free(team->members);
    free(team);
}

unsigned qd_team_threads(const struct qd_team *team)
{
    return team ? team->n_threads : 1;
}
